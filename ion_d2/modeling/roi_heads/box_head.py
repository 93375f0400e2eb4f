"""VGG16's fully connected layers as a Detectron2 box head (paper sec. 3: fc6, fc7)."""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from torch import Tensor, nn

from ...errors import IONError
from ...layers.dropout import Dropout
from ...value_rules import BELOW_1, COUNT, check_value
from ..trainer_settings import BuiltFromConfig


@ROI_BOX_HEAD_REGISTRY.register()
class IONBoxHead(BuiltFromConfig):
    """Two fully connected layers, fc6 and fc7, each with ReLU and dropout.

    fc6 reads its input in the order (C, H, W), as the VGG checkpoints of torchvision and Caffe do.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, fc_dim: int = 4096, dropout: float = 0.5) -> None:
        """
        Args:
            input_shape: channels, height and width of the pooled features.
            fc_dim: width of both layers.
            dropout: probability with which an output is dropped in training (Fast R-CNN: 0.5).

        Raises:
            IONError: one of them is out of its range.
        """
        super().__init__()
        check_value("MODEL.ROI_BOX_HEAD.FC_DIM", fc_dim, COUNT)
        check_value("MODEL.ROI_BOX_HEAD.FC_DROPOUT", dropout, BELOW_1)
        size = input_shape.channels * (input_shape.height or 1) * (input_shape.width or 1)
        self.fc6 = nn.Linear(size, fc_dim)
        self.fc7 = nn.Linear(fc_dim, fc_dim)
        self.dropout = Dropout(dropout)
        self.output_shape = ShapeSpec(channels=fc_dim)
        for layer in (self.fc6, self.fc7):
            weight_init.c2_xavier_fill(layer)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_BOX_HEAD
        if head.NUM_CONV or head.NUM_FC not in (0, 2):
            raise IONError(
                "IONBoxHead has two fully connected layers and no convolution, but "
                f"MODEL.ROI_BOX_HEAD.NUM_CONV is {head.NUM_CONV} and NUM_FC is {head.NUM_FC}; set "
                "them to 0 and 2, or use MODEL.ROI_BOX_HEAD.NAME FastRCNNConvFCHead."
            )
        dropout = head.FC_DROPOUT if cfg.MODEL.DROPOUT_ON else 0.0
        return {"input_shape": input_shape, "fc_dim": head.FC_DIM, "dropout": dropout}

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, P, P) pooled features to (M, fc_dim)."""
        x = torch.flatten(x, start_dim=1)
        for layer in (self.fc6, self.fc7):
            x = self.dropout(torch.relu(layer(x)))
        return x
