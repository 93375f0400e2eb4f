"""ION in Detectron2's LazyConfig (Python config files)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyCall, instantiate
from detectron2.data import get_detection_dataset_dicts
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, GeneralizedRCNN, roi_heads
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.registry import locate
from omegaconf import DictConfig
from torch import nn

from .clipping import clip_whole_gradient
from .data import ensure_registered
from .data.sem_seg import add_label_files
from .errors import IONError
from .modeling import (
    ION,
    IRNN,
    ContextBackbone,
    IONROIHeads,
    IONSegHead,
    SkipPooler,
)
from .modeling.context import CONTEXT
from .modeling.model_values import check_features, deepest_of
from .modeling.roi_heads.box_predictor import ImageMeanOutputLayers
from .modeling.unread_settings import ROI_HEADS
from .plugging import PLUGGED_IRNN, stages_to

_ROI_HEADS = {
    getattr(roi_heads, theirs): ROI_HEADS_REGISTRY.get(ours) for theirs, ours in ROI_HEADS.items()
}


def skip_pooler(channels: Sequence[int], strides: Sequence[int], **kwargs: Any) -> SkipPooler:
    """Build a :class:`SkipPooler` from plain numbers, which a LazyConfig can hold.

    ``channels`` and ``strides`` (in pixels) are those of each feature.
    """
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in zip(channels, strides)]
    return SkipPooler(shapes, **kwargs)


def seg_head(channels: int, stride: int, **kwargs: Any) -> IONSegHead:
    """Build an :class:`IONSegHead` on the context feature, of a stride in pixels."""
    return IONSegHead({CONTEXT: ShapeSpec(channels=channels, stride=stride)}, **kwargs)


def dataset_dicts(
    names: str | Sequence[str], *, sem_seg_dirs: Sequence[str] = (), **kwargs: Any
) -> list[dict[str, Any]]:
    """Detectron2's dataset dicts, also of names such as ``voc:PATH:SPLIT``: :mod:`ion_d2.data`.

    Args:
        names: one or more datasets.
        sem_seg_dirs: folders of label maps, as ``DATASETS.SEM_SEG_DIRS``.
        kwargs: further arguments of ``get_detection_dataset_dicts``.

    Raises:
        IONError: there is no such dataset, or it cannot be read.
    """
    names = [names] if isinstance(names, str) else list(names)
    ensure_registered(names)
    return add_label_files(get_detection_dataset_dicts(names, **kwargs), sem_seg_dirs)


def clipped_params(model: nn.Module, *, max_norm: float, **kwargs: Any) -> list[dict[str, Any]]:
    """An optimizer's parameter groups, with a bound on the norm of the whole gradient (sec. 4.1).

    ``kwargs`` are arguments of Detectron2's ``get_default_optimizer_params``.
    """
    clip_whole_gradient(model.parameters(), max_norm)
    return get_default_optimizer_params(model, **kwargs)


def plug_in_lazy(
    model: DictConfig,
    *,
    in_feature: str | None = None,
    pooler: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
) -> None:
    """Switch context and skip pooling on in a model of Detectron2's R-CNN family.

    The twin of :func:`ion_d2.plug_in` for every backbone, ViT, Swin and RegNet included. The
    backbone is built once to ask for its features.

    Args:
        model: the "model" of a LazyConfig, changed in place.
        in_feature: the backbone's feature that feeds the context block; None for the deepest one
            that the box head reads.
        pooler: further arguments of ``SkipPooler``; ``added=()`` concatenates the context, which is
            otherwise added to the deepest feature and so has as many channels.
        context: further arguments of ``IRNN``.

    Raises:
        IONError: the model has no ROI heads that ION's can replace, or no such feature.
    """
    heads, target = _heads_of(model)
    prefixes = [p for p in ("box_", "mask_", "keypoint_", "") if heads.get(f"{p}pooler")]
    wanted = read = list(heads[f"{prefixes[0]}in_features"])
    bottom_up = model.backbone.copy()
    if len(read) == 1 and "out_features" in bottom_up:
        wanted = stages_to(read[0], bottom_up.out_features)
        bottom_up.out_features = sorted({*wanted, *bottom_up.out_features})
    shapes = instantiate(bottom_up).output_shape()
    check_features(f"model.roi_heads.{prefixes[0]}in_features", read, shapes)
    read = [name for name in wanted if name in shapes]
    deepest = deepest_of(read, shapes)
    in_feature = in_feature or deepest
    check_features("in_feature", [in_feature], shapes)
    # From here on the model changes.
    width = shapes[in_feature].channels
    block = {"in_channels": width, "hidden_dim": width, "out_dim": width, **PLUGGED_IRNN}
    block.update(context or {})
    model._target_ = ION
    model.backbone = LazyCall(ContextBackbone)(
        bottom_up=bottom_up, context=LazyCall(IRNN)(**block), in_feature=in_feature
    )
    _set_heads(heads, target)
    settings = {
        "channels": [*(shapes[name].channels for name in read), block["out_dim"]],
        "strides": [shapes[name].stride for name in (*read, in_feature)],
        "scale_init": 0.0,
        "scale_source": read.index(deepest),
        "added": [len(read)],
        "gate_init": 0.0,
        # The heads get as many channels as before, so that their weights keep their shapes.
        "out_channels": shapes[read[-1]].channels,
        **(pooler or {}),
    }
    for prefix in prefixes:
        old = heads[f"{prefix}pooler"]
        kept = {key: old[key] for key in ("output_size", "sampling_ratio", "pooler_type")}
        heads[f"{prefix}in_features"] = [*read, CONTEXT]
        heads[f"{prefix}pooler"] = LazyCall(skip_pooler)(**{**kept, **settings})


def _heads_of(model: DictConfig) -> tuple[DictConfig, type]:
    """The ROI heads, and the class of ION's that replaces theirs."""
    heads = model.get("roi_heads")
    target = _target(heads)
    if target not in _ROI_HEADS:
        known = ", ".join(cls.__name__ for cls in _ROI_HEADS)
        raise IONError(
            f"model.roi_heads is {getattr(target, '__name__', target)}; ION plugs into a model "
            f"whose model.roi_heads is one of {known}."
        )
    if _target(model) is not GeneralizedRCNN:
        raise IONError(
            f"model is {getattr(_target(model), '__name__', _target(model))}, whose own work would "
            "be lost; ION takes the place of a GeneralizedRCNN alone."
        )
    return heads, _ROI_HEADS[target]


def _target(node: DictConfig | None) -> Any:
    """The class that a node builds, which a saved config names by a string."""
    target = node.get("_target_") if node is not None else None
    return locate(target) if isinstance(target, str) else target


def _set_heads(heads: DictConfig, target: type) -> None:
    heads._target_ = target
    if target is IONROIHeads and _target(heads.box_predictor) is roi_heads.FastRCNNOutputLayers:
        heads.box_predictor._target_ = ImageMeanOutputLayers
