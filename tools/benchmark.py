#!/usr/bin/env python
"""Measure what models cost: the time of an inference and of a training step, and peak memory.

    python tools/benchmark.py models configs/faster_rcnn_vgg16_voc.yaml configs/ion_vgg16_voc.yaml
    python tools/benchmark.py pooler
    python tools/benchmark.py data voc:PATH:trainval

`models` runs several configs in turns, so that whatever else the machine does falls on all alike,
and compares them with the first. The weights and the picture are random: the cost depends on sizes
alone. `pooler` compares skip pooling with the paper's steps one by one, in PyTorch's operators.
`data` is what one process loads for a training: read, decode, augment, resize to 600 pixels, of
made pictures if no dataset is given. Times are medians. Peak memory is what a step needs beyond
what was there before it: of the process (Linux) or of the GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from benchmark_works import Work, data_works, model_works, pooler_works
from torch import Tensor

from ion_d2.engine.setup import run_cli


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
    data = commands.add_parser("data", parents=[shared])
    data.add_argument("dataset", nargs="?", help="e.g. voc:PATH:trainval")
    data.set_defaults(repeats=300)
    data.add_argument("--config", default="configs/ion_vgg16_voc.yaml")
    data.add_argument("--opts", nargs="+", default=[], help="overrides, KEY VALUE ...")
    pooler = commands.add_parser("pooler", parents=[shared])
    pooler.add_argument("--rois", type=int, default=512)
    pooler.add_argument("--kind", choices=("ROIPool", "ROIAlignV2"), default="ROIPool")
    return parser


def main() -> None:
    """Read the command line, measure, print a table and write the figures."""
    args = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = _tables(args, Path(folder))
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        print(f"{where}, {torch.get_num_threads()} threads")
        figures = {title: measure(works, args.repeats) for title, works in tables.items()}
    for title, rows in figures.items():
        _print(title, rows)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


def _tables(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Work]]:
    """What is to be measured, by the title of its table and by its name."""
    if args.command == "pooler":
        return {"forward and backward": pooler_works(args)}
    if args.command == "data":
        return {"loading": data_works(args, folder)}
    weights: dict[str, Tensor] = {}
    works = {Path(config).stem: model_works(config, args, weights) for config in args.configs}
    return {
        title: {name: each[title] for name, each in works.items()}
        for title in ("inference", "training step")
    }


def _print(title: str, rows: dict[str, dict[str, float]]) -> None:
    first = next(iter(rows.values()))
    head = f"{'time':>9s} {'a second':>9s} {'ratio':>7s} {'memory':>10s} {'ratio':>7s}"
    print(f"\n{title:28s} {head}")
    for name, row in rows.items():
        seconds, megabytes = row["seconds"], row["megabytes"]
        ratios = seconds / first["seconds"], megabytes / max(first["megabytes"], 1e-9)
        time_of = f"{seconds:7.3f} s {1 / seconds:9.1f} {ratios[0]:7.2f}"
        print(f"{name:28s} {time_of} {megabytes:7.0f} MB {ratios[1]:7.2f}")


if __name__ == "__main__":
    run_cli(main)
