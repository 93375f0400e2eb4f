"""Creates timm's networks with weights from files; everything that is asked of timm itself."""

from __future__ import annotations

import difflib
import importlib
import logging
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from ...errors import IONError

logger = logging.getLogger(__name__)

DOWNLOADED = "timm"
"""Value of ``MODEL.TIMM.WEIGHTS`` for the weights that timm downloads."""
# How timm's networks that were made for pictures of one size are told to take others.
_ANY_SIZE = ({"dynamic_img_size": True}, {"strict_img_size": False})
# Layers of the package efficientnet-lite-pytorch: outside the blocks, and inside one that begins
# with a convolution that widens, or without.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_OUTSIDE["_fc"] = "classifier"
_WIDE = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
_WIDE |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def import_timm(name: str = "timm") -> ModuleType:
    """Import timm, or a module of it.

    Args:
        name: of the module.

    Returns:
        The module.

    Raises:
        IONError: it is not installed, or broken.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation raises anything
        raise IONError(
            "MODEL.BACKBONE.NAME or MODEL.CONTEXT.BOTTOM_UP is 'build_timm_backbone', but the "
            f"package timm cannot be imported ({error}); install it with `pip install timm`."
        ) from error


def create_network(
    name: str, indices: Sequence[int], weights: str, output_stride: int, in_channels: int
) -> nn.Module:
    """Create a network that returns features.

    Args:
        name: of the network in timm.
        indices: of the features, ascending, in timm's list.
        weights: a file, "timm" or "", see :class:`TimmBackbone`.
        output_stride: largest stride of a feature; 0 for the network's own.
        in_channels: channels of the image.

    Returns:
        The network; it has ``feature_info``.

    Raises:
        IONError: timm has no such network, or it cannot be as asked for.
    """
    _check_name(name)
    options: dict[str, Any] = {"in_chans": in_channels}
    stages = _create(name, options, "cannot be a backbone").feature_info.info
    strides = [stage["reduction"] for stage in stages]
    if max(indices) >= len(stages):
        raise IONError(
            f"MODEL.TIMM.OUT_FEATURES names 'stage{max(indices) + 1}', but {name!r} has "
            f"{len(stages)} stages, of strides {', '.join(map(str, strides))}."
        )
    if output_stride:
        options["output_stride"] = output_stride
        why = f"cannot have MODEL.TIMM.OUTPUT_STRIDE {output_stride}"
        own = f"; its own stages have strides {', '.join(map(str, strides))}, which 0 leaves"
        if output_stride & (output_stride - 1) or output_stride < 0:
            raise IONError(f"MODEL.TIMM.NAME {name!r} {why}: it is no power of 2{own}.")
        made = _create(name, options, why, own).feature_info.reduction()
        if max(made) != min(output_stride, max(strides)):
            raise IONError(f"MODEL.TIMM.NAME {name!r} {why}{own}.")
    options["out_indices"] = tuple(indices)
    if weights:
        return _create_pretrained(name, options, weights)
    return _create(name, options, "cannot be a backbone")


def _check_name(name: str) -> None:
    timm = import_timm()
    if timm.is_model(name):
        return
    architecture = str(name).split(".")[0]
    near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()."
    raise IONError(f"MODEL.TIMM.NAME is {name!r}, which timm does not have; {advice}")


def _create(name: str, options: Mapping[str, Any], problem: str, advice: str = "") -> nn.Module:
    """Call timm for features, for pictures of any size; ``problem`` starts what went wrong."""
    timm = import_timm()
    try:
        config = timm.get_pretrained_cfg(name)
        fixed = config is not None and config.fixed_input_size
        variants = _ANY_SIZE if fixed else ({},)
        for i, more in enumerate(variants):
            try:
                return timm.create_model(name, features_only=True, **options, **more)
            except TypeError:  # another keyword in this network
                if i == len(variants) - 1:
                    raise
    except Exception as error:  # timm's networks refuse in many ways
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise IONError(f"MODEL.TIMM.NAME {name!r} {problem}{reason}{advice}.") from error
    raise AssertionError("unreachable")


def _create_pretrained(name: str, options: Mapping[str, Any], weights: str) -> nn.Module:
    if weights == DOWNLOADED:
        problem = "has no weights that MODEL.TIMM.WEIGHTS 'timm' could download"
        return _create(name, {**options, "pretrained": True}, problem, "; name a file of them")
    problem = f"does not fit the tensors of MODEL.TIMM.WEIGHTS {weights}"
    advice = f"; give a file of {name!r}, or MODEL.TIMM.NAME the network of the file"
    net = _create(name, {"pretrained_cfg_overlay": {}, **options}, "cannot be a backbone")
    state = _read_state(weights, _blocks_per_stage(net))

    def load(tensors: Mapping[str, Tensor]) -> nn.Module:
        source = {"state_dict": dict(tensors), "custom_load": False}
        more = {"pretrained": True, "pretrained_cfg_overlay": source}
        return _create(name, {**options, **more}, problem, advice)

    # timm passes over tensors that are missing: whatever is no NaN now is not in the file.
    marked = load({key: _as_nan(value) for key, value in state.items()}).state_dict()
    floating = [key for key, value in marked.items() if value.is_floating_point()]
    missing = [key for key in floating if not marked[key].isnan().any()]
    if missing:
        raise IONError(
            f"MODEL.TIMM.WEIGHTS {weights} lacks {len(missing)} of the {len(floating)} tensors of "
            f"MODEL.TIMM.NAME {name!r}, the first of them {missing[0]!r}{advice}."
        )
    logger.info("%s has its %d tensors from %s.", name, len(floating), weights)
    return load(state)


def _as_nan(value: Tensor) -> Tensor:
    return torch.full_like(value, torch.nan) if value.is_floating_point() else value


def _read_state(weights: str, blocks: Sequence[int]) -> dict[str, Tensor]:
    """Read tensors by timm's names from a file of timm's, or of efficientnet-lite-pytorch."""
    try:
        path = PathManager.get_local_path(weights)
        state = import_timm("timm.models").load_state_dict(path)
    except Exception as error:  # whatever a missing or damaged file leads its reader to raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IONError(
            f"MODEL.TIMM.WEIGHTS {weights} cannot be read ({reason}); give a file of tensors by "
            "name (.pth or .safetensors), 'timm' to download timm's own, or '' for none."
        ) from error
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if "_conv_stem.weight" in tensors:
        return {_timm_name(key, tensors, blocks): value for key, value in tensors.items()}
    return tensors


def _blocks_per_stage(net: nn.Module) -> list[int]:
    return [len(stage) for stage in getattr(net, "blocks", ()) if isinstance(stage, nn.Sequential)]


def _timm_name(key: str, state: Mapping[str, Tensor], blocks: Sequence[int]) -> str:
    """Timm's name of a tensor of efficientnet-lite-pytorch, which counts the blocks in one row."""
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if found is None:
        layer, _, kind = key.partition(".")
        return f"{_OUTSIDE.get(layer, layer)}.{kind}"
    index, layers = int(found[1]), _PLAIN
    if f"_blocks.{index}._expand_conv.weight" in state:
        layers = _WIDE
    stage = 0
    while stage < len(blocks) - 1 and index >= blocks[stage]:
        index, stage = index - blocks[stage], stage + 1
    return f"blocks.{stage}.{index}.{layers.get(found[2], found[2])}.{found[3]}"


