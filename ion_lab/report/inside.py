"""The inside in pictures: which layers the descriptors of regions draw on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pycocotools.cocoeval import Params
from torch import Tensor, nn

from ion_d2.modeling import SkipPooler

from .charts import Line, lines_plot, stacked_plot
from .document import Figure, Part, Picture, Section, Table, Text
from .observe import Observation, Sample
from .shares import find_skip_pooler, layer_contributions, layer_scales, layer_shares

# Bounds between small, medium and large objects, in pixels squared.
_SMALL, _LARGE = Params().areaRng[Params().areaRngLbl.index("medium")]
# Scale factors that differ by less, relative to the largest, need no plot.
_ALIKE = 0.01
# Classes in the table at most.
_MAX_CLASSES = 20


class RegionShares(NamedTuple):
    """How much each of L layers has in the descriptors of R regions."""

    shares: np.ndarray  # (R, L), see layer_shares
    classes: np.ndarray  # (R,) class ids
    areas: np.ndarray  # (R,) in pixels of the image file


def inside_section(
    model: nn.Module,
    seen: Iterable[tuple[Sample, Observation]],
    names: Sequence[str],
    class_names: Sequence[str],
) -> Section:
    """Show which layers the labeled objects' descriptors are made of.

    Args:
        model: the detector, in evaluation mode.
        seen: images, and what the model made of them.
        names: the features that are pooled, in order.
        class_names: by class id.
    """
    title = "Inside: which layers a descriptor draws on"
    pooler = find_skip_pooler(model)
    if pooler is None:
        text = "This model does not merge several layers into its descriptors: it pools "
        return Section(title, [Text([f"{text}{', '.join(names)} as Detectron2 does."])])
    regions, features = measure_shares(pooler, seen, names)
    parts: list[Part] = []
    if len(regions.shares):
        parts += [_shares_figure(regions, names), _class_table(regions, names, class_names)]
    else:
        parts.append(Text(["The images looked at have no labeled objects to describe."]))
    return Section(title, [*parts, *_scale_parts(pooler, features, names)])


def measure_shares(
    pooler: SkipPooler, seen: Iterable[tuple[Sample, Observation]], names: Sequence[str]
) -> tuple[RegionShares, list[Tensor]]:
    """Measure the layers' shares in the descriptors of labeled objects.

    Returns:
        The shares, and the features of the last image.
    """
    shares, features = [np.zeros((0, len(names)))], []
    classes, areas = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for sample, observation in seen:
        features = [observation.features[name] for name in names]
        boxes = sample.boxes.to(features[0].device)
        shares.append(layer_shares(layer_contributions(pooler, features, [boxes])).cpu().numpy())
        classes.append(sample.truth.classes)
        areas.append((sample.truth.boxes[:, 2:] - sample.truth.boxes[:, :2]).prod(axis=1))
    joined = RegionShares(*(np.concatenate(column) for column in (shares, classes, areas)))
    return joined, features


def _shares_figure(regions: RegionShares, names: Sequence[str]) -> Figure:
    areas = regions.areas
    groups = {
        "all": areas >= 0,
        "small": areas < _SMALL,
        "medium": (areas >= _SMALL) & (areas < _LARGE),
        "large": areas >= _LARGE,
    }
    groups = {name: chosen for name, chosen in groups.items() if chosen.any()}
    means = np.array([100 * regions.shares[chosen].mean(axis=0) for chosen in groups.values()])
    titles = [f"{name} ({chosen.sum()})" for name, chosen in groups.items()]
    shares = dict(zip(names, means.T))
    plot = stacked_plot(titles, shares, "share of the descriptor (%)", size=(420, 220)).svg()
    listed = ", ".join(f"{name} {share:.0f} %" for name, share in zip(names, means[0]))
    caption = (
        "Mean share of each layer in the descriptors of labeled objects, by size (their number in "
        "brackets; bounds 32 x 32 and 96 x 96 pixels). A layer's share is the L2 norm of what it "
        "adds to the output of the 1x1 convolution, divided by the sum of these norms over all "
        f"layers. Over all objects: {listed}."
    )
    return Figure([Picture(plot, f"Shares of the layers: {listed}.", "By size")], caption, 380)


def _class_table(regions: RegionShares, names: Sequence[str], class_names: Sequence[str]) -> Table:
    counts = np.bincount(regions.classes, minlength=len(class_names))
    chosen = sorted(np.argsort(-counts, kind="stable")[:_MAX_CLASSES])
    rows = []
    for label in (label for label in chosen if counts[label]):
        means = 100 * regions.shares[regions.classes == label].mean(axis=0)
        rows.append([class_names[label], str(counts[label]), *(f"{m:.0f} %" for m in means)])
    caption = "The same by class."
    if np.count_nonzero(counts) > _MAX_CLASSES:
        caption = f"The same for the {_MAX_CLASSES} classes with the most objects."
    return Table(caption, ["class", "objects", *names], rows)


def _scale_parts(
    pooler: SkipPooler, features: Sequence[Tensor], names: Sequence[str]
) -> list[Part]:
    scales = layer_scales(pooler, features)
    if pooler.scale is None or not scales:
        text = "The layers are merged as they are: without normalization there is no scale."
        return [Section("Scale", [Text([text])])]
    rows = [
        [name, str(len(s)), *(f"{value:.4g}" for value in (s.min(), s.median(), s.max()))]
        for name, s in zip(names, scales)
    ]
    caption = "Scale factors per channel after the L2 normalization"
    if pooler.scale.factor.requires_grad:
        caption += ", as learned"
    table = Table(f"{caption}.", ["layer", "channels", "least", "median", "most"], rows)
    together = torch.cat(scales)
    if together.max() - together.min() < _ALIKE * together.abs().max():
        text = f"All factors are alike to within {100 * _ALIKE:.0f} %."
        return [Section("Scale", [table, Text([text])])]
    lines = [
        Line(name, np.linspace(0, 100, len(s)), s.sort().values.numpy())
        for name, s in zip(names, scales)
    ]
    plot = lines_plot(lines, "channels, sorted (%)", "scale", size=(400, 280)).svg()
    note = "The factors of each layer in ascending order; a flat line: all are alike."
    figure = Figure([Picture(plot, "Scale factors of each layer, sorted.", "")], note, width=340)
    return [Section("Scale", [table, figure])]
