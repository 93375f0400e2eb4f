"""torchvision's VGGs with random weights, and the least detector that can take them over."""

from __future__ import annotations

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from ion_d2.modeling.backbone.vgg_weights import take_torchvision_names


class Head(nn.Module):
    """fc6 and fc7 by ION's names."""

    def __init__(self, inputs=512 * 49, width=4096):
        super().__init__()
        self.fc6 = nn.Linear(inputs, width)
        self.fc7 = nn.Linear(width, width)

    def forward(self, x):
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class Detector(nn.Module):
    """What the mapping sees of an ION: where the VGG and the box head are."""

    def __init__(self, vgg, head=None, nested=False):
        super().__init__()
        self.backbone = nn.Module() if nested else vgg
        if nested:
            self.backbone.bottom_up = vgg
        self.vgg = [vgg]  # in a list, so that it is not registered under a second name
        self.roi_heads = nn.Module()
        self.roi_heads.box_head = head or nn.Identity()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        take_torchvision_names(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args)


def poisoned(build):
    """Build a model without its slow random start: every value is NaN until it is loaded."""
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    return model.eval()


def randomize(module):
    """Random weights that keep the scale of the signal, with biases far from zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.normal_(layer.bias, std=0.3)
        elif isinstance(layer, nn.BatchNorm2d):
            for value in (layer.weight, layer.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (layer.bias, layer.running_mean):
                nn.init.normal_(value, std=0.3)
            layer.num_batches_tracked.fill_(7)


def without_values(depth, batch_norm):
    with torch.device("meta"):
        return getattr(torchvision.models, f"vgg{depth}{'_bn' * batch_norm}")(weights=None)


def published(depth, batch_norm=False, classifier=None):
    """torchvision's model with random weights."""
    model = without_values(depth, batch_norm)
    model.features = model.features.to_empty(device="cpu")
    randomize(model.features)
    model.classifier = classifier or nn.Sequential()
    return model.eval()


def fake_state(depth, batch_norm=False):
    """A full-size state dict of zeros that takes no memory."""
    model = without_values(depth, batch_norm)
    return {key: torch.zeros(()).expand(value.shape) for key, value in model.state_dict().items()}
