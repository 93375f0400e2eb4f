#!/usr/bin/env python
"""Measure what the rounds of box refinement and the mirrored image cost at test time.

Runs the same model on one image with one round, with two, with votes and so on, in turns, so that
whatever else the machine does falls on all alike, and reports the least time of each: by the clock,
and that which the process itself had on the CPUs. The weights are random; the cost depends on the
size of the image and the number of proposals alone.

    python tools/measure_refinement.py --config-file configs/ion_vgg16_voc.yaml --image-size 600 800
"""

from __future__ import annotations

import argparse
import time

import torch
from detectron2.config import CfgNode
from torch import nn

from ion_d2.engine.setup import build_model, load_config, run_cli


def measure(
    model: nn.Module, x: dict, variants: dict[str, tuple], repeats: int
) -> dict[str, tuple[float, float]]:
    """Time the variants in turns.

    Args:
        model: an ION model in evaluation mode.
        x: the input dict of an image.
        variants: rounds, vote IoU (or None) and whether to average with the mirror, by name.
        repeats: number of turns, after one that does not count.

    Returns:
        For each variant the least seconds by the clock and on the CPUs.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, (rounds, vote_iou, flip) in variants.items():
            model.roi_heads.rounds, model.roi_heads.vote_iou = rounds, vote_iou
            model.flip_averaging = flip
            start = time.perf_counter(), time.process_time()
            with torch.no_grad():
                model([x])
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            end = time.perf_counter(), time.process_time()
            seconds[name].append((end[0] - start[0], end[1] - start[1]))
    return {n: tuple(min(column) for column in zip(*s[1:])) for n, s in seconds.items()}


def load_model(config_file: str, num_proposals: int, opts: list[str]) -> tuple[CfgNode, nn.Module]:
    """Build a model with random weights.

    Args:
        config_file: of an ION model with Detectron2's RPN.
        num_proposals: number of boxes that the RPN passes on.
        opts: overrides, KEY VALUE ...

    Returns:
        The config and the model, in evaluation mode.
    """
    own = ["MODEL.ROI_HEADS.NUM_CLASSES", "20", "MODEL.RPN.POST_NMS_TOPK_TEST", str(num_proposals)]
    cfg = load_config(config_file, [*own, *opts])
    torch.manual_seed(0)
    return cfg, build_model(cfg).eval()


def count_proposals(model: nn.Module, x: dict) -> int:
    """Count the boxes that reach the ROI heads.

    Args:
        model: an ION model in evaluation mode.
        x: the input dict of an image.

    Returns:
        Their number.
    """
    found = []
    hook = model.proposal_generator.register_forward_hook(lambda m, i, out: found.extend(out[0]))
    with torch.no_grad():
        model([x])
    hook.remove()
    return len(found[0])


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--image-size", type=int, nargs=2, default=(600, 800), metavar=("H", "W"))
    parser.add_argument("--proposals", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("opts", nargs="*", help="overrides, KEY VALUE ...")
    args = parser.parse_args()
    cfg, model = load_model(args.config_file, args.proposals, args.opts)
    x = {"image": torch.randint(0, 256, (3, *args.image_size), dtype=torch.uint8)}
    vote = cfg.TEST.BOX_REFINEMENT.VOTE_IOU
    variants = {
        "one round": (1, None, False),
        "two rounds": (2, None, False),
        "two rounds, vote": (2, vote, False),
        "one round, mirror": (1, None, True),
    }
    count = count_proposals(model, x)
    print(f"{count} proposals, {args.image_size[0]} x {args.image_size[1]} pixels")
    found = measure(model, x, variants, args.repeats)
    print(f"{'':20s} {'clock':>8s} {'ratio':>8s} {'CPU':>8s} {'ratio':>8s}")
    base = found["one round"]
    for name, seconds in found.items():
        cells = (f"{s:7.3f}s {s / b:7.2f}x" for s, b in zip(seconds, base))
        print(f"{name:20s} {' '.join(cells)}")


if __name__ == "__main__":
    run_cli(main)
