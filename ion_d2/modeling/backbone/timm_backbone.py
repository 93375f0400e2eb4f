"""Any image classifier of the package timm as a backbone: ResNet, EfficientNet, ConvNeXt, Swin."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn

from ...errors import IONError
from ..trainer_settings import BuiltFromConfig
from .constant_norm import ConstantNorm
from .stages import StagedBackbone
from .timm_network import create_network, warn_of_other_pixels
from .timm_weights import first_line


class TimmBackbone(BuiltFromConfig, StagedBackbone):
    """The stages of one of timm's networks; the features are called "stage1", "stage2", ...

    They are numbered as in ``timm.create_model(name).feature_info``: a ResNet or an EfficientNet
    has five with strides 2 to 32, a ConvNeXt or a Swin four from stride 4 on, a ViT one for each
    block. Stages behind the deepest requested one are not built.
    """

    def __init__(
        self,
        name: str,
        out_features: Sequence[str],
        *,
        weights: str = "",
        output_stride: int = 0,
        freeze_at: int = 0,
        freeze_norm: bool = True,
        in_channels: int = 3,
    ) -> None:
        """
        Args:
            name: of the network in timm, such as "resnet50" or "convnext_tiny.in12k_ft_in1k".
            weights: a file of weights, "timm" to download timm's own, or "" for random ones.
            output_stride: largest stride of a feature in pixels; deeper stages are dilated. 0
                leaves the network's own.
            freeze_at: stages 1 to ``freeze_at``, and what lies before them, are not trained.
            freeze_norm: whether batch normalization is constant in all stages; in frozen ones it
                always is.

        Raises:
            IONError: timm is missing or has no such network, or the network no such features,
                stride or weights, or a feature is not of the size that its stride tells.
        """
        super().__init__()
        self._out_features = sorted(set(out_features), key=stage_number)
        indices = tuple(stage_number(feature) - 1 for feature in self._out_features)
        self.net = create_network(name, indices, weights, output_stride, in_channels)
        info = self.net.feature_info
        self._out_feature_strides = dict(zip(self._out_features, info.reduction()))
        self._out_feature_channels = dict(zip(self._out_features, info.channels()))
        self._channels_last = getattr(self.net, "output_fmt", None) == "NHWC"
        self._as_it_is = any(map(_fails_channels_last, self.net.modules()))
        # For each stage up to the deepest, the place of its last module among ``modules()``.
        names = [module for module, _ in self.net.named_modules()]
        ends = [_last_inside(it["module"], names) for it in info.info[: indices[-1] + 1]]
        self._ends = [end for end in ends if end is not None]
        self.num_stages = len(self._ends) if len(self._ends) == len(ends) else 0
        self._size_divisibility = self._find_divisor(name, in_channels)
        self.freeze(freeze_at, freeze_norm)

    @property
    def size_divisibility(self) -> int:
        """Sides that are multiples of it give all features whole cells: mostly the largest stride.

        Twice that for networks that read cells in blocks of two by two (MobileViT v2).
        """
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: images, float of shape (N, in_channels, H, W); H and W multiples of
                ``size_divisibility``.

        Returns:
            The requested features by name; one of stride s has shape (N, C, H / s, W / s).
        """
        on_cpu = x.device.type == "cpu"
        if on_cpu and not self._as_it_is:
            # PyTorch's 1x1 and depthwise convolutions are faster so there.
            x = x.contiguous(memory_format=torch.channels_last)
        features = self.net(x)
        if self._channels_last:
            features = [feature.movedim(3, 1) for feature in features]
        if on_cpu:
            features = [feature.contiguous() for feature in features]
        return dict(zip(self._out_features, features))

    def _find_divisor(self, name: str, in_channels: int) -> int:
        """Find by trial what the sides of images must be multiples of; IONError if nothing will do.

        ROIs are pooled at the strides that timm tells, so that other features would be misread.
        """
        largest = max(self._out_feature_strides.values())
        fault = self._find_fault(largest, in_channels)
        if not fault:
            return largest
        if self._find_fault(2 * largest, in_channels):
            raise IONError(
                f"MODEL.TIMM.NAME {name!r} cannot be a backbone with MODEL.TIMM.OUT_FEATURES "
                f"{', '.join(self._out_features)} ({fault}); name other features or another "
                "network."
            )
        return 2 * largest

    @torch.no_grad()
    def _find_fault(self, divisor: int, in_channels: int) -> str:
        """What is wrong with the features of an image whose sides are odd multiples of a number."""
        height, width = (divisor * (side // divisor | 1) for side in (64, 128))
        image = next(self.net.parameters()).new_zeros(1, in_channels, height, width)
        self.net.eval()  # so that nothing is measured
        try:
            features = self(image)
        except Exception as error:  # timm's networks fail in many ways
            return f"an image of {height} x {width} pixels ends in: {first_line(error)}"
        finally:
            self.net.train()
        for feature, stride in self._out_feature_strides.items():
            rows, columns = features[feature].shape[2:]
            if (rows * stride, columns * stride) != (height, width):
                return (
                    f"{feature} has {rows} x {columns} cells of an image of {height} x {width} "
                    f"pixels, not one for each {stride}"
                )
        return ""

    def stage_modules(self, first: int, last: int | None = None) -> list[nn.Module]:
        end = None if last is None else self._end(last)
        return list(self.net.modules())[self._end(first) : end]

    def freeze(self, freeze_at: int, freeze_norm: bool = False) -> TimmBackbone:
        """Stop training the first ``freeze_at`` stages for good, with what lies before them.

        Batch normalization is constant in these stages, and with ``freeze_norm`` in all.

        Raises:
            IONError: the network has fewer stages.
        """
        self.freeze_parameters(freeze_at)
        constant = list(self.net.named_modules())[: None if freeze_norm else self._end(freeze_at)]
        for name, module in constant:
            if isinstance(module, nn.BatchNorm2d):
                parent, _, child = name.rpartition(".")
                setattr(self.net.get_submodule(parent), child, ConstantNorm(module))
        return self

    def _end(self, count: int) -> int:
        """Number of modules up to the end of the first ``count`` stages."""
        if count and not self.num_stages:
            raise IONError(
                f"MODEL.BACKBONE.FREEZE_AT is {count!r}, but where the stages of this network of "
                "timm's end is not known; set it to 0 (train all)."
            )
        if count not in range(self.num_stages + 1):
            raise IONError(
                f"MODEL.BACKBONE.FREEZE_AT is {count!r}; this backbone ends with "
                f"{self._out_features[-1]}, so it must be 0 (train all) to {self.num_stages} "
                "(freeze all)."
            )
        return self._ends[count - 1] + 1 if count else 0


def stage_number(feature: str) -> int:
    """The number in "stage1", "stage2", ...; IONError for another name."""
    found = re.fullmatch(r"stage([1-9]\d*)", str(feature))
    if found is None:
        raise IONError(
            f"MODEL.TIMM.OUT_FEATURES names {feature!r}; the features of timm's networks are "
            "called 'stage1', 'stage2', ... here, in the order of their depth."
        )
    return int(found[1])


def _last_inside(stage: str, names: Sequence[str]) -> int | None:
    """Position of the last module inside a stage, which timm may rename in its wrapper.

    None if there is no module of such a name.
    """
    own = tuple(f"{name}." for name in (stage, stage.replace(".", "_"), f"model.{stage}"))
    return max((i for i, name in enumerate(names) if f"{name}.".startswith(own)), default=None)


def _fails_channels_last(layer: nn.Module) -> bool:
    """Whether PyTorch (2.11) writes beside the weights' gradient of a layer in that layout.

    That is of a 1x1 convolution with a stride, on the few channels of a picture (RepVGG's first).
    """
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < 8
    )


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build the network that ``MODEL.TIMM`` and ``MODEL.BACKBONE.FREEZE_AT`` describe."""
    settings = cfg.MODEL.TIMM
    if not settings.OUT_FEATURES:
        raise IONError("MODEL.TIMM.OUT_FEATURES is empty; name at least one feature.")
    # A checkpoint of the detector brings the backbone's weights with it.
    weights = "" if cfg.MODEL.WEIGHTS else settings.WEIGHTS
    backbone = TimmBackbone(
        settings.NAME,
        settings.OUT_FEATURES,
        weights=weights,
        output_stride=settings.OUTPUT_STRIDE,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        freeze_norm=settings.FREEZE_NORM,
        in_channels=input_shape.channels,
    )
    if weights:
        warn_of_other_pixels(cfg, settings.NAME)
    return backbone.remember(cfg)
