"""In which part of a detector the time goes, forward and backward."""

from __future__ import annotations

import functools
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from benchmark_flops import count_flops
from benchmark_models import Detector
from benchmark_turns import Row, in_turns, moment, seconds_between
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from ion_d2.layers.roi_max_pool import WindowMaxPool
from ion_d2.modeling import SkipPooler
from ion_d2.modeling.roi_heads.sppnet import PyramidPooler
from ion_lab.report.charts import Plot, stacked_plot

LEFT = "left over"
# In the order in which they come: the modules of each part, by name or kind.
PARTS = {
    "backbone": r"backbone",
    "context": r"backbone\.context",
    "RPN": r"proposal_generator",
    "pooling": (ROIPooler, PyramidPooler, WindowMaxPool),
    "merging": SkipPooler,
    "fully connected": r"roi_heads\.(box_head|box_predictor|res5)(\.\d+)?",
    # What the heads do outside of their layers: in training, sampling and losses.
    "post-processing": r"roi_heads",
    "masks, keypoints": r"roi_heads\.(mask|keypoint)_head",
    "segmentation": r"sem_seg_head",
    # The model itself: preparing images, scaling results, adding losses up.
    LEFT: r"",
}


def parts_of(net: nn.Module) -> dict[str, str]:
    """The modules with which another part begins, by name; "" is the whole model."""
    return {
        name: part
        for name, module in net.named_modules()
        for part, its in PARTS.items()
        if (re.fullmatch(its, name) if isinstance(its, str) else isinstance(module, its))
    }


def by_part(net: nn.Module, totals: Mapping[str, float]) -> dict[str, float]:
    """Divide what modules sum up to, parts inside of them included, among the parts."""
    result: Counter[str] = Counter()
    parts = parts_of(net)
    for name, part in parts.items():
        result[part] += totals.get(name, 0)
        if name:
            around = max(
                (it for it in parts if f".{name}".startswith(f".{it}.") or not it), key=len
            )
            result[parts[around]] -= totals.get(name, 0)
    return dict(result)


class PartMarks:
    """Marks, while it is entered, when another part of a model begins to work.

    Forward, a part is what runs between the start and the end of its modules but not inside of
    another's. Backward, the gradient of what a part computed belongs to that part. ``mark`` is
    called with the part and "forward" or "backward".
    """

    def __init__(self, net: nn.Module, mark: Callable[[str, str], Any]) -> None:
        self._net, self._mark = net, mark
        self._open, self._current = [LEFT], ("", "")
        self._seen: set[Any] = set()
        self._hooks: list[Any] = []

    def __enter__(self) -> PartMarks:
        for name, part in parts_of(self._net).items():
            module = self._net.get_submodule(name)
            enter, leave = (functools.partial(it, part) for it in (self._enter, self._leave))
            self._hooks.append(module.register_forward_pre_hook(enter))
            self._hooks.append(module.register_forward_hook(leave))
        self.switch(LEFT, "forward")
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._seen.clear()

    def switch(self, part: str, way: str, *_: Any) -> None:
        """Say that a part works from now on."""
        if (part, way) != self._current:
            self._current = part, way
            self._mark(part, way)

    def _enter(self, part: str, module: nn.Module, inputs: Any) -> None:
        self._claim(inputs, self._open[-1])
        self._open.append(part)
        self.switch(part, "forward")

    def _leave(self, part: str, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self._claim(outputs, self._open.pop())
        self.switch(self._open[-1], "forward")

    def _claim(self, values: Any, part: str) -> None:
        """Count the gradients of what was computed since the last claim to a part."""
        nodes = [tensor.grad_fn for tensor in _tensors(values)]
        while nodes:
            node = nodes.pop()
            # Leaves, which have a variable, outlive the pass.
            if node is not None and node not in self._seen and not hasattr(node, "variable"):
                self._seen.add(node)
                node.register_prehook(functools.partial(self.switch, part, "backward"))
                nodes += [before for before, _ in node.next_functions]


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (dict, list, tuple)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def time_parts(
    detectors: Mapping[str, Detector], turns: int, training: bool, device: torch.device
) -> dict[str, dict[str, Row]]:
    """Time whole runs and, in the same turns, runs with a mark at every change of parts.

    Returns:
        For each detector its parts, their "sum" and the "whole" without marks: median seconds, and
        of a part also its share, parameters and multiply-adds of an inference of an image.
    """
    works, spent = {}, {name: [] for name in detectors}
    for name, it in detectors.items():
        works[name] = it.train if training else it.infer
        works[f"{name}, marked"] = functools.partial(_marked, it, training, device, spent[name])
    rows = in_turns(works, turns, device)
    tables = {name: _table(it, spent[name][1:]) for name, it in detectors.items()}
    for name, table in tables.items():
        table["whole"] = {"seconds": rows[name]["seconds"]}
    return tables


def _marked(detector: Detector, training: bool, device: torch.device, spent: list[Counter]) -> None:
    """One run, whose seconds by part and way are added to ``spent``."""
    moments: list[tuple[Any, Any]] = []
    with PartMarks(detector.net, lambda *part: moments.append((part, moment(device)))) as marks:
        if training:
            detector.step()
            marks.switch(LEFT, "backward")
            detector.clear()
        else:
            detector.infer()
    moments.append((None, moment(device)))
    spent.append(Counter())
    for (part, start), (_, end) in zip(moments, moments[1:]):
        spent[-1][part] += seconds_between(start, end)


def _table(detector: Detector, turns: list[Counter]) -> dict[str, Row]:
    net = detector.net
    sizes = {name: sum(p.numel() for p in m.parameters()) for name, m in net.named_modules()}
    flops = by_part(net, count_flops(net, next(detector.batches)[:1]))
    parameters = by_part(net, sizes)
    medians = {key: statistics.median(it[key] for it in turns) for turn in turns for key in turn}
    ways = dict.fromkeys(way for _, way in medians)
    table: dict[str, Row] = {}
    for part in (it for it in PARTS if it in flops):
        row = {way: medians.get((part, way), 0.0) for way in ways}
        table[part] = {"seconds": sum(row.values()), **row}
        table[part]["%"] = 100 * table[part]["seconds"] / sum(medians.values())
        table[part]["GFLOPs"] = flops[part] / 1e9
        table[part]["M parameters"] = parameters[part] / 1e6
    table["sum"] = {key: sum(row[key] for row in table.values()) for key in table[LEFT]}
    return table


def plot_parts(tables: Mapping[str, Mapping[str, Row]]) -> dict[str, Plot]:
    """A bar for each detector, made of its parts."""
    parts = [it for it in PARTS if any(it in table for table in tables.values())]
    bars = [{name: row["seconds"] for name, row in table.items()} for table in tables.values()]
    shares = {it: [bar.get(it, 0.0) for bar in bars] for it in parts}
    size = (760, 110 + 30 * len(tables))
    return {"": stacked_plot(list(tables), shares, "seconds", size=size)}
