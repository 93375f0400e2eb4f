"""Recognize the state dict of a torchvision VGG and rename it for a detector.

torchvision numbers the layers of ``features`` one by one (convolution, batch normalization if any,
ReLU, pooling); ours are named by block, e.g. ``conv5_3``. Its ``classifier.0`` and ``classifier.3``
are fc6 and fc7, which read 512x7x7 bins flattened as (C, H, W), as Detectron2's box heads do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ...errors import IONError
from .vgg import CONVS_PER_BLOCK, VGG, conv_names

_BOX_HEAD = "roi_heads.box_head."
# ION's names of the two layers, then those of Detectron2's FastRCNNConvFCHead.
FC_NAMES = (("fc6", "fc7"), ("fc1", "fc2"))
_CLASSIFIER = tuple(f"classifier.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias"))
# PIXEL_MEAN and PIXEL_STD (RGB, 0-255) of torchvision's ImageNet training, and of its VGG file
# ported from Caffe, whose classifier is full of NaN.
_IMAGENET_PIXELS = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
_CAFFE_PIXELS = ([123.0, 117.0, 104.0], [1.0, 1.0, 1.0])

logger = logging.getLogger(__name__)

State = Mapping[str, torch.Tensor]


class VGGLayout(NamedTuple):
    """Which VGG a state dict holds."""

    depth: int
    batch_norm: bool

    def __str__(self) -> str:
        return f"VGG{self.depth}" + " with batch normalization" * self.batch_norm

    def conv_indices(self) -> dict[int, str]:
        """Map each convolution's position in torchvision's ``features`` to our name for it."""
        step = 3 if self.batch_norm else 2
        indices, position = {}, 0
        for names in conv_names(self.depth):
            for name in names:
                indices[position] = name
                position += step
            position += 1  # the pooling
        return indices


def recognize(state: State) -> VGGLayout | None:
    """Tell which torchvision VGG a state dict holds, if any, by its convolutions' positions."""
    convs = {key for key, value in state.items() if key.endswith(".weight") and value.ndim == 4}
    for layout in (VGGLayout(depth, norm) for depth in CONVS_PER_BLOCK for norm in (False, True)):
        indices = layout.conv_indices()
        needed = {f"features.{index}.bias" for index in indices}
        if layout.batch_norm:
            needed |= {f"features.{index + 1}.running_mean" for index in indices}
        if convs == {f"features.{index}.weight" for index in indices} and needed <= set(state):
            return layout
    return None


def take_torchvision_names(state: dict[str, Any], prefix: str, model: nn.Module) -> None:
    """Rename a torchvision VGG's tensors in place, before a model loads them.

    Any other state dict is left as it is. fc6 and fc7 are left out, with one warning, where their
    shapes do not fit the model's or the file has no values for them. ``prefix`` is that of the
    model's keys in ``state``.

    Raises:
        IONError: the model has no VGG, or one of another depth, normalization or width.
    """
    # Most checkpoints are of a detector: one key tells.
    if f"{prefix}features.0.weight" not in state:
        return
    theirs = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    layout = recognize(theirs)
    if layout is not None:
        renamed = map_vgg_weights(theirs, layout, model)
        for key in theirs:
            del state[prefix + key]
        state.update({prefix + key: value for key, value in renamed.items()})


def map_vgg_weights(state: State, layout: VGGLayout, model: nn.Module) -> dict[str, torch.Tensor]:
    """Rename a torchvision VGG's tensors to a model's keys, see :func:`take_torchvision_names`.

    Blocks that the model does not have are left out.
    """
    prefix, vgg = _find_vgg(model, layout)
    _check_layout(layout, vgg)
    targets = model.state_dict()
    convs = {prefix + key: value for key, value in backbone_tensors(state, layout).items()}
    convs = {key: value for key, value in convs.items() if key in targets}
    for key, value in convs.items():
        if value.shape != targets[key].shape:
            raise IONError(
                f"{key} has shape {tuple(value.shape)} in MODEL.WEIGHTS but "
                f"{tuple(targets[key].shape)} in the model; pretrained VGG weights need "
                "MODEL.VGG.WIDTH_MULTIPLIER 1.0 and images of 3 channels, so change those or leave "
                "MODEL.WEIGHTS empty."
            )
    head = _head_tensors(state, targets)
    _warn_of_other_pixels(state, model)
    told = "torchvision's %s: %d tensors go to the backbone, %d to fc6 and fc7."
    logger.info(told, layout, len(convs), len(head))
    return {**convs, **head}


def _find_vgg(model: nn.Module, layout: VGGLayout) -> tuple[str, VGG]:
    """The prefix of the VGG's keys, and the VGG."""
    for name, module in model.named_modules():
        if isinstance(module, VGG):
            return (f"{name}." if name else ""), module
    raise IONError(
        f"MODEL.WEIGHTS holds torchvision's {layout}, but the model has no VGG backbone; choose "
        "weights for its backbone, or build_ion_vgg_backbone as MODEL.BACKBONE.NAME or "
        "MODEL.CONTEXT.BOTTOM_UP."
    )


