"""The registry of context blocks, and what the blocks share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ...errors import IONError
from ...layers import DIRECTIONS
from ...value_rules import BELOW_1, COUNT, changed, check_value

# Name of the feature that a context block adds. Further ones start with it.
CONTEXT = "context"

CONTEXT_REGISTRY = Registry("CONTEXT")
CONTEXT_REGISTRY.__doc__ = """
Registry of context blocks: modules that turn one backbone feature into the "context" feature.

A registered callable is called with ``(cfg, in_channels)`` and returns a module that has an integer
attribute ``out_channels`` and whose ``forward(x, sizes=None)`` takes a feature map (N, C, H, W)
and, optionally, the valid (height, width) of each image in cells, (N, 2), and returns (N,
out_channels, H, W): inside the valid area the context of the image alone, outside 0.

A block that adds more features than one also has a non-empty ``extra_channels``, their channels by
name (each name starts with "context"). Its ``forward`` then returns all features in a dict,
"context" among them.
"""


class ContextBlock(nn.Module):
    """Base of context blocks whose settings are keys of ``MODEL.CONTEXT``.

    Built from a config (Detectron2's ``configurable``), a keyword-only argument of the constructor
    takes the key of its own name in capitals, ``hidden_dim`` for instance ``HIDDEN_DIM``; without
    such a key it keeps its default. ion_d2/config.py explains the keys.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Read the keys that the constructor names, and its base's if it takes ``**kwargs``."""
        settings: dict[str, Any] = {"in_channels": in_channels}
        keys = cfg.MODEL.CONTEXT
        for constructor in (vars(it)["__init__"] for it in cls.__mro__ if "__init__" in vars(it)):
            parameters = inspect.signature(constructor).parameters.values()
            names = [it.name for it in parameters if it.kind is it.KEYWORD_ONLY]
            settings.update({name: keys[name.upper()] for name in names if name.upper() in keys})
            if all(it.kind is not it.VAR_KEYWORD for it in parameters):
                break
        return settings


def build_context_block(cfg: CfgNode, in_channels: int, name: str | None = None) -> nn.Module:
    """Build the context block that ``MODEL.CONTEXT.NAME`` names; see ``CONTEXT_REGISTRY``.

    Args:
        cfg: a config with ION's keys.
        in_channels: channels of the feature that feeds the block.
        name: a name to use instead.

    Raises:
        IONError: the name is not registered.
    """
    key = "MODEL.CONTEXT.NAME" if name is None else "MODEL.CONTEXT.PARTS"
    name = cfg.MODEL.CONTEXT.NAME if name is None else name
    if name not in CONTEXT_REGISTRY:
        known = ", ".join(sorted(block for block, _ in CONTEXT_REGISTRY))
        raise IONError(f"{key} is {name!r}, but the context blocks are: {known}.")
    settings = cfg.MODEL.CONTEXT
    values = {
        "MODEL.CONTEXT.HIDDEN_DIM": settings.HIDDEN_DIM or in_channels,
        "MODEL.CONTEXT.OUT_DIM": settings.OUT_DIM or in_channels,
        "MODEL.CONTEXT.DROPOUT": settings.DROPOUT if cfg.MODEL.DROPOUT_ON else 0.0,
    }
    return CONTEXT_REGISTRY.get(name)(changed(cfg, values), in_channels)


def run_context_block(block: nn.Module, x: Tensor, sizes: Tensor | None) -> dict[str, Tensor]:
    """The features of a context block by name, whether it returns one or several."""
    result = block(x, sizes)
    return result if isinstance(result, dict) else {CONTEXT: result}


def check_widths(hidden_dim: int, out_dim: int, dropout: float = 0.0) -> None:
    """Refuse channels of a block, and a dropout, that are out of their range."""
    check_value("MODEL.CONTEXT.HIDDEN_DIM", hidden_dim, COUNT)
    check_value("MODEL.CONTEXT.OUT_DIM", out_dim, COUNT)
    check_value("MODEL.CONTEXT.DROPOUT", dropout, BELOW_1)


def directions_of_stacks(
    directions: Sequence[Sequence[str]], num_stacks: int
) -> list[tuple[str, ...]]:
    """The directions of travel in each stack; the last list serves all further stacks.

    Raises:
        IONError: there are fewer stacks than 1 or than lists, or a list is empty or names something
            else than distinct directions.
    """
    check_value("MODEL.CONTEXT.NUM_STACKS", num_stacks, COUNT)
    lists = list(directions)
    if not 0 < len(lists) <= num_stacks or not all(map(_are_distinct_directions, lists)):
        raise IONError(
            f"MODEL.CONTEXT.DIRECTIONS is {directions!r}; give one list for each stack, at most "
            f"{num_stacks}, of distinct names among {DIRECTIONS}."
        )
    return [tuple(lists[min(stack, len(lists) - 1)]) for stack in range(num_stacks)]


def _are_distinct_directions(names: Sequence[str]) -> bool:
    if isinstance(names, str) or not names:
        return False
    return set(names) <= set(DIRECTIONS) and len(set(names)) == len(names)
