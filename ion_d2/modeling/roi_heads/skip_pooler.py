"""Skip pooling: one descriptor per ROI from several backbone features (paper sec. 3.1, "inside").

Shape shorthand: M is the number of ROIs of the whole batch, P the pooler's resolution in bins, L
the number of features.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from ...errors import IONError
from ...layers.l2_norm import NORMS, normalized_projection
from ...layers.merged_windows import MergedWindows, can_merge_windows
from ...layers.roi_align import ROIAlign
from ...layers.roi_max_pool import ROIMaxPool, spread_windows
from ...value_rules import COUNT, POSITIVE, check_value, number, one_of
from .feature_scale import FeatureScale

KINDS = one_of("ROIPool", "ROIAlign", "ROIAlignV2")
_SCALE_INIT = number("above 0, or 0 to measure it", lambda value: value >= 0)


class SkipPooler(nn.Module):
    """Pools, L2-normalizes, concatenates, re-scales and merges several features for each ROI.

    Each feature is pooled at its own stride. With norm "none" there is no scale either (the "1x1
    only" column of Table 4), and for a single feature of ``out_channels`` channels no convolution:
    then this is a plain ROI pooler, as in Fast R-CNN.

    Features may also be added to another one instead of concatenated: normalized like it, times its
    scale and a learned gate. The convolution then reads both with the same weights; a feature of
    another number of channels has weights and a scale of its own.
    """

    def __init__(
        self,
        input_shapes: Sequence[ShapeSpec],
        *,
        output_size: int | tuple[int, int] = 7,
        sampling_ratio: int = 0,
        pooler_type: str = "ROIPool",
        norm: str = "roi",
        scale_init: float = 1000.0,
        learn_scale: bool = True,
        scale_batches: int = 8,
        scale_source: int = -1,
        scale_shape: ShapeSpec | None = None,
        out_channels: int = 512,
        merge_gain: float = 1.0,
        added: Sequence[int] = (),
        gate_init: float = 1.0,
    ) -> None:
        """
        Args:
            input_shapes: channels and stride of each feature that ``forward`` gets.
            output_size: P, or (height, width), in bins.
            sampling_ratio: see :func:`make_pooler`, also for ``pooler_type``.
            norm: "roi", "position" or "none"; see :func:`ion_d2.layers.l2_normalize`.
            scale_init: start of the per-channel scale; 0 measures it, see :class:`FeatureScale`.
            learn_scale: whether the scale is trained.
            scale_batches: training batches over which ``scale_init`` 0 averages.
            scale_source: index of the feature whose pooled norm it measures.
            scale_shape: it measures a further feature instead, of this shape, which ``forward``
                gets after the others and does not merge.
            merge_gain: factor on the start of the 1x1 convolution's weights.
            added: indices of features that are added to the one of ``scale_source``, each times a
                learned gate, which starts at ``gate_init``.

        Raises:
            IONError: no features, an unknown ``norm`` or ``pooler_type``, a number out of its
                range, or a feature that would be ``added`` to itself.
        """
        super().__init__()
        if not input_shapes:
            raise IONError("MODEL.ROI_HEADS.IN_FEATURES is empty; name at least one feature.")
        check_value("MODEL.SKIP_POOLER.NORM", norm, one_of(*NORMS))
        check_value("MODEL.SKIP_POOLER.SCALE_INIT", scale_init, _SCALE_INIT)
        check_value("MODEL.SKIP_POOLER.SCALE_BATCHES", scale_batches, COUNT)
        check_value("MODEL.SKIP_POOLER.OUT_CHANNELS", out_channels, COUNT)
        check_value("MODEL.SKIP_POOLER.MERGE_GAIN", merge_gain, POSITIVE)
        scale_source %= len(input_shapes)
        added = tuple(i % len(input_shapes) for i in added)
        if scale_source in added:
            raise IONError(
                "MODEL.SKIP_POOLER.CONTEXT is 'residual', but MODEL.ROI_HEADS.IN_FEATURES names no "
                "other feature to which context could be added (SkipPooler's added); name one, or "
                "set it to 'concat'."
            )
        self.added = added
        self.gate = nn.Parameter(torch.full((len(added),), float(gate_init))) if added else None
        self.norm = norm
        # The map that the scale was last measured on: heads that pool the same maps again (each
        # stage of a cascade) would change the scale under the gradient of the first time.
        self._measured: weakref.ref[Tensor] | None = None
        self.scale_source = scale_source
        # First the feature whose norm is measured, since the scales of all follow from it.
        self._order = sorted(range(len(input_shapes)), key=lambda i: i != scale_source)
        self.level_poolers = nn.ModuleList(
            make_pooler(output_size, shape.stride, sampling_ratio, pooler_type)
            for shape in input_shapes
        )
        self.scale_pooler: nn.Module | None = None
        if scale_shape is not None:
            self.scale_pooler = make_pooler(
                output_size, scale_shape.stride, sampling_ratio, pooler_type
            )
        self._columns, channels = _columns_of(input_shapes, added, scale_source)
        self.scale = None
        if norm != "none":
            self.scale = FeatureScale(channels, scale_init, learn_scale, scale_batches)
        self.reduce = None
        if norm != "none" or len(input_shapes) > 1 or channels != out_channels:
            self.reduce = nn.Conv2d(channels, out_channels, kernel_size=1)
            weight_init.c2_xavier_fill(self.reduce)
            self.reduce.weight.data *= merge_gain
        elif merge_gain != 1:
            raise IONError(
                f"MODEL.SKIP_POOLER.MERGE_GAIN is {merge_gain}, but a single feature of "
                f"{out_channels} channels with MODEL.SKIP_POOLER.NORM 'none' is not merged; set it "
                "to 1."
            )
        self.out_channels = out_channels

    def forward(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """Pool M boxes, in pixels, from L maps (N, C_l, H_l, W_l): (M, out_channels, P, P).

        Raises:
            ValueError: there are not as many maps as the pooler was built for.
        """
        wanted = len(self.level_poolers) + (self.scale_pooler is not None)
        if len(features) != wanted:
            raise ValueError(f"{wanted} feature maps wanted, got {len(features)}")
        if self.scale_pooler is not None:
            features, apart = features[:-1], features[-1:]
            if scale := self._to_measure(apart[0]):
                with torch.no_grad():
                    scale.observe(self.scale_pooler(apart, boxes), self.norm)
        # Contiguous: heads flatten it, Detectron2's keypoint head by a view.
        if self.reduce is None:
            return self.level_poolers[0](features, boxes).contiguous()
        by_windows = isinstance(self.level_poolers[0].level_poolers[0], ROIMaxPool)
        if by_windows and boxes and can_merge_windows(features[0], self.norm):
            return self._merge_windows(features, boxes, self.reduce.bias).contiguous()
        return self._merge_bins(features, boxes, self.reduce.bias).contiguous()

    def _merge_windows(self, features: list[Tensor], boxes: list[Boxes], bias: Tensor) -> Tensor:
        rois = convert_boxes_to_pooler_format(boxes)
        total, merged = bias[:, None, None], MergedWindows(self.norm)
        for i in self._order:
            windows, index = self.level_poolers[i].level_poolers[0].windows(features[i], rois)
            if scale := self._to_measure_merged(i, features):
                scale.observe(spread_windows(windows, index), self.norm)
            if windows.requires_grad and len(windows) > 0.9 * index.numel():
                # Few bins share a window; what is kept for the gradient would take more memory.
                total = total + self.contribution(i, spread_windows(windows, index))
            else:
                merged.add(windows, index, self._weight(i), self.factors(i))
        return merged.merge(total)

    def _merge_bins(self, features: list[Tensor], boxes: list[Boxes], bias: Tensor) -> Tensor:
        total = bias[:, None, None]
        for i in self._order:
            pooled = self.level_poolers[i](features[i : i + 1], boxes)
            if scale := self._to_measure_merged(i, features):
                scale.observe(pooled, self.norm)
            # At once, so that the gradients of one feature's pooled values exist at a time.
            projected = self.contribution(i, pooled)
            # The first sum has the bias's type, float32 also in mixed precision.
            total = total + projected if i == self.scale_source else total.add_(projected)
        return total.to(projected.dtype)

    def _to_measure_merged(self, i: int, features: list[Tensor]) -> FeatureScale | None:
        """The scale, if it is to be measured on this one of the features that are merged."""
        if i != self.scale_source or self.scale_pooler is not None:
            return None
        return self._to_measure(features[i])

    def _to_measure(self, maps: Tensor) -> FeatureScale | None:
        """The scale, if it is to be measured on these maps: not twice on the same."""
        if self.scale is None or not self.scale.measuring:
            return None
        again = self._measured is not None and self._measured() is maps
        self._measured = weakref.ref(maps)
        return None if again else self.scale

    def __getstate__(self) -> dict[str, Any]:
        """All but the map, which is of the moment."""
        return {**self.__dict__, "_measured": None}

    def contribution(self, index: int, pooled: Tensor) -> Tensor:
        """What a pooled feature adds to the descriptor: (M, C_l, P, P) to (M, out_channels, P, P).

        The contributions of all features and the bias add up to what ``forward`` returns.
        """
        return normalized_projection(pooled, self._weight(index), self.norm, self.factors(index))

    def _weight(self, index: int) -> Tensor:
        """The (out_channels, C_l) weights that read a feature; without a norm, times its gate."""
        assert self.reduce is not None  # or nothing is merged
        weight = self.reduce.weight[:, self._columns[index], 0, 0]
        gated = self.scale is None and index in self.added
        return self._gate_of(index) * weight if gated else weight

    def factors(self, index: int) -> Tensor | None:
        """The (C_l,) factors of a feature's channels after the norm; None without a norm."""
        if self.scale is None:
            return None
        factors = self.scale.factor[self._columns[index]]
        if self.scale.measuring:
            factors = factors.clone()  # a further forward pass may fill it before a backward one
        return self._gate_of(index) * factors if index in self.added else factors

    def _gate_of(self, index: int) -> Tensor:
        assert self.gate is not None  # where features are added
        return self.gate[self.added.index(index)]

    @torch.no_grad()
    def weaken(self, index: int, gain: float) -> None:
        """Multiply the weights with which the convolution reads a concatenated feature."""
        assert self.reduce is not None  # where several features are concatenated
        self.reduce.weight[:, self._columns[index]] *= gain


def _columns_of(
    shapes: Sequence[ShapeSpec], added: Sequence[int], target: int
) -> tuple[dict[int, slice], int]:
    """By which channels of the merging convolution each feature is read, and how many it has.

    What is added to a feature as wide as itself is read by the same ones.
    """
    sharing = [i for i in added if shapes[i].channels == shapes[target].channels]
    own = [i for i in range(len(shapes)) if i not in sharing]
    ends = list(itertools.accumulate(shapes[i].channels for i in own))
    columns = dict(zip(own, map(slice, [0, *ends], ends)))
    return {**columns, **dict.fromkeys(sharing, columns[target])}, ends[-1]


def make_pooler(
    output_size: int | tuple[int, int], stride: int, sampling_ratio: int, kind: str
) -> ROIPooler:
    """Build a Detectron2 pooler of one level.

    Args:
        output_size: bins down and across, or one number for both.
        stride: of the feature in pixels; any number.
        sampling_ratio: samples per bin side of the ROIAlign kinds; 0 adapts it to the ROI's size.
        kind: "ROIPool" (max pooling, as in the paper), "ROIAlign" or "ROIAlignV2".

    Raises:
        IONError: unknown ``kind``.
    """
    check_value("MODEL.ROI_BOX_HEAD.POOLER_TYPE", kind, KINDS)
    # Detectron2 takes powers of two alone for strides; the layer itself has no such limit.
    pooler = ROIPooler(output_size, (1.0,), sampling_ratio, kind)
    size, scale = pooler.output_size, 1.0 / stride
    if kind == "ROIPool":
        pooler.level_poolers[0] = ROIMaxPool(size, scale)
    else:
        pooler.level_poolers[0] = ROIAlign(size, scale, sampling_ratio, kind == "ROIAlignV2")
    return pooler
