"""The registry of context blocks, and what the blocks share."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ...errors import IONError
from ...layers import DIRECTIONS
from ...layers.irnn.arguments import valid_mask

# Name of the feature that a context block adds. Further ones start with it.
CONTEXT = "context"

CONTEXT_REGISTRY = Registry("CONTEXT")
CONTEXT_REGISTRY.__doc__ = """
Registry of context blocks: modules that turn one backbone feature into the "context" feature.

A registered callable is called with ``(cfg, in_channels)`` and returns a module that has an integer
attribute ``out_channels`` and whose ``forward(x, sizes=None)`` takes a feature map (N, C, H, W)
and, optionally, the valid (height, width) of each image in cells, (N, 2), and returns (N,
out_channels, H, W).

A block that adds more features than one also has a non-empty ``extra_channels``, their channels by
name (each name starts with "context"). Its ``forward`` then returns all features in a dict,
"context" among them.
"""


def build_context_block(cfg: CfgNode, in_channels: int, name: str | None = None) -> nn.Module:
    """Build the context block that ``MODEL.CONTEXT.NAME`` names.

    Args:
        cfg: a config with ION's keys.
        in_channels: channels of the feature that feeds the block.
        name: a name in ``CONTEXT_REGISTRY`` to use instead.

    Returns:
        The block; see ``CONTEXT_REGISTRY`` for its interface.

    Raises:
        IONError: the name is not registered.
    """
    key = "MODEL.CONTEXT.NAME" if name is None else "MODEL.CONTEXT.PARTS"
    name = cfg.MODEL.CONTEXT.NAME if name is None else name
    if name not in CONTEXT_REGISTRY:
        known = ", ".join(sorted(block for block, _ in CONTEXT_REGISTRY))
        raise IONError(f"{key} is {name!r}, but the context blocks are: {known}.")
    if not cfg.MODEL.DROPOUT_ON:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.CONTEXT.DROPOUT = 0.0
        cfg.freeze()
    return CONTEXT_REGISTRY.get(name)(cfg, in_channels)


def run_context_block(block: nn.Module, x: Tensor, sizes: Tensor | None) -> dict[str, Tensor]:
    """Run a context block of either kind, with one output or several.

    Args:
        block: a context block.
        x: (N, C, H, W) feature map.
        sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.

    Returns:
        The features by name, "context" among them.
    """
    result = block(x, sizes)
    return result if isinstance(result, dict) else {CONTEXT: result}


def keep_valid(x: Tensor, sizes: Tensor | None) -> Tensor:
    """Set the cells outside each image's valid area to 0.

    Args:
        x: (N, C, H, W).
        sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.

    Returns:
        A tensor of x's shape.
    """
    if sizes is None:
        return x
    return x.masked_fill(~valid_mask(sizes, x.shape[2], x.shape[3], x.device), 0.0)


def check_num_stacks(num_stacks: int) -> None:
    """Refuse a block without layers.

    Args:
        num_stacks: ``MODEL.CONTEXT.NUM_STACKS``.

    Raises:
        IONError: it is below 1.
    """
    if num_stacks < 1:
        raise IONError(f"MODEL.CONTEXT.NUM_STACKS is {num_stacks}; it must be at least 1.")


def directions_of_stacks(
    directions: Sequence[Sequence[str]], num_stacks: int
) -> list[tuple[str, ...]]:
    """Tell the directions of travel in each stack.

    Args:
        directions: a list of directions for each stack; the last one serves all further stacks.
        num_stacks: number of stacks.

    Returns:
        ``num_stacks`` tuples of distinct directions.

    Raises:
        IONError: there are fewer stacks than 1 or than lists, or a list is empty or names something
        else than distinct directions.
    """
    check_num_stacks(num_stacks)
    lists: list[Sequence[str]] = [directions] if isinstance(directions, str) else list(directions)
    fits = 0 < len(lists) <= num_stacks and not any(isinstance(names, str) for names in lists)
    if not fits or not all(names and _are_distinct_directions(names) for names in lists):
        raise IONError(
            f"MODEL.CONTEXT.DIRECTIONS is {directions!r}; give one list for each stack, at most "
            f"{num_stacks}, of distinct names among {DIRECTIONS}."
        )
    return [tuple(lists[min(stack, len(lists) - 1)]) for stack in range(num_stacks)]


def _are_distinct_directions(names: Sequence[str]) -> bool:
    return set(names) <= set(DIRECTIONS) and len(set(names)) == len(names)
