"""The registry of context blocks."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

from ...errors import IONError

CONTEXT_REGISTRY = Registry("CONTEXT")
CONTEXT_REGISTRY.__doc__ = """
Registry of context blocks: modules that turn one backbone feature into the "context" feature.

A registered callable is called with ``(cfg, in_channels)`` and returns a module that has an integer
attribute ``out_channels`` and whose ``forward(x, sizes=None)`` takes a feature map (N, C, H, W)
and, optionally, the valid (height, width) of each image in cells, (N, 2), and returns (N,
out_channels, H, W).
"""


def build_context_block(cfg: CfgNode, in_channels: int) -> nn.Module:
    """Build the context block that ``MODEL.CONTEXT.NAME`` names.

    Args:
        cfg: a config with ION's keys.
        in_channels: channels of the feature that feeds the block.

    Returns:
        The block; see ``CONTEXT_REGISTRY`` for its interface.

    Raises:
        IONError: the name is not registered.
    """
    name = cfg.MODEL.CONTEXT.NAME
    if name not in CONTEXT_REGISTRY:
        known = ", ".join(sorted(key for key, _ in CONTEXT_REGISTRY))
        raise IONError(f"MODEL.CONTEXT.NAME is {name!r}, but the context blocks are: {known}.")
    if not cfg.MODEL.DROPOUT_ON:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.CONTEXT.DROPOUT = 0.0
        cfg.freeze()
    return CONTEXT_REGISTRY.get(name)(cfg, in_channels)
