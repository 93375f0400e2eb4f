"""Creates timm's networks."""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...errors import IONError
from .timm_weights import first_line, import_timm, read_state

logger = logging.getLogger(__name__)

# Arguments that make timm's networks for images of one size accept others.
_ANY_SIZE = ({"dynamic_img_size": True}, {"strict_img_size": False})


def create_network(
    name: str, indices: Sequence[int], weights: str, output_stride: int, in_channels: int
) -> nn.Module:
    """Create a network of timm's that returns features, with timm's ``feature_info`` of them.

    ``indices`` are the features' places in timm's list, ascending; the rest and the errors are
    those of :class:`TimmBackbone`.
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
        if _largest_stride(name, options) != min(output_stride, max(strides)):
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
    if not timm.is_model(str(name)):
        architecture = str(name).split(".")[0]
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()."
        raise IONError(f"MODEL.TIMM.NAME is {name!r}, which timm does not have; {advice}")


def _largest_stride(name: str, options: Mapping[str, Any]) -> int | None:
    with contextlib.suppress(IONError):
        return max(_create(name, options).feature_info.reduction())
    return None


def _create(
    name: str, options: Mapping[str, Any], problem: str = "cannot be a backbone", advice: str = ""
) -> nn.Module:
    """Create a network that returns features of images of any size.

    If timm refuses, the IONError says that the network has this ``problem``, and the ``advice``.
    """
    timm = import_timm()
    try:
        config = timm.get_pretrained_cfg(name)
        for more in _ANY_SIZE if config is not None and config.fixed_input_size else ({},):
            with contextlib.suppress(TypeError), _without_warnings():  # an unknown argument
                return timm.create_model(name, features_only=True, **options, **more)
        reason = "it takes no pictures of other sizes, or not these settings"
    except Exception as error:  # timm's networks refuse in many ways
        reason = first_line(error)
    raise IONError(f"MODEL.TIMM.NAME {name!r} {problem} ({reason}){advice}.")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep timm from warning of the classifier's tensors, for which a backbone has no use."""
    timm_logger = logging.getLogger("timm")
    level = timm_logger.level
    timm_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        timm_logger.setLevel(level)


def _create_pretrained(name: str, options: Mapping[str, Any], weights: str) -> nn.Module:
    if weights == "timm":  # to be downloaded
        problem = "has no weights that MODEL.TIMM.WEIGHTS 'timm' could download"
        return _create(name, {**options, "pretrained": True}, problem, "; name a file of them")
    state = read_state(weights, name)
    advice = f"; give a file of {name!r}, or MODEL.TIMM.NAME the network of the file"

    def load(tensors: Mapping[str, Tensor]) -> nn.Module:
        source = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(tensors)}}
        problem = f"does not fit the tensors of MODEL.TIMM.WEIGHTS {weights}"
        return _create(name, {**options, **source}, problem, advice)

    # timm passes over missing tensors: what is not NaN after loading a file of NaN is missing.
    numbers = {key: value for key, value in state.items() if value.is_floating_point()}
    nan = {key: torch.full_like(value, torch.nan) for key, value in numbers.items()}
    marked = load({**state, **nan}).state_dict()
    floating = [key for key, value in marked.items() if value.is_floating_point()]
    missing = [key for key in floating if not marked[key].isnan().any()]
    if missing:
        raise IONError(
            f"MODEL.TIMM.WEIGHTS {weights} lacks {len(missing)} of the {len(floating)} tensors of "
            f"MODEL.TIMM.NAME {name!r}, the first of them {missing[0]!r}{advice}."
        )
    logger.info("%s has its %d tensors from %s.", name, len(floating), weights)
    return load(state)


def warn_of_other_pixels(cfg: CfgNode, name: str) -> None:
    """Warn if the config prepares pixels otherwise than the training of timm's own weights."""
    config = import_timm().get_pretrained_cfg(name)
    if config is None:
        return
    mean, std = ([255 * float(value) for value in values] for values in (config.mean, config.std))
    near = all(abs(a - b) < 5 for a, b in zip(cfg.MODEL.PIXEL_MEAN, mean))
    near = near and all(abs(a / b - 1) < 0.1 for a, b in zip(cfg.MODEL.PIXEL_STD, std))
    if near and cfg.INPUT.FORMAT == "RGB":
        return
    mean, std = ([round(value, 3) for value in values] for values in (mean, std))
    logger.warning(
        f"timm's weights of {name} were trained on RGB pixels with MODEL.PIXEL_MEAN {mean} and "
        f"PIXEL_STD {std}, but INPUT.FORMAT is {cfg.INPUT.FORMAT}, PIXEL_MEAN "
        f"{list(cfg.MODEL.PIXEL_MEAN)} and PIXEL_STD {list(cfg.MODEL.PIXEL_STD)}; keep them only "
        "if the file in MODEL.TIMM.WEIGHTS was trained so."
    )
