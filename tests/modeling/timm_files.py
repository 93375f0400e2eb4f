"""Files of weights for timm's networks."""

import pytest
import torch

timm = pytest.importorskip("timm")

LITE = "tf_efficientnet_lite0"


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
