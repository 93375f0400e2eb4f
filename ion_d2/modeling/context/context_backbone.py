"""A backbone that adds the "context" feature to any other backbone (paper Fig. 1, "outside")."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from ...errors import IONError
from ..model_values import check_features
from ..trainer_settings import BuiltFromConfig
from .build import CONTEXT, build_context_block, run_context_block
from .unread import check_context_is_read

logger = logging.getLogger(__name__)


class ContextBackbone(BuiltFromConfig, Backbone):
    """Runs a backbone, then a context block on one of its features.

    Returns all features of the wrapped backbone and the new feature "context", of the same stride
    as the one that feeds the block; some blocks add more.
    """

    def __init__(self, bottom_up: Backbone, context: nn.Module, in_feature: str) -> None:
        """
        Args:
            bottom_up: the backbone to wrap.
            context: a context block; see ``CONTEXT_REGISTRY``.
            in_feature: the feature of ``bottom_up`` that feeds it; IONError if there is none.
        """
        super().__init__()
        stride = _shape_of(in_feature, bottom_up).stride
        self.bottom_up = bottom_up
        self.context = context
        self.in_feature = in_feature
        channels = {CONTEXT: context.out_channels, **getattr(context, "extra_channels", {})}
        added = {name: ShapeSpec(channels=c, stride=stride) for name, c in channels.items()}
        self._shapes: dict[str, ShapeSpec] = {**bottom_up.output_shape(), **added}
        # Names under which Detectron2's own tools look for the features.
        self._out_features = list(self._shapes)

    def forward(
        self, x: Tensor, image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """
        Args:
            x: (N, 3, H, W) batch of images, padded at the right and the bottom to one size.
            image_sizes: the (height, width) in pixels of each image before padding, which the
                context block then does not see. None: the padded size counts as valid.

        Returns:
            The wrapped backbone's features and "context", (N, C, H / stride, W / stride).
        """
        features = self.bottom_up(x)
        source = features[self.in_feature]
        sizes = None
        if image_sizes is not None and self._is_padded(x, image_sizes):
            sizes = self._valid_cells(image_sizes, source)
        features.update(run_context_block(self.context, source, sizes))
        return features

    def _is_padded(self, x: Tensor, image_sizes: Sequence[tuple[int, int]]) -> bool:
        if torch.jit.is_tracing():
            # The trace serves images of other sizes, some of which will be padded.
            return self.size_divisibility > 1 or any(self.padding_constraints.values())
        return any(tuple(size) != tuple(x.shape[-2:]) for size in image_sizes)

    def _valid_cells(self, image_sizes: Sequence[tuple[int, int]], source: Tensor) -> Tensor:
        """Size in cells that the source feature would have for each image alone, (N, 2)."""
        stride = int(self._shapes[self.in_feature].stride)
        # Pooling without padding (VGG) drops an incomplete last cell; strided convolutions keep it.
        up = 0 if getattr(self.bottom_up, "rounds_down", False) else stride - 1
        # In a trace all sizes are tensors, and the arithmetic below becomes part of it.
        tracing = torch.jit.is_tracing()
        shape = torch._shape_as_tensor(source) if tracing else torch.tensor(source.shape)
        limits = shape[2:]
        sizes = torch.stack([s if isinstance(s, Tensor) else torch.tensor(s) for s in image_sizes])
        return torch.minimum((sizes + up) // stride, limits).clamp(min=1).to(source.device)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Accept weights of the wrapped backbone under the names that it has without the block.

        Those of another shape are left out, as Detectron2 does with names that it knows.
        """
        own = {prefix + name: value.shape for name, value in self.state_dict().items()}
        for key in [k for k in state_dict if k.startswith(prefix) and k not in own]:
            inner = f"{prefix}bottom_up.{key[len(prefix) :]}"
            if inner not in own:
                continue
            given = state_dict.pop(key)
            if given.shape == own[inner]:
                state_dict[inner] = given
            else:
                shapes = f"{tuple(given.shape)} in the checkpoint, {tuple(own[inner])} in the model"
                logger.warning("Left out '%s', whose shape is another: %s", key, shapes)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature, "context" included."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """The wrapped backbone's."""
        return self.bottom_up.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The wrapped backbone's, where this version of Detectron2 has them."""
        return getattr(self.bottom_up, "padding_constraints", {})


def _shape_of(feature: str, backbone: Backbone) -> ShapeSpec:
    shapes: dict[str, ShapeSpec] = backbone.output_shape()
    check_features("MODEL.CONTEXT.IN_FEATURE", [feature], shapes)
    return shapes[feature]


@BACKBONE_REGISTRY.register()
def build_ion_context_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ContextBackbone:
    """Build ``MODEL.CONTEXT.BOTTOM_UP`` with a context block on ``MODEL.CONTEXT.IN_FEATURE``.

    Raises:
        IONError: the builder or the feature does not exist, or nothing reads the context.
    """
    builder = cfg.MODEL.CONTEXT.BOTTOM_UP
    itself = builder == build_ion_context_backbone.__name__
    if itself or builder not in BACKBONE_REGISTRY:
        fault = "would wrap itself" if itself else "is not a registered backbone builder"
        raise IONError(
            f"MODEL.CONTEXT.BOTTOM_UP is {builder!r}, which {fault}; name the backbone that is to "
            "get a context feature."
        )
    bottom_up = BACKBONE_REGISTRY.get(builder)(cfg, input_shape)
    in_feature = cfg.MODEL.CONTEXT.IN_FEATURE
    block = build_context_block(cfg, _shape_of(in_feature, bottom_up).channels)
    check_context_is_read(cfg, [CONTEXT, *getattr(block, "extra_channels", ())])
    return ContextBackbone(bottom_up, block, in_feature).remember(cfg)
