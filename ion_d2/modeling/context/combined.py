"""Context blocks made of others: one after another, or side by side (sec. 5.6, Table 9c)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...errors import IONError
from .build import CONTEXT, CONTEXT_REGISTRY, build_context_block, run_context_block


class _Parts(nn.Module):
    """Loads checkpoints that call the parts "blocks", a name that ViT's recipes know as theirs."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        earlier = f"{prefix}blocks."
        for key in [key for key in state_dict if key.startswith(earlier)]:
            state_dict[f"{prefix}parts.{key[len(earlier) :]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@CONTEXT_REGISTRY.register()
class Chain(_Parts):
    """Context blocks one after another, such as convolutions and then IRNNs."""

    @configurable
    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        """Join blocks, each fed with the "context" of the one before."""
        super().__init__()
        self.parts = nn.ModuleList(blocks)
        self.out_channels = self.parts[-1].out_channels
        self.extra_channels = _extra_channels(blocks)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        blocks: list[nn.Module] = []
        for name in _part_names(cfg):
            blocks.append(build_context_block(cfg, in_channels, name))
            in_channels = blocks[-1].out_channels
        return {"blocks": blocks}

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """What the last block returns, and what others add; see ``CONTEXT_REGISTRY``."""
        features: dict[str, Tensor] = {}
        for block in self.parts:
            features.update(run_context_block(block, x, sizes))
            x = features[CONTEXT]
        return features if self.extra_channels else x


@CONTEXT_REGISTRY.register()
class Branches(_Parts):
    """Context blocks side by side on the same feature, each with an output of its own.

    The first one's is "context"; that of a further block, say "Conv", is "context_conv". Each is to
    be pooled on its own, since their amplitudes differ.
    """

    @configurable
    def __init__(self, blocks: Mapping[str, nn.Module]) -> None:
        """Join blocks by name."""
        super().__init__()
        self.parts = nn.ModuleDict(blocks)
        first, *others = blocks
        self.out_channels = blocks[first].out_channels
        self.extra_channels = _extra_channels(blocks.values())
        for name in others:
            self.extra_channels[f"{CONTEXT}_{name.lower()}"] = blocks[name].out_channels

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        names = _part_names(cfg)
        if len(set(names)) != len(names) or len(names) < 2:
            raise IONError(
                f"MODEL.CONTEXT.PARTS is {names}; Branches needs two or more different blocks."
            )
        return {"blocks": {name: build_context_block(cfg, in_channels, name) for name in names}}

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """The features by name; see ``CONTEXT_REGISTRY``."""
        first, *others = self.parts
        features = run_context_block(self.parts[first], x, sizes)
        for name in others:
            found = run_context_block(self.parts[name], x, sizes)
            features[f"{CONTEXT}_{name.lower()}"] = found.pop(CONTEXT)
            features.update(found)
        return features


def _extra_channels(blocks: Iterable[nn.Module]) -> dict[str, int]:
    """Of the features that blocks give beside "context", such as those of earlier stacks."""
    found: dict[str, int] = {}
    for block in blocks:
        own = getattr(block, "extra_channels", {})
        if twice := found.keys() & own.keys():
            raise IONError(
                "MODEL.CONTEXT.ALL_STACKS is True, but two blocks of MODEL.CONTEXT.PARTS would "
                f"return {', '.join(twice)}; set it to False."
            )
        found.update(own)
    return found


def _part_names(cfg: CfgNode) -> list[str]:
    names = list(cfg.MODEL.CONTEXT.PARTS)
    nested = [name for name in names if name in (Chain.__name__, Branches.__name__)]
    if nested or not names:
        raise IONError(
            f"MODEL.CONTEXT.PARTS is {names}; {cfg.MODEL.CONTEXT.NAME} needs the names of other "
            "context blocks, for instance ['IRNN', 'Conv']."
        )
    return names
