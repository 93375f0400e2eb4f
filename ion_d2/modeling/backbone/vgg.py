"""VGG backbone (11, 13, 16 or 19 layers), a feature per block: the base of ION (sec. 3, 4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

from ...errors import IONError
from ...value_rules import POSITIVE, check_value, number, one_of, several
from ..trainer_settings import BuiltFromConfig
from .norms import build_norm
from .stages import StagedBackbone

# Convolutions in each of the five blocks, by depth (sec. 4.1 takes 16).
CONVS_PER_BLOCK = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
FEATURES = ("conv1", "conv2", "conv3", "conv4", "conv5")

_DEPTH = (CONVS_PER_BLOCK.__contains__, f"one of {sorted(CONVS_PER_BLOCK)}")
_BLOCKS = number("from 0 (train all) to 5 (freeze all)", lambda v: 0 <= v <= 5, whole=True)


def conv_names(depth: int) -> list[list[str]]:
    """Name the convolutions, block by block: for depth 16 first ``["conv1_1", "conv1_2"]``."""
    return [
        [f"conv{block}_{index}" for index in range(1, count + 1)]
        for block, count in enumerate(CONVS_PER_BLOCK[depth], start=1)
    ]


class ImageFeatures(dict):
    """Features by name, and the size of their images, which a backbone that drops cells hides."""

    def __init__(self, image_size: Sequence[int]) -> None:
        """``image_size`` is (H, W) of the batch in pixels, padding included."""
        super().__init__()
        self.image_size = image_size


class VGG(BuiltFromConfig, StagedBackbone):
    """The convolutions of a VGG; each feature is the last ReLU of its block.

    Features ``conv1`` to ``conv5`` have strides 1, 2, 4, 8 and 16, by a 2x2 max pooling between two
    blocks. Blocks beyond the deepest requested feature are not built. The poolings round sizes
    down, and cell (i, j) of a feature of stride s still covers pixels from (s*i, s*j) on: no
    padding is needed (``size_divisibility`` is 0).
    """

    # An incomplete last cell is dropped: a side of 250 pixels has 15 cells at stride 16, not 16.
    rounds_down = True

    def __init__(
        self,
        depth: int = 16,
        width_multiplier: float = 1.0,
        norm: str = "",
        out_features: Sequence[str] = ("conv3", "conv4", "conv5"),
        freeze_at: int = 0,
        in_channels: int = 3,
        gains: Sequence[float] = (1.0,) * 5,
    ) -> None:
        """
        Args:
            depth: number of weighted layers, 11, 13, 16 or 19.
            width_multiplier: factor on the channel counts, rounded to multiples of 8 above 0.
            norm: normalization between convolution and ReLU, see :func:`.norms.build_norm`; the
                convolutions then have no bias.
            freeze_at: blocks 1 to ``freeze_at`` are not trained; 0 trains all.
            gains: factors on the five features at the start. The normalization of the next block
                cancels them, so that only direct readers of a feature see its factor.

        Raises:
            IONError: an argument is out of its range; the message names the config key.
        """
        super().__init__()
        check_value("MODEL.VGG.DEPTH", depth, _DEPTH)
        check_value("MODEL.VGG.WIDTH_MULTIPLIER", width_multiplier, POSITIVE)
        check_value("MODEL.VGG.OUT_FEATURES", list(out_features), several(one_of(*FEATURES)))
        check_value("MODEL.VGG.GAINS", list(gains), several(POSITIVE, len(FEATURES)))
        check_value("MODEL.BACKBONE.FREEZE_AT", freeze_at, _BLOCKS)
        _check_gains(list(gains), norm)
        num_blocks = max(map(FEATURES.index, out_features)) + 1
        self.depth = depth
        self._names = conv_names(depth)[:num_blocks]
        self._out_features = list(out_features)
        self._out_feature_strides = {name: 2**i for i, name in enumerate(FEATURES[:num_blocks])}
        self._out_feature_channels = {
            name: max(8, 8 * round(width * width_multiplier / 8))
            for name, width in zip(FEATURES[:num_blocks], CHANNELS)
        }
        for feature, names in zip(FEATURES, self._names):
            out_channels = self._out_feature_channels[feature]
            for name in names:
                self.add_module(name, _make_conv(in_channels, out_channels, norm))
                in_channels = out_channels
        for names, gain in zip(self._names, gains):
            if gain != 1:
                last = getattr(self, names[-1]).norm
                last.weight.data *= gain
                last.bias.data *= gain
        self.freeze(freeze_at)

    def stage_modules(self, first: int, last: int | None = None) -> list[nn.Module]:
        names = itertools.chain(*self._names[first:last])
        return [module for name in names for module in getattr(self, name).modules()]

    def freeze(self, freeze_at: int) -> VGG:
        """Stop training the first ``freeze_at`` blocks for good, their batch normalization too."""
        self.freeze_parameters(freeze_at)
        for name in itertools.chain(*self._names[:freeze_at]):
            FrozenBatchNorm2d.convert_frozen_batchnorm(getattr(self, name))
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            x: images, float of shape (N, in_channels, H, W); each side at least the deepest stride.

        Returns:
            The requested features by name; one of stride s has shape (N, C, H // s, W // s).

        Raises:
            IONError: the image is smaller than one cell of the deepest feature.
        """
        feature, stride = list(self._out_feature_strides.items())[-1]
        height, width = x.shape[-2:]
        if min(height, width) < stride:
            raise IONError(
                f"An image batch of {height}x{width} pixels is too small for {feature} of the "
                f"VGG, whose stride is {stride}: both sides need {stride} pixels or more, so "
                f"raise {self._keys_of_size(max(height, width))} or leave such images out."
            )
        outputs = ImageFeatures(x.shape[-2:])
        for block, (feature, names) in enumerate(zip(FEATURES, self._names)):
            if block > 0:
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            for name in names:
                x = getattr(self, name)(x)
            if feature in self._out_features:
                outputs[feature] = x
        return outputs

    def _keys_of_size(self, longest: int) -> str:
        """The keys that make images larger whose longest side is this, for a sentence."""
        limit = "MAX_SIZE_TRAIN" if self.training else "MAX_SIZE_TEST"
        if self._config is not None and longest >= self._config.INPUT[limit]:
            return f"INPUT.MIN_SIZE_TRAIN, INPUT.MIN_SIZE_TEST and INPUT.{limit}"
        return "INPUT.MIN_SIZE_TRAIN and INPUT.MIN_SIZE_TEST"


@BACKBONE_REGISTRY.register()
def build_ion_vgg_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> VGG:
    """Build the VGG that ``MODEL.VGG`` and ``MODEL.BACKBONE.FREEZE_AT`` describe."""
    vgg = VGG(
        depth=cfg.MODEL.VGG.DEPTH,
        width_multiplier=cfg.MODEL.VGG.WIDTH_MULTIPLIER,
        norm=cfg.MODEL.VGG.NORM,
        out_features=cfg.MODEL.VGG.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        gains=cfg.MODEL.VGG.GAINS,
    )
    return vgg.remember(cfg)


def _check_gains(gains: list[float], norm: str) -> None:
    if norm in ("", "FrozenBN") and any(gain != 1 for gain in gains):
        raise IONError(
            f"MODEL.VGG.GAINS is {gains}, but MODEL.VGG.NORM is {norm!r}, so that a factor on a "
            "feature would change all blocks after it; set another NORM or make all factors 1."
        )


def _make_conv(in_channels: int, out_channels: int, norm: str) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        padding=1,
        bias=not norm,
        norm=build_norm(norm, out_channels),
        activation=F.relu_,
    )
    weight_init.c2_msra_fill(conv)
    return conv