def warn_of_other_pixels(cfg: CfgNode, name: str) -> None:
    """Warn of pixels that are prepared otherwise than in the training of timm's own weights.

    Args:
        cfg: reads INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD.
        name: of the network in timm.
    """
    config = import_timm().get_pretrained_cfg(name)
    if config is None:
        return
    mean, std = ([255 * float(value) for value in values] for values in (config.mean, config.std))
    near = all(abs(a - b) < 5 for a, b in zip(cfg.MODEL.PIXEL_MEAN, mean))
    near = near and all(abs(a / b - 1) < 0.1 for a, b in zip(cfg.MODEL.PIXEL_STD, std))
    if near and cfg.INPUT.FORMAT == "RGB":
        return
    logger.warning(
        "timm's weights of %s were trained on RGB pixels with MODEL.PIXEL_MEAN %s and PIXEL_STD "
        "%s, but INPUT.FORMAT is %s, PIXEL_MEAN %s and PIXEL_STD %s; keep them only if the file in "
        "MODEL.TIMM.WEIGHTS was trained so.",
        name,
        *([round(value, 3) for value in values] for values in (mean, std)),
        cfg.INPUT.FORMAT,
        list(cfg.MODEL.PIXEL_MEAN),
        list(cfg.MODEL.PIXEL_STD),
    )
