"""How the cost of a detection grows with the image, the proposals and the batch."""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
from benchmark_models import Detector, random_input
from benchmark_turns import Row, in_turns

from ion_d2 import IONError
from ion_lab.report.charts import Line, Plot, lines_plot

AXES = ("megapixels", "proposals", "images")


def time_curves(
    detectors: Mapping[str, Detector], args: argparse.Namespace, device: torch.device
) -> dict[str, dict[str, Row]]:
    """Grow one of ``AXES`` at a time by each of ``args.factors``, the others staying as given.

    Returns:
        For each axis and detector the places "x", the median "seconds" there, and the line through
        them: its value at 0, "start", its "slope", "R2", and how far the seconds are off at most
        relative to the line, "deviation".

    Raises:
        IONError: a model has no ROI heads, whose proposals could grow.
    """
    for name, detector in detectors.items():
        if not hasattr(detector.net, "roi_heads"):
            raise IONError(f"curves needs models with ROI heads; leave out {name}.")
    # What reached the heads: an RPN may find fewer boxes than it may pass on.
    boxes: dict[tuple, int] = {}
    works = {}
    for factor, axis, (name, detector) in itertools.product(args.factors, AXES, detectors.items()):
        grown = {each: factor if each == axis else 1 for each in AXES}
        proposals = args.proposals * grown["proposals"]
        picture = random_input(detector.net, _size(args, grown["megapixels"]), proposals)
        batch = [picture] * (args.images * grown["images"])
        key = axis, name, factor
        works[key] = functools.partial(_run, detector, batch, proposals, boxes, key)
    rows = in_turns(works, args.repeats, device)
    tables: dict[str, dict[str, Row]] = {axis: {} for axis in AXES}
    for axis, name in itertools.product(AXES, detectors):
        x = {
            "megapixels": [math.prod(_size(args, factor)) / 1e6 for factor in args.factors],
            "proposals": [boxes[axis, name, factor] for factor in args.factors],
            "images": [args.images * factor for factor in args.factors],
        }[axis]
        y = [rows[axis, name, factor]["seconds"] for factor in args.factors]
        tables[axis][name] = {"x": x, "seconds": y, **fit_line(x, y, axis)}
    return tables


def _size(args: argparse.Namespace, factor: int) -> tuple[int, int]:
    """Height and width of ``--image-size``, grown to ``factor`` times the area."""
    height, width = (round(side * math.sqrt(factor)) for side in args.image_size)
    return height, width


def _run(
    detector: Detector, batch: list[dict], proposals: int, boxes: dict[tuple, int], key: tuple
) -> None:
    net = detector.net
    if net.proposal_generator is not None:
        net.proposal_generator.post_nms_topk[False] = proposals
    detector.batches = itertools.repeat(batch)
    hook = net.roi_heads.register_forward_pre_hook(
        lambda _, inputs: boxes.update({key: sum(map(len, inputs[2]))})
    )
    detector.infer()
    hook.remove()


def fit_line(x: list[float], y: list[float], axis: str) -> dict[str, float]:
    """The line of least squares through points; see :func:`time_curves`."""
    if len(set(x)) < 2:
        raise IONError(f"Every run had {x[0]:g} {axis}: no line; give other --factors or sizes.")
    slope, start = np.polyfit(x, y, 1)
    line = start + slope * np.asarray(x)
    off = np.asarray(y) - line
    r2 = 1 - np.sum(off**2) / np.sum((np.asarray(y) - np.mean(y)) ** 2)
    deviation = np.max(np.abs(off / line))
    return {"start": start, "slope": slope, "R2": r2, "deviation": deviation}


def plot_curves(tables: dict[str, dict[str, Row]]) -> dict[str, Plot]:
    """The seconds along each axis, a line for each detector."""
    return {
        axis: lines_plot(
            [Line(name, row["x"], row["seconds"]) for name, row in rows.items()],
            axis, "seconds", markers=True, xlim=(0, None), ylim=(0, None),
        )
        for axis, rows in tables.items()
    }  # fmt: skip
