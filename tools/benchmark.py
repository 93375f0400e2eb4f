#!/usr/bin/env python
"""Measure what models cost: time, memory, arithmetic, and in which of their parts.

    python tools/benchmark.py infer configs/faster_rcnn_vgg16_voc.yaml configs/ion_vgg16_voc.yaml
    python tools/benchmark.py train model_zoo:COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml ...
    python tools/benchmark.py parts [--training]      # in which part of the model the time goes
    python tools/benchmark.py profile [--training]    # and in which operations
    python tools/benchmark.py curves                  # cost against picture, proposals and batch
    python tools/benchmark.py data voc:PATH:trainval  # what one process loads for a training
    python tools/benchmark.py pooler                  # skip pooling against its single steps
    python tools/benchmark.py irnn                    # the recurrence's back-ends
    python tools/benchmark.py gpu --output FOLDER     # all of it, in ten minutes on a GPU

Works run in turns, so that whatever else the machine does falls on all alike, and are compared with
the first. Weights are random (unless --opts MODEL.WEIGHTS names some) and the same where two models
have them in common. A training step is a forward and a backward pass. Times are medians, after one
turn to warm up. Peak memory is what a run needs beyond what was there before it: of the process
(Linux) or of the GPU.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmark_curves import plot_curves, time_curves
from benchmark_flops import count_flops
from benchmark_gpu import profile_steps, run_all
from benchmark_irnn import KINDS, SIZES, plot_irnn, time_irnn
from benchmark_models import PRECISIONS, build_detectors
from benchmark_parts import plot_parts, time_parts
from benchmark_report import Tables, plot_bars, tell
from benchmark_turns import find_device, in_turns
from benchmark_works import data_works, pooler_works
from shared_arguments import whole_number

from ion_d2.engine.setup import run_cli
from ion_lab.report.charts import Plot

_COUNT = whole_number(1)
_SIDES = {"nargs": 2, "metavar": ("H", "W")}
_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PAIR = [str(_CONFIGS / name) for name in ("faster_rcnn_vgg16_voc.yaml", "ion_vgg16_voc.yaml")]


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("infer", "train", "parts", "profile", "curves", "gpu"):
        command = _add_models(_add(commands, name), name)
        if name in ("parts", "profile"):
            command.add_argument("--training", action="store_true", help="of a training step")
        elif name == "curves":
            command.add_argument("--factors", type=_COUNT, nargs="+", default=(1, 2, 3, 4))
        elif name == "gpu":
            command.add_argument("--output", type=Path, default=Path("output/benchmark"))
    data = _add(commands, "data", repeats=300)
    data.add_argument("dataset", nargs="?", help="e.g. voc:PATH:trainval")
    data.add_argument("--config", default=PAIR[1])
    data.add_argument("--opts", nargs="+", default=[], help="overrides, KEY VALUE ...")
    pooler = _add(commands, "pooler")
    pooler.add_argument("--image-size", type=_COUNT, default=(600, 800), **_SIDES)
    pooler.add_argument("--rois", type=_COUNT, default=512)
    pooler.add_argument("--kind", choices=("ROIPool", "ROIAlignV2"), default="ROIPool")
    irnn = _add(commands, "irnn", repeats=15)
    irnn.add_argument("--sizes", nargs="+", type=_size, default=SIZES, metavar="NxCxHxW")
    irnn.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    return parser


def _size(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]*(x[1-9][0-9]*){3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1x512x38x63 (NxCxHxW)")
    return text


def _add(commands: Any, name: str, repeats: int = 5) -> argparse.ArgumentParser:
    command = commands.add_parser(name)
    command.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    command.add_argument("--threads", type=_COUNT, help="of the CPU; default: PyTorch's")
    command.add_argument("--repeats", type=_COUNT, default=repeats, help="turns after the first")
    if name != "gpu":  # which writes several of each
        command.add_argument("--json", type=Path, help="a file for the figures")
        command.add_argument("--chart", type=Path, help="a PNG file for a chart")
    return command


def _add_models(command: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    sides, proposals = ((300, 400), 100) if name == "curves" else ((600, 800), 300)
    several = {"action": "append", "nargs": "+", "default": [], "metavar": "KEY VALUE"}
    add = command.add_argument
    add("configs", nargs="*", default=PAIR, metavar="CONFIG", help="a path or model_zoo:NAME")
    add("--opts", nargs="+", default=[], help="overrides of all, KEY VALUE ...")
    add("--image-size", type=_COUNT, default=sides, help="of a made picture", **_SIDES)
    add("--proposals", type=_COUNT, default=proposals, help="of the RPN in an inference")
    if name != "gpu":
        add("--variant", help="each config once more, with these overrides", **several)
        add("--precision", nargs="+", choices=PRECISIONS, default=["default"])
        add("--images", type=_COUNT, default=1, help="of a batch")
    if name not in ("gpu", "curves"):
        add("--dataset", help="e.g. voc:PATH:test, instead of a made picture")
        add("--pictures", type=_COUNT, default=20, help="how many of the dataset, in turn (20)")
    command.set_defaults(training=name == "train", dataset=None)
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        argv: its arguments; None takes them from the command line.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    args = build_parser().parse_args(words)
    args.words, args.device = words, find_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.command == "gpu":
        return run_all(args, main)
    with tempfile.TemporaryDirectory() as folder:
        tables, plots = _run(args, Path(folder))
    tell(tables, plots, args)
    return 0


def _run(args: argparse.Namespace, folder: Path) -> tuple[Tables, dict[str, Plot]]:
    device, turns = args.device, args.repeats
    if args.command == "irnn":
        tables = time_irnn(args, device)
        return tables, plot_irnn(tables)
    if args.command in ("pooler", "data"):
        works = pooler_works(args, device) if args.command == "pooler" else data_works(args, folder)
        tables = {args.command: in_turns(works, turns, device)}
        return tables, plot_bars(tables)
    detectors = build_detectors(args)
    if args.command == "curves":
        tables = time_curves(detectors, args, device)
        return tables, plot_curves(tables)
    if args.command == "parts":
        tables = time_parts(detectors, turns, args.training, device)
        return tables, plot_parts(tables)
    if args.command == "profile":
        return profile_steps(detectors, args.training), {}
    works = {name: it.train if args.training else it.infer for name, it in detectors.items()}
    rows = in_turns(works, turns, device)
    for name, row in rows.items():
        net = detectors[name].net
        row["images/s"] = args.images / row["seconds"]
        row["M parameters"] = sum(p.numel() for p in net.parameters()) / 1e6
        if not args.training:
            row["GFLOPs"] = count_flops(net, next(detectors[name].batches)[:1])[""] / 1e9
    tables = {"training step" if args.training else "inference": rows}
    return tables, plot_bars(tables)


if __name__ == "__main__":
    run_cli(main)