def _check_layout(layout: VGGLayout, vgg: VGG) -> None:
    holds = f"MODEL.WEIGHTS holds torchvision's {layout}"
    if layout.depth != vgg.depth:
        raise IONError(
            f"{holds}, but the model is a VGG{vgg.depth}; set MODEL.VGG.DEPTH to {layout.depth} "
            f"or choose VGG{vgg.depth} weights."
        )
    norm = vgg.conv1_1.norm
    if not (hasattr(norm, "running_mean") if layout.batch_norm else norm is None):
        ours = type(norm).__name__ if norm is not None else "no normalization"
        wanted = '"BN", "SyncBN", "FrozenBN" or "BRN"' if layout.batch_norm else '""'
        raise IONError(
            f"{holds}, but the model's VGG has {ours}; these weights need MODEL.VGG.NORM {wanted}."
        )


def backbone_tensors(state: State, layout: VGGLayout) -> dict[str, torch.Tensor]:
    """Rename the convolutions of a torchvision VGG, and their normalization, as in ``VGG``."""
    tensors = {}
    for index, name in layout.conv_indices().items():
        tensors[f"{name}.weight"] = state[f"features.{index}.weight"]
        bias = state[f"features.{index}.bias"]
        if not layout.batch_norm:
            tensors[f"{name}.bias"] = bias
            continue
        norm = f"features.{index + 1}."
        for key in state:
            if key.startswith(norm):
                tensors[f"{name}.norm.{key[len(norm) :]}"] = state[key]
        # Our normalized convolutions have no bias; moving the mean by it gives the same output.
        tensors[f"{name}.norm.running_mean"] = tensors[f"{name}.norm.running_mean"] - bias
    return tensors


def _head_tensors(state: State, targets: State) -> dict[str, torch.Tensor]:
    """Map fc6 and fc7 together or not at all: fc7 means nothing on top of another fc6."""
    names = next((n for n in FC_NAMES if f"{_BOX_HEAD}{n[0]}.weight" in targets), None)
    if names is None or not set(_CLASSIFIER) <= set(state):
        return {}
    tensors = fc_tensors(state, names)
    shapes = {key: tuple(targets[key].shape) if key in targets else "none" for key in tensors}
    unfit = [
        f"{key} {tuple(value.shape)} against {shapes[key]}"
        for key, value in tensors.items()
        if tuple(value.shape) != shapes[key]
    ]
    if unfit:
        reason = f"their shapes in the file are not the model's ({', '.join(unfit)})"
    elif not has_classifier(state):
        reason = "the file has no values (NaN) for them"
    else:
        return tensors
    logger.warning("fc6 and fc7 start at random: %s.", reason)
    return {}


def fc_tensors(state: State, names: tuple[str, str]) -> dict[str, torch.Tensor]:
    """Rename fc6 and fc7 of a torchvision VGG for a box head with layers of these ``names``."""
    keys = (f"{_BOX_HEAD}{name}.{kind}" for name in names for kind in ("weight", "bias"))
    return {new: state[old] for new, old in zip(keys, _CLASSIFIER)}


def has_classifier(state: State) -> bool:
    """Whether a torchvision VGG has values for fc6 and fc7: the port of Caffe's has NaN there."""
    return set(_CLASSIFIER) <= set(state) and _classifier_is_finite(state)


def _classifier_is_finite(state: State) -> bool:
    # The first row stands for a whole weight matrix, which has up to 100 million entries.
    rows = [state[key][0] for key in _CLASSIFIER if key in state]
    return all(bool(row.isfinite().all()) for row in rows)


def pixel_statistics(state: State) -> tuple[list[float], list[float]]:
    """``MODEL.PIXEL_MEAN`` and ``PIXEL_STD`` (RGB, 0-255) of a torchvision VGG's training."""
    return _IMAGENET_PIXELS if _classifier_is_finite(state) else _CAFFE_PIXELS


def _warn_of_other_pixels(state: State, model: nn.Module) -> None:
    """Warn of a silent loss of accuracy: weights trained on otherwise normalized pixels."""
    mean, std = pixel_statistics(state)
    for name, expected in (("pixel_mean", mean), ("pixel_std", std)):
        actual = getattr(model, name, None)
        if actual is None:
            continue
        values = [round(value, 3) for value in actual.flatten().tolist()]
        if len(values) != 3 or any(abs(a - b) > 2 for a, b in zip(values, expected)):
            logger.warning(
                f"This VGG was trained with INPUT.FORMAT RGB, MODEL.PIXEL_MEAN {mean} and "
                f"MODEL.PIXEL_STD {std}, but the model's {name} is {values}: expect a loss of "
                "accuracy."
            )
            return
