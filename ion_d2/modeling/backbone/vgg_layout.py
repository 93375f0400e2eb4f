"""The layout of the VGGs (sec. 4.1 takes the one of 16 layers), and which arguments fit it."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import IONError

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


def check_arguments(
    depth: int, width_multiplier: float, out_features: Sequence[str], freeze_at: int
) -> None:
    """Raise an IONError naming the config key if an argument of ``VGG`` is out of range."""
    if depth not in CONVS_PER_BLOCK:
        raise IONError(f"MODEL.VGG.DEPTH is {depth!r}; choose one of {sorted(CONVS_PER_BLOCK)}.")
    if not width_multiplier > 0:
        raise IONError(f"MODEL.VGG.WIDTH_MULTIPLIER is {width_multiplier!r}; it must be above 0.")
    if not out_features or not set(out_features) <= set(FEATURES):
        raise IONError(
            f"MODEL.VGG.OUT_FEATURES is {list(out_features)}; it must name one or more of "
            f"{list(FEATURES)}."
        )
    if freeze_at not in range(len(FEATURES) + 1):
        raise IONError(
            f"MODEL.BACKBONE.FREEZE_AT is {freeze_at!r}; a VGG has five blocks, so it must be 0 "
            "(train all) to 5 (freeze all)."
        )


def check_gains(gains: Sequence[float], norm: str) -> None:
    """Raise an IONError unless there are five gains above 0 whose effect ``norm`` cancels."""
    if len(gains) != len(FEATURES) or not all(gain > 0 for gain in gains):
        raise IONError(f"MODEL.VGG.GAINS is {list(gains)}; give five factors above 0.")
    if norm in ("", "FrozenBN") and any(gain != 1 for gain in gains):
        raise IONError(
            f"MODEL.VGG.GAINS is {list(gains)}, but MODEL.VGG.NORM is {norm!r}, so that a factor "
            "on a feature would change all blocks after it; set another NORM or make all factors 1."
        )
