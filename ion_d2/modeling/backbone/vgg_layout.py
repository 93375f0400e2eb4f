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
    """Name the convolutions of a VGG, block by block.

    Args:
        depth: number of weighted layers, 11, 13, 16 or 19.

    Returns:
        Five lists, e.g. ``["conv1_1", "conv1_2"]`` first for depth 16.
    """
    return [
        [f"conv{block}_{index}" for index in range(1, count + 1)]
        for block, count in enumerate(CONVS_PER_BLOCK[depth], start=1)
    ]


def scaled_width(channels: int, multiplier: float) -> int:
    """Channels of a convolution in a VGG of another width.

    Args:
        channels: channels at full width.
        multiplier: factor on them.

    Returns:
        The multiple of 8 that is closest to the product, at least 8.
    """
    return max(8, 8 * round(channels * multiplier / 8))


def check_arguments(
    depth: int, width_multiplier: float, out_features: Sequence[str], freeze_at: int
) -> None:
    """Refuse arguments of :class:`VGG` that are out of their range.

    Args:
        depth: number of weighted layers.
        width_multiplier: factor on the channels.
        out_features: names of the features to return.
        freeze_at: number of blocks to freeze.

    Raises:
        IONError: one is; the message names the config key.
    """
    if depth not in CONVS_PER_BLOCK:
        raise IONError(f"MODEL.VGG.DEPTH is {depth!r}; choose one of {sorted(CONVS_PER_BLOCK)}.")
    if not width_multiplier > 0:
        raise IONError(f"MODEL.VGG.WIDTH_MULTIPLIER is {width_multiplier!r}; it must be above 0.")
    unknown = [name for name in out_features if name not in FEATURES]
    if unknown or not out_features:
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
    """Refuse factors on the features that the blocks behind them would notice.

    Args:
        gains: one for each feature.
        norm: normalization behind each convolution.

    Raises:
        IONError: there are not five, one is not positive, or ``norm`` does not take them off.
    """
    if len(gains) != len(FEATURES) or not all(gain > 0 for gain in gains):
        raise IONError(f"MODEL.VGG.GAINS is {list(gains)}; give five factors above 0.")
    if norm in ("", "FrozenBN") and any(gain != 1 for gain in gains):
        raise IONError(
            f"MODEL.VGG.GAINS is {list(gains)}, but MODEL.VGG.NORM is {norm!r}, so that a factor "
            "on a feature would change all blocks after it; set another NORM or make all factors 1."
        )
