"""Which layers the descriptor of a region draws on.

Shape shorthand: M regions, L layers, P bins a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from ion_d2.modeling import SkipPooler


def find_skip_pooler(model: nn.Module) -> SkipPooler | None:
    """The first skip pooler of a model, that of its box head.

    None if it pools otherwise, or merges nothing because it reads one layer.
    """
    poolers = [module for module in model.modules() if isinstance(module, SkipPooler)]
    return poolers[0] if poolers and poolers[0].reduce is not None else None


@torch.no_grad()
def layer_contributions(
    pooler: SkipPooler, features: list[Tensor], boxes: list[Boxes]
) -> list[Tensor]:
    """Split the merged descriptor of each region into what each layer adds to it.

    Args:
        pooler: a skip pooler with such a convolution.
        features: L features, in the pooler's order.
        boxes: of each image, in pixels of the network's input; M in all.

    Returns:
        L tensors (M, out_channels, P, P); with the bias they add up to what the pooler returns.
    """
    pooled = [pool([x], boxes) for pool, x in zip(pooler.level_poolers, features)]
    return [pooler.contribution(i, x) for i, x in enumerate(pooled)]


def layer_shares(contributions: Sequence[Tensor]) -> Tensor:
    """Share of each layer in the descriptor of each region.

    It is the L2 norm (over channels and bins) of the layer's contribution, divided by the sum of
    the norms of all layers' contributions. The bias, the same for every region, does not count.

    Args:
        contributions: L tensors (M, channels, P, P), see :func:`layer_contributions`.

    Returns:
        (M, L) tensor, each row of which sums to 1; equal shares where all contributions are 0.
    """
    norms = torch.stack([c.flatten(1).double().norm(dim=1) for c in contributions], dim=1)
    total = norms.sum(dim=1, keepdim=True)
    equal = torch.full_like(norms, 1 / len(contributions))
    return torch.where(total > 0, norms / total.clamp(min=1e-300), equal)


def layer_scales(pooler: SkipPooler, features: Sequence[Tensor]) -> list[Tensor]:
    """Scale factors of each layer's channels after the L2 normalization (sec. 3.1).

    Returns:
        L tensors of a factor per channel; empty where the pooler does not normalize.
    """
    factors = [pooler.factors(i) for i in range(len(features))]
    return [each.detach().cpu() for each in factors if each is not None]
