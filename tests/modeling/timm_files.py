"""Files of weights for timm's networks, and detectors on them."""

import pytest
import torch
from detectron2.config import get_cfg

from ion_d2 import add_ion_config

timm = pytest.importorskip("timm")

LITE = "tf_efficientnet_lite0"


def faster_rcnn(backbone, **keys):
    """The config of Detectron2's own detector, small, on resnet10t or another network."""
    cfg = get_cfg()
    add_ion_config(cfg)
    values = {
        "MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.BACKBONE.NAME": backbone, "MODEL.TIMM.NAME": "resnet10t",
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads", "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.FC_DIM": 32, **keys,
    }  # fmt: skip
    cfg.merge_from_list([word for pair in values.items() for word in pair])
    return cfg


def saved(path, name):
    """A random network whose normalization does something, and the file of its weights."""
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)
    torch.save(network.state_dict(), path)
    return network
