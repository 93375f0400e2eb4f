"""The spatial IRNN: our back-ends and other ways to the same, timed in turns."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from itertools import product

import torch
from benchmark_turns import Row, in_turns
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ion_d2 import IONError
from ion_d2.layers import spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import BACKENDS, unavailable_backends
from ion_lab.report.charts import Line, Plot, lines_plot

KINDS = ("identity", "diagonal", "full")
# Squares, for the plot of time against H + W.
SQUARES = tuple(f"1x64x{side}x{side}" for side in (16, 32, 64, 128, 256))
# conv5 of a 600 x 1000 image, alone and as a pair; stride 8 of it.
SIZES = ("1x512x38x63", "2x512x38x63", "1x256x100x152", *SQUARES)
# Of float32 states beside the definition in float64, relative to the largest.
TOLERANCE = 1e-5

Contender = Callable[[Tensor, "Tensor | None"], Tensor]


class BidirectionalRNNs(nn.Module):
    """``torch.nn.RNN(nonlinearity="relu", bidirectional=True)`` on the rows and on the columns.

    On a GPU that is cuDNN's. Its input-to-hidden matrix, which it cannot do without, is the
    identity here; the spatial IRNN leaves it to the 1x1 convolution before.
    """

    def __init__(self, weight: Tensor) -> None:
        """Take over hidden-to-hidden matrices, (4, C, C): right, left, down, up."""
        super().__init__()
        make = functools.partial(nn.RNN, nonlinearity="relu", bias=False, bidirectional=True)
        self.rows, self.columns = (make(*weight.shape[1:]).to(weight.device) for _ in range(2))
        for parameter in self.parameters():
            nn.init.eye_(parameter)
        with torch.no_grad():
            for own, given in zip(self.matrices, weight):
                own.copy_(given)

    @property
    def matrices(self) -> list[Tensor]:
        """The hidden-to-hidden matrices, in our order."""
        pairs = product((self.rows, self.columns), ("weight_hh_l0", "weight_hh_l0_reverse"))
        return [getattr(rnn, name) for rnn, name in pairs]

    def forward(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """Map (N, C, H, W) to (N, 4 * C, H, W); ``weight`` was taken over and is not read."""
        count, channels, height, width = x.shape
        rows, _ = self.rows(x.permute(3, 0, 2, 1).reshape(width, -1, channels))
        columns, _ = self.columns(x.permute(2, 0, 3, 1).reshape(height, -1, channels))
        rows = rows.view(width, count, height, -1).permute(1, 3, 2, 0)
        columns = columns.view(height, count, width, -1).permute(1, 3, 0, 2)
        return torch.cat([rows, columns], dim=1)


class Case:
    """A map "NxCxHxW", a weight of one of ``KINDS`` and a gradient of the output, all random."""

    def __init__(self, size: str, kind: str, device: torch.device) -> None:
        torch.manual_seed(0)
        count, channels, *sides = (int(side) for side in size.split("x"))
        self.size, self.kind = size, kind
        self.x = torch.randn(count, channels, *sides, device=device, requires_grad=True)
        self.weight = None
        if kind == "diagonal":
            self.weight = torch.rand(4, channels, device=device).requires_grad_()
        elif kind == "full":
            random = torch.randn(4, channels, channels, device=device)
            self.weight = (random * 0.5 / channels**0.5).requires_grad_()
        self.grad = torch.randn(count, 4 * channels, *sides, device=device)
        self._channels_last = self.grad.contiguous(memory_format=torch.channels_last)

    def contenders(self) -> dict[str, Contender]:
        """Everything that can run this transition on this device, by name."""
        missing = unavailable_backends(self.x.device, torch.float32, self.kind)
        own = [name for name in BACKENDS if name not in missing]
        found: dict[str, Contender] = {
            f"ion_d2 {name}": functools.partial(spatial_irnn, backend=name) for name in own
        }
        found["plain loop"] = spatial_irnn_reference
        if self.kind == "full":
            found["nn.RNN"] = BidirectionalRNNs(self.weight)
        return found

    def check(self, name: str, contender: Contender) -> None:
        """Raise IONError unless the states are those of the definition."""
        wide = (None if it is None else it.detach().double() for it in (self.x, self.weight))
        exact = spatial_irnn_reference(*wide)
        error = ((self.forward(contender) - exact).abs().max() / exact.abs().max()).item()
        if not error < TOLERANCE:
            raise IONError(
                f"{name} is wrong on {self.size}, {self.kind}: the states are off by {error:.1e}, "
                f"expected less than {TOLERANCE:.0e}."
            )

    def forward(self, contender: Contender) -> Tensor:
        """The states, (N, 4 * C, H, W)."""
        return contender(self.x, self.weight)

    def gradients(self, contender: Contender) -> tuple[Tensor, ...]:
        """The gradients of the map and of the weights, if there are any."""
        out = self.forward(contender)
        own = getattr(contender, "matrices", [] if self.weight is None else [self.weight])
        # As a 1x1 convolution after the operator hands it back: in its input's layout.
        last = out.is_contiguous(memory_format=torch.channels_last)
        return torch.autograd.grad(out, [self.x, *own], self._channels_last if last else self.grad)


def extra_bytes(call: Callable[[], Sequence[Tensor]], device: torch.device) -> int:
    """The most that a call allocates at a time, beyond what it returns."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        returned = call()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
            returned = call()
        # Tables show what an operator holds when it ends; the peak is in the raw events.
        events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
        held = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            held += event.nbytes()
            peak = max(peak, held)
    return peak - sum(each.nbytes for each in returned)


def time_irnn(args: argparse.Namespace, device: torch.device) -> dict[str, dict[str, Row]]:
    """For each map and transition, by contender: milliseconds, and MiB at most.

    "extra MiB" is what a forward and a backward pass hold beyond what they are given and the
    gradients that they return: the output and their workspace.
    """
    # On a GPU, cuDNN's RNN would multiply in TF32: everyone computes in float32.
    torch.backends.cudnn.allow_tf32 = False
    tables = {}
    for size, kind in product(args.sizes, args.kinds):
        case = Case(size, kind, device)
        runs: dict[tuple[str, str], Callable] = {}
        for name, contender in case.contenders().items():
            case.check(name, contender)
            runs[name, "forward ms"] = functools.partial(case.forward, contender)
            runs[name, "both ms"] = functools.partial(case.gradients, contender)
        table: dict[str, Row] = {}
        for (name, what), row in in_turns(runs, args.repeats, device).items():
            table.setdefault(name, {})[what] = row["seconds"] * 1e3
        for name, row in table.items():
            row["extra MiB"] = extra_bytes(runs[name, "both ms"], device) / 2**20
        tables[f"{size}, {kind}"] = table
    return tables


def plot_irnn(tables: dict[str, dict[str, Row]]) -> dict[str, Plot]:
    """Forward and backward of square maps against H + W, a line for each contender."""
    kinds: dict[str, dict[str, Line]] = {}
    for title, table in tables.items():
        size, kind = title.split(", ")
        for name, row in table.items() if size in SQUARES else ():
            line = kinds.setdefault(kind, {}).setdefault(name, Line(name, [], []))
            line.x.append(2 * int(size.rpartition("x")[2]))
            line.y.append(row["both ms"])
    log = {"markers": True, "xscale": "log", "yscale": "log"}
    return {
        kind: lines_plot(list(lines.values()), "H + W [cells]", "forward + backward [ms]", **log)
        for kind, lines in kinds.items()
    }
