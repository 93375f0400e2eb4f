"""Creates timm's networks with weights from files; everything that is asked of timm itself."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.resources
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
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


class PackageFiles(PathHandler):
    """Files inside installed Python packages, as "package://NAME/PATH"."""

    _PREFIX = "package://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self._PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        package, _, inside = path[len(self._PREFIX) :].partition("/")
        return str(importlib.resources.files(package).joinpath(inside))


PathManager.register_handler(PackageFiles())


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
    strides = [stage["reduction"] for stage in _create(name, options).feature_info.info]
    listed = ", ".join(map(str, strides))
    if max(indices) >= len(strides):
        raise IONError(
            f"MODEL.TIMM.OUT_FEATURES names 'stage{max(indices) + 1}', but {name!r} has "
            f"{len(strides)} stages, of strides {listed}."
        )
    if output_stride:
        options["output_stride"] = output_stride
        if not _has_stride(name, options, max(strides)):
            raise IONError(
                f"MODEL.TIMM.NAME {name!r} cannot have MODEL.TIMM.OUTPUT_STRIDE {output_stride}; "
                f"its stages have strides {listed}, which 0 leaves."
            )
    options["out_indices"] = tuple(indices)
    net = _create_pretrained(name, options, weights) if weights else _create(name, options)
    parent, _, last = net.feature_info.module_name()[-1].rpartition(".")
    if parent == "blocks" and hasattr(net, "blocks"):
        # timm's EfficientNets and MobileNets would run stages that nobody asked for.
        net.blocks = net.blocks[: int(last) + 1]
    return net


def _check_name(name: str) -> None:
    timm = import_timm()
    if timm.is_model(str(name)):
        return
    architecture = str(name).split(".")[0]
    near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()."
    raise IONError(f"MODEL.TIMM.NAME is {name!r}, which timm does not have; {advice}")


def _has_stride(name: str, options: Mapping[str, Any], own: int) -> bool:
    try:
        strides = _create(name, options).feature_info.reduction()
    except IONError:
        return False
    return max(strides) == min(options["output_stride"], own)


def _create(
    name: str, options: Mapping[str, Any], problem: str = "cannot be a backbone", advice: str = ""
) -> nn.Module:
    """Create a network that returns features of pictures of any size.

    Args:
        name: of the network in timm.
        options: further arguments of ``timm.create_model``.
        problem: what to say of it where that fails.
        advice: what to do then.

    Returns:
        The network.

    Raises:
        IONError: timm refuses, in whichever way.
    """
    timm = import_timm()
    try:
        config = timm.get_pretrained_cfg(name)
        for more in _ANY_SIZE if config is not None and config.fixed_input_size else ({},):
            with contextlib.suppress(TypeError), _without_warnings():  # an unknown argument
                return timm.create_model(name, features_only=True, **options, **more)
        reason = "it takes no pictures of other sizes, or not these settings"
    except Exception as error:  # timm's networks refuse in many ways
        reason = _first_line(error)
    raise IONError(f"MODEL.TIMM.NAME {name!r} {problem} ({reason}){advice}.")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep timm from warning of the classifier's tensors, which a backbone has no use for."""
    timm_logger = logging.getLogger("timm")
    level = timm_logger.level
    timm_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        timm_logger.setLevel(level)


def _first_line(error: Exception) -> str:
    """What an error says first, behind a heading if there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith(":")] or lines
    return lines[0].rstrip(".") if lines else type(error).__name__


def _create_pretrained(name: str, options: Mapping[str, Any], weights: str) -> nn.Module:
    if weights == DOWNLOADED:
        problem = "has no weights that MODEL.TIMM.WEIGHTS 'timm' could download"
        return _create(name, {**options, "pretrained": True}, problem, "; name a file of them")
    state = read_state(weights, name)
    advice = f"; give a file of {name!r}, or MODEL.TIMM.NAME the network of the file"

    def load(tensors: Mapping[str, Tensor]) -> nn.Module:
        source = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(tensors)}}
        problem = f"does not fit the tensors of MODEL.TIMM.WEIGHTS {weights}"
        return _create(name, {**options, **source}, problem, advice)

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


def read_state(weights: str, name: str) -> dict[str, Tensor]:
    """Read the tensors of a file by timm's names.

    Args:
        weights: a file of timm's, or of the package efficientnet-lite-pytorch.
        name: of the network in timm.

    Returns:
        Name -> tensor.

    Raises:
        IONError: it cannot be read, or is an EfficientNet-Lite's and the network is none.
    """
    try:
        path = PathManager.get_local_path(weights)
        if not os.path.isfile(path):
            raise FileNotFoundError("there is no such file")
        state = import_timm("timm.models").load_state_dict(path)
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        if not tensors:
            raise ValueError("it holds no tensors")
    except Exception as error:  # whatever a missing or damaged file leads its reader to raise
        raise IONError(
            f"MODEL.TIMM.WEIGHTS {weights} cannot be read ({_first_line(error)}); give a file of "
            "tensors by name (.pth or .safetensors), 'timm' to download timm's own, or '' for none."
        ) from error
    if "_conv_stem.weight" not in tensors:
        return tensors
    if not name.startswith("tf_efficientnet_lite"):
        raise IONError(
            f"MODEL.TIMM.WEIGHTS {weights} holds an EfficientNet-Lite that pads as TensorFlow does "
            f"and MODEL.TIMM.NAME is {name!r}; use 'tf_efficientnet_lite0' or its larger ones."
        )
    blocks = [len(stage) for stage in import_timm().create_model(name).blocks]
    return {_timm_name(key, tensors, blocks): value for key, value in tensors.items()}


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
    while index >= blocks[stage] and stage < len(blocks) - 1:
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
