#!/usr/bin/env python
"""Measure what models cost: the time of an inference and of a training step, and peak memory.

    python tools/benchmark.py models configs/faster_rcnn_vgg16_voc.yaml configs/ion_vgg16_voc.yaml
    python tools/benchmark.py pooler

`models` runs several configs in turns, so that whatever else the machine does falls on all alike,
and compares them with the first. The weights and the picture are random: the cost depends on sizes
alone. `pooler` compares skip pooling with the paper's steps one by one, in PyTorch's operators.
Times are medians. Peak memory is what a step needs beyond what was there before it: of the process
(Linux) or of the GPU.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from ion_d2.engine.setup import build_model, load_config, run_cli
from ion_d2.layers import l2_normalize
from ion_d2.modeling import SkipPooler

# Channels and strides of VGG16's conv3, conv4 and conv5, and of the context.
_FEATURES = ((256, 4), (512, 8), (512, 16), (512, 16))

Work = Callable[[], None]


def measure(works: dict[str, Work], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds and peak megabytes of each work, run in turns after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    memory: dict[str, float] = {}
    for turn in range(repeats + 1):
        for name, work in works.items():
            before = _reset_peak()
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            memory[name] = _peak() - before
    return {
        name: {"seconds": statistics.median(each), "megabytes": memory[name]}
        for name, each in seconds.items()
    }


def _reset_peak() -> float:
    """Begin a new measurement of peak memory; what is in use, in megabytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    if not Path("/proc/self/clear_refs").exists():
        return 0.0
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return _status("VmHWM") if Path("/proc/self/clear_refs").exists() else 0.0


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(key))


def model_works(
    config: str, args: argparse.Namespace, weights: dict[str, Tensor]
) -> dict[str, Work]:
    """An inference and a training step of a config with random weights.

    Args:
        config: its path.
        args: of the command.
        weights: of the models so far, by name. What this one has as well it takes from them: RPNs
            that differ propose other boxes, of which NMS alone can take twice as long.
    """
    own = ["MODEL.ROI_HEADS.NUM_CLASSES", "20", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "21"]
    own += ["MODEL.RPN.POST_NMS_TOPK_TEST", str(args.proposals), "MODEL.WEIGHTS", ""]
    cfg = load_config(config, [*own, *args.opts])
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, own_weights in model.state_dict().items():
        shared = weights.setdefault(name.replace("bottom_up.", ""), own_weights)
        if shared.shape == own_weights.shape:
            own_weights.copy_(shared)
    x = _input(args.image_size)

    def infer() -> None:
        model.eval()
        with torch.no_grad():
            model([x])

    def train() -> None:
        model.train()
        with EventStorage():
            sum(model([x] * args.images).values()).backward()
        model.zero_grad()

    return {"inference": infer, "training step": train}


def _input(size: tuple[int, int]) -> dict:
    """A random picture of (height, width) with ten boxes."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(10, 2, generator=generator) * torch.tensor([width, height]) * 0.6
    extent = torch.rand(10, 2, generator=generator) * torch.tensor([width, height]) * 0.3 + 16
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.cat([start, start + extent], dim=1))
    instances.gt_classes = torch.arange(10)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances}


def pooler_works(args: argparse.Namespace) -> dict[str, Work]:
    """Forward and backward of the paper's steps one by one, and of :class:`SkipPooler`."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    height, width = args.image_size
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in _FEATURES]
    features = [
        torch.rand(1, c, height // s, width // s, device=device).requires_grad_()
        for c, s in _FEATURES
    ]
    start = torch.rand(args.rois, 2) * torch.tensor([width, height]) * 0.9
    end = start + torch.rand(args.rois, 2) * 300 + 20
    boxes = Boxes(torch.cat([start, end.clamp(max=max(args.image_size) - 1)], 1).to(device))
    pooler = SkipPooler(shapes, pooler_type=args.kind).to(device)
    inputs = [*features, *pooler.parameters()]

    def run(pool: Callable[[list[Tensor], list[Boxes]], Tensor]) -> Work:
        def work() -> None:
            out = pool(features, [boxes])
            torch.autograd.grad(out, inputs, torch.ones_like(out))

        return work

    literal = lambda *given: literal_pooler(pooler, args.kind, *given)  # noqa: E731
    return {"step by step": run(literal), "SkipPooler": run(pooler)}


def literal_pooler(
    pooler: nn.Module, kind: str, features: list[Tensor], boxes: list[Boxes]
) -> Tensor:
    """Pool, normalize, concatenate, scale and merge, each by an operator of its own."""
    rois = [each.tensor for each in boxes]
    pool = roi_pool if kind == "ROIPool" else functools.partial(roi_align, aligned=True)
    pooled = [pool(x, rois, 7, 1 / s) for x, (_, s) in zip(features, _FEATURES)]
    normalized = torch.cat([l2_normalize(x, "roi") for x in pooled], dim=1)
    return pooler.reduce(normalized * pooler.scale.factor[:, None, None])


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--image-size", type=int, nargs=2, default=(600, 800), metavar=("H", "W"))
    shared.add_argument("--repeats", type=int, default=5, help="turns after the first")
    shared.add_argument("--json", type=Path, help="a file for the figures")
    commands = parser.add_subparsers(dest="command", required=True)
    models = commands.add_parser("models", parents=[shared])
    models.add_argument("configs", nargs="+", metavar="CONFIG")
    models.add_argument("--proposals", type=int, default=300, help="of the RPN in an inference")
    models.add_argument("--images", type=int, default=1, help="of a training step")
    models.add_argument("--opts", nargs="+", default=[], help="overrides of all, KEY VALUE ...")
    pooler = commands.add_parser("pooler", parents=[shared])
    pooler.add_argument("--rois", type=int, default=512)
    pooler.add_argument("--kind", choices=("ROIPool", "ROIAlignV2"), default="ROIPool")
    return parser


def main() -> None:
    """Read the command line, measure, print a table and write the figures."""
    args = build_parser().parse_args()
    if args.command == "pooler":
        tables = {"forward and backward": pooler_works(args)}
    else:
        weights: dict[str, Tensor] = {}
        works = {Path(config).stem: model_works(config, args, weights) for config in args.configs}
        tables = {
            title: {name: each[title] for name, each in works.items()}
            for title in ("inference", "training step")
        }
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{where}, {torch.get_num_threads()} threads, random picture of {args.image_size}")
    figures = {title: measure(works, args.repeats) for title, works in tables.items()}
    for title, rows in figures.items():
        _print(title, rows)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


def _print(title: str, rows: dict[str, dict[str, float]]) -> None:
    first = next(iter(rows.values()))
    print(f"\n{title:28s} {'time':>9s} {'ratio':>7s} {'memory':>10s} {'ratio':>7s}")
    for name, row in rows.items():
        seconds, megabytes = row["seconds"], row["megabytes"]
        ratios = seconds / first["seconds"], megabytes / max(first["megabytes"], 1e-9)
        print(f"{name:28s} {seconds:7.3f} s {ratios[0]:7.2f} {megabytes:7.0f} MB {ratios[1]:7.2f}")


if __name__ == "__main__":
    run_cli(main)
