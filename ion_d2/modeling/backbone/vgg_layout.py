"""The layout of the VGGs (sec. 4.1 takes the one of 16 layers), and which arguments fit it."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import IONError
from ...value_rules import POSITIVE, check_value, number, one_of, several

# Convolutions in each of the five blocks, by depth.
CONVS_PER_BLOCK = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
FEATURES = ("conv1", "conv2", "conv3", "conv4", "conv5")


def conv_names(depth: int) -> list[list[str]]:
    """Name the convolutions, block by block: for depth 16 first ``["conv1_1", "conv1_2"]``."""
    return [
        [f"conv{block}_{index}" for index in range(1, count + 1)]
        for block, count in enumerate(CONVS_PER_BLOCK[depth], start=1)
    ]


def scaled_width(channels: int, multiplier: float) -> int:
    """Round ``channels * multiplier`` to a multiple of 8, at least 8."""
    return max(8, 8 * round(channels * multiplier / 8))


_DEPTH = (CONVS_PER_BLOCK.__contains__, f"one of {sorted(CONVS_PER_BLOCK)}")
_BLOCKS = number("from 0 (train all) to 5 (freeze all)", lambda v: 0 <= v <= 5, whole=True)


def check_arguments(
    depth: int,
    width_multiplier: float,
    out_features: Sequence[str],
    freeze_at: int,
    gains: Sequence[float],
    norm: str,
) -> None:
    """Raise an IONError naming the config key if an argument of ``VGG`` is out of range."""
    for key, value, rule in (
        ("MODEL.VGG.DEPTH", depth, _DEPTH),
        ("MODEL.VGG.WIDTH_MULTIPLIER", width_multiplier, POSITIVE),
        ("MODEL.VGG.OUT_FEATURES", list(out_features), several(one_of(*FEATURES))),
        ("MODEL.VGG.GAINS", list(gains), several(POSITIVE, len(FEATURES))),
        ("MODEL.BACKBONE.FREEZE_AT", freeze_at, _BLOCKS),
    ):
        check_value(key, value, rule)
    if norm in ("", "FrozenBN") and any(gain != 1 for gain in gains):
        raise IONError(
            f"MODEL.VGG.GAINS is {list(gains)}, but MODEL.VGG.NORM is {norm!r}, so that a factor "
            "on a feature would change all blocks after it; set another NORM or make all factors 1."
        )
