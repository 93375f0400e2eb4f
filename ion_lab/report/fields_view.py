"""What one cell sees of the image: effective and theoretical receptive fields as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ion_d2.modeling import ContextBackbone
from ion_d2.modeling.context import CONTEXT

from .charts import Line, lines_plot
from .document import Figure, Part, Picture, Table, Text
from .field import effective_fields, share_within
from .heatmap import heat_map
from .observe import Sample
from .reach import context_reach, pixels_of, vgg_field

# Longer side in pixels of the images whose gradients are taken: it bounds time and memory.
_LONGEST = 512
# Powers of ten that the colors of a field span.
_DECADES = 3


class Field(NamedTuple):
    """The receptive field of one cell of a feature."""

    name: str
    measured: np.ndarray  # (H, W), see effective_fields
    possible: np.ndarray | None  # (H, W) bool, the theoretical field; None where it is not known
    square: tuple[int, int, int, int]  # x0, y0, x1, y1 of the cell's own pixels

    @property
    def within(self) -> np.ndarray:
        """Shares of it in squares around the cell, see :func:`share_within`."""
        x0, y0, x1, y1 = self.square
        return share_within(self.measured, ((y0 + y1) / 2, (x0 + x1) / 2))


def measure_fields(
    cfg: CfgNode, model: nn.Module, samples: Sequence[Sample], place: tuple[float, float]
) -> list[Field]:
    """Measure the receptive fields of the deepest feature and of the context.

    Args:
        cfg: the model's config.
        model: the detector, in evaluation mode.
        samples: images; they are brought to the size of the first, and to 512 pixels at most.
        place: (y, x) of the cell, as shares of the image's height and width.
    """
    images = _same_size(model, samples)
    with torch.no_grad():
        features = model.backbone(images[0][None])
    names = _names(cfg, model)
    sizes = {name: tuple(features[name].shape[2:]) for name in names}
    cells = {name: _cell_at(place, sizes[name]) for name in names}
    measured = effective_fields(model.backbone, images, cells)
    height, width = images[0].shape[1:]
    fields = []
    for name, (row, column) in cells.items():
        stride = int(model.backbone.output_shape()[name].stride)
        square = column * stride, row * stride, (column + 1) * stride, (row + 1) * stride
        cell = np.zeros(sizes[name], dtype=bool)
        cell[row, column] = True
        possible = _possible(model.backbone, name, cell, (height, width))
        fields.append(Field(name, measured[name], possible, square))
    return fields


def _same_size(model: nn.Module, samples: Sequence[Sample]) -> list[Tensor]:
    """The images as the backbone takes them, all of the first one's size: (3, H, W) each."""
    height, width = samples[0].inputs["image"].shape[1:]
    scale = min(1.0, _LONGEST / max(height, width))
    step = max(1, model.backbone.size_divisibility)  # or the padding would count as picture
    size = tuple(max(1, round(side * scale / step)) * step for side in (height, width))
    resized = [
        F.interpolate(s.inputs["image"][None].float(), size, mode="bilinear", align_corners=False)
        for s in samples
    ]
    return [model.preprocess_image([{"image": image[0]}]).tensor[0] for image in resized]


def _names(cfg: CfgNode, model: nn.Module) -> list[str]:
    """The context and the feature it is made of; without context, the deepest that is pooled."""
    if isinstance(model.backbone, ContextBackbone):
        return [model.backbone.in_feature, CONTEXT]
    shapes = model.backbone.output_shape()
    return [max(cfg.MODEL.ROI_HEADS.IN_FEATURES, key=lambda name: shapes[name].stride)]


def _cell_at(place: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
    row, column = (min(int(share * length), length - 1) for share, length in zip(place, size))
    return row, column


def _possible(
    backbone: nn.Module, name: str, cell: np.ndarray, size: tuple[int, int]
) -> np.ndarray | None:
    """The pixels that can have a say in a cell of a feature."""
    if name == CONTEXT:
        reach = context_reach(backbone.context, cell)
        if reach is not None and reach.all():
            return np.ones(size, dtype=bool)
        return None if reach is None else _possible(backbone, backbone.in_feature, reach, size)
    field = vgg_field(getattr(backbone, "bottom_up", backbone), name)
    return None if field is None else pixels_of(cell, field, size)


def fields_parts(fields: Sequence[Field], num_images: int, normalizes: bool) -> list[Part]:
    """Show receptive fields: maps, a plot of how far they reach, and a table.

    Args:
        fields: of the deepest feature and, if there is one, of the context.
        num_images: over which they were averaged.
        normalizes: whether layers of the backbone average over the whole image.
    """
    height, width = fields[0].measured.shape
    named = " and ".join(field.name for field in fields)
    caption = (
        f"How strongly each pixel of an image of {width} x {height} moves the framed cell of "
        f"{named}: the root mean square derivative over {num_images} images. Colors span "
        f"{_DECADES} powers of ten, from black (a thousandth of the most, or less) to pale yellow. "
        "The blue line bounds the theoretical receptive field of the layers, where it is known."
    )
    if normalizes and fields[0].possible is not None:
        caption += (
            " Group normalization averages over the whole image, which is why pixels beyond that "
            "line move the cell as well."
        )
    if not any(field.measured.any() for field in fields):
        return [Text([f"The chosen cell of {named} moves with no pixel: all its channels are 0."])]
    maps = Figure([_map(field) for field in fields], caption, width=300)
    return [maps, _distance_plot(fields), _field_table(fields)]


def _map(field: Field) -> Picture:
    shares = field.within
    data = heat_map(field.measured, decades=_DECADES, outline=field.possible, spot=field.square)
    alt = (
        f"Effective receptive field of a cell of {field.name}: half of it lies within "
        f"{_distance(shares, 0.5)} pixels of the cell's center."
    )
    return Picture(data, alt, field.name)


def _distance(shares: np.ndarray, share: float) -> int:
    """Least distance within which the share lies."""
    return int(np.searchsorted(shares, share))


def _distance_plot(fields: Sequence[Field]) -> Figure:
    lines = [Line(f.name, np.arange(len(f.within)), 100 * f.within) for f in fields]
    axes = ("distance from the cell (pixels)", "share of the field (%)")
    plot = lines_plot(lines, *axes, size=(400, 280), ylim=(0, 102), xlim=(0, None)).svg()
    halves = [f"{f.name} within {_distance(f.within, 0.5)} pixels" for f in fields]
    caption = (
        "Share of the field inside a square around the cell that reaches so far to each side. Half "
        f"of it lies, for {', for '.join(halves)}."
    )
    return Figure([Picture(plot, caption, "How far the fields reach")], caption, width=340)


def _field_table(fields: Sequence[Field]) -> Table:
    base = fields[0]
    rows = []
    for field in fields:
        theoretical = outside = "not known"
        if field.possible is not None:
            theoretical = f"{100 * field.possible.mean():.0f} % of the image"
        if base.possible is not None:
            beyond = field.measured[~base.possible].sum() / (field.measured.sum() or 1.0)
            outside = f"{100 * beyond:.1f} %"
        within = [f"{_distance(field.within, share)} px" for share in (0.5, 0.9)]
        rows.append([field.name, theoretical, *within, outside])
    headers = ["feature", "theoretical field", "half within", "90 % within"]
    headers.append(f"beyond {base.name}'s theoretical field")
    return Table("The same in figures.", headers, rows)
