#!/usr/bin/env python
"""Time the spatial IRNN: every back-end and every rival on the same maths, in one run.

First each contender's states and gradients are compared with the definition in float64; a back-end
of ours that is wrong ends the run, a rival is left out of the case. Then all of them take turns, so
that a machine that slows down slows all of them. Writes irnn.json and irnn.png (time against H + W)
into the output folder.

    python tools/benchmark_irnn.py
    python tools/benchmark_irnn.py --device cuda --rounds 100
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from irnn_case import Case, leave_out_wrong
from irnn_rivals import BidirectionalRNNs, Contender, contender_parameters, contenders
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

KINDS = ("identity", "diagonal", "full")
# conv5 of a 600 x 1000 image, alone and as a pair; stride 8 of it; a long, thin stack of channels.
SIZES = ("1x512x38x63", "2x512x38x63", "1x256x100x152", "1x64x256x256")
# Squares for the plot and for the time per cell.
SQUARES = tuple(f"1x64x{side}x{side}" for side in (16, 32, 64, 128, 256))


@dataclasses.dataclass
class Row:
    """One contender on one size: medians over the rounds, in milliseconds, and peak memory.

    ``extra_mib`` is what a forward and a backward pass hold at most beyond what they are given
    (input, weight, the output's gradient) and what they return (the gradients of input and weight):
    the output and their workspace.
    """

    size: str
    kind: str
    contender: str
    forward_ms: float
    both_ms: float
    extra_mib: float


def extra_bytes(call: Callable[[], None], device: str) -> int:
    """Peak of the memory that a call allocates."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        call()
    # The profiler's tables show what an operator holds when it ends; the peak is in its raw events.
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(size: str, kind: str, args: argparse.Namespace) -> list[Row]:
    """All contenders on one size, in turns."""
    case = Case(size, kind, args.device)
    found = contenders(kind, args.device, case.x.shape[1])
    for contender in found.values():
        if isinstance(contender, BidirectionalRNNs):
            contender.load(case.weight)
    leave_out_wrong(case, found)
    timers = {
        (name, what): Timer(
            "call(contender)",
            globals={"call": call, "contender": contender},
            num_threads=torch.get_num_threads(),
        )
        for name, contender in found.items()
        for what, call in (("forward", case.forward), ("both", case.both))
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in timers}
    for _ in range(args.rounds):
        for key, timer in timers.items():
            times[key].append(timer.timeit(1).mean * 1e3)
    return [
        Row(
            size,
            kind,
            name,
            *(statistics.median(times[name, what]) for what in ("forward", "both")),
            _extra_mib(case, contender, args.device),
        )
        for name, contender in found.items()
    ]


def _extra_mib(case: Case, contender: Contender, device: str) -> float:
    leaves = [case.x, *contender_parameters(contender)]
    if case.weight is not None and len(leaves) == 1:
        leaves.append(case.weight)
    returned: list[Tensor] = []

    def call() -> None:
        out = case.forward(contender)
        returned.extend(torch.autograd.grad(out, leaves, case.grad_like(out)))

    peak = extra_bytes(call, device)
    return (peak - sum(grad.nbytes for grad in returned)) / 2**20


def _line(row: Row) -> str:
    return (
        f"{row.size:>14} {row.kind:>9} {row.contender:>14}: forward {row.forward_ms:8.2f} ms, "
        f"with backward {row.both_ms:8.2f} ms, {row.extra_mib:7.1f} MiB"
    )


def plot(rows: list[Row], path: Path) -> None:
    """Time of forward and backward of the squares against H + W, one line a contender."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    squares = [row for row in rows if row.size in SQUARES]
    kinds = list(dict.fromkeys(row.kind for row in squares))
    figure, grid = plt.subplots(1, len(kinds), figsize=(13, 4), sharey=True, squeeze=False)
    axes = grid[0]
    for axis, kind in zip(axes, kinds):
        for name in dict.fromkeys(row.contender for row in squares if row.kind == kind):
            points = [r for r in squares if (r.kind, r.contender) == (kind, name)]
            sums = [sum(int(side) for side in r.size.split("x")[2:]) for r in points]
            axis.plot(sums, [r.both_ms for r in points], marker="o", label=name)
        axis.set(title=kind, xlabel="H + W [cells]", xscale="log", yscale="log")
        axis.legend()
    axes[0].set_ylabel("forward + backward [ms], 64 channels")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", nargs="+", default=[*SIZES, *SQUARES], metavar="NxCxHxW")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--rounds", type=int, default=15, help="timed runs of each contender")
    parser.add_argument("--threads", type=int, help="threads of the CPU; default: PyTorch's")
    parser.add_argument("--output", type=Path, default=Path("output/benchmark_irnn"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    # On a GPU, cuDNN's RNN would multiply in TF32: everyone computes in float32.
    torch.backends.cudnn.allow_tf32 = False
    rows: list[Row] = []
    for size in args.sizes:
        for kind in args.kinds:
            for row in measure(size, kind, args):
                rows.append(row)
                print(_line(row), flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor()
    report = {
        "device": name or args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": args.rounds,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    (args.output / "irnn.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if any(row.size in SQUARES for row in rows):
        plot(rows, args.output / "irnn.png")
    print(f"Written to {args.output}.", file=sys.stderr)


if __name__ == "__main__":
    main()
