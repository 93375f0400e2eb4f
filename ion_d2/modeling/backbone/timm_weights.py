"""Reads files of weights for timm's networks."""

from __future__ import annotations

import importlib
import importlib.resources
import os
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from torch import Tensor

from ...errors import IONError

# Layers of the package efficientnet-lite-pytorch by timm's names: outside the blocks, inside a
# block that begins with a convolution that widens, and inside one without.
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_WIDE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
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
    """Import timm, or a module of it; IONError if it is not installed, or broken."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation raises anything
        raise IONError(
            "MODEL.BACKBONE.NAME or MODEL.CONTEXT.BOTTOM_UP asks for a network of timm, but the "
            f"package timm cannot be imported ({error}); install it with `pip install timm`."
        ) from error


def first_line(error: Exception) -> str:
    """What an error says first, below a heading if there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith(":")] or lines
    return lines[0].rstrip(".") if lines else type(error).__name__


def read_state(weights: str, name: str) -> dict[str, Tensor]:
    """Read the tensors of a file of timm's, or of efficientnet-lite-pytorch, by timm's names.

    Raises:
        IONError: it cannot be read, or is of an EfficientNet-Lite and the network is not.
    """
    try:
        path = PathManager.get_local_path(weights)
        if not os.path.isfile(path):
            raise FileNotFoundError("there is no such file")
        if not path.endswith(".safetensors"):
            torch.load(path, "cpu", weights_only=True)  # older timm runs code in it
        state = import_timm("timm.models").load_state_dict(path)
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        if not tensors:
            raise ValueError("it holds no tensors")
    except Exception as error:  # whatever a missing or damaged file leads its reader to raise
        raise IONError(
            f"MODEL.TIMM.WEIGHTS {weights} cannot be read ({first_line(error)}); give a file of "
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
    """Timm's name of a tensor of efficientnet-lite-pytorch, which counts blocks across stages."""
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if found is None:
        layer, _, kind = key.partition(".")
        return f"{_OUTSIDE.get(layer, layer)}.{kind}"
    index, stage = int(found[1]), 0
    layers = _WIDE if f"_blocks.{index}._expand_conv.weight" in state else _PLAIN
    while index >= blocks[stage] and stage < len(blocks) - 1:
        index, stage = index - blocks[stage], stage + 1
    return f"blocks.{stage}.{index}.{layers.get(found[2], found[2])}.{found[3]}"
