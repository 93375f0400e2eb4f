"""A small checkpointer and what the tests ask of it and of its folder."""

import torch
from torch import nn

from ion_d2.engine.checkpoint import IONCheckpointer


def make(folder="", size=4, **states):
    torch.manual_seed(size)
    return IONCheckpointer(nn.Linear(size, size), str(folder), **states)


def values(checkpointer):
    return {key: value.clone() for key, value in checkpointer.model.state_dict().items()}


def zeroed(checkpointer):
    for parameter in checkpointer.model.parameters():
        nn.init.zeros_(parameter)
    return checkpointer


def is_zero(checkpointer):
    return not any(value.any() for value in checkpointer.model.state_dict().values())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
