#!/usr/bin/env python
"""Write torchvision's VGG for Detectron2's checkpointer, for any model with ION's VGG in it.

python tools/convert_vgg.py vgg16-397923af.pth vgg16.pkl

Meta-architecture ION needs no such file: it takes torchvision's own as MODEL.WEIGHTS.
"""

from __future__ import annotations

import argparse
import pickle
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from ion_d2.engine.checkpoint_files import check_state, load_lazily, write_atomically
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.modeling.backbone.vgg_weights import (
    FC_NAMES,
    backbone_tensors,
    fc_tensors,
    has_classifier,
    pixel_statistics,
    recognize,
)


def convert(state: dict[str, torch.Tensor], source: str) -> dict[str, Any]:
    """Rename a torchvision VGG, in the format of Detectron2's model zoo.

    Args:
        state: torchvision's tensors by key.
        source: the file, to be named in messages.

    Returns:
        What to pickle: "model" holds numpy arrays by the keys of ``VGG``, which Detectron2 finds in
        a model by the ends of its keys; fc6 and fc7 by ION's names and by those of
        ``FastRCNNConvFCHead``.

    Raises:
        IONError: it is no torchvision VGG.
    """
    layout = recognize(state)
    if layout is None:
        raise IONError(
            f"{source} holds no VGG of torchvision's; give one of vgg11 to vgg19, with or without "
            "batch normalization."
        )
    tensors = {key: value.numpy() for key, value in backbone_tensors(state, layout).items()}
    if has_classifier(state):
        # The same arrays twice, which a pickle holds once.
        arrays = {key: value.numpy() for key, value in state.items()}
        for names in FC_NAMES:
            tensors.update(fc_tensors(arrays, names))
    return {"model": tensors, "__author__": f"torchvision {layout}", "matching_heuristics": True}


def read(source: str) -> dict[str, torch.Tensor]:
    """Read a state dict, which may lie under "model" or "state_dict".

    Args:
        source: path or URL.

    Returns:
        Tensors by key, without the "module." of distributed training.

    Raises:
        IONError: the file is missing, damaged or holds something else.
    """
    try:
        path = PathManager.get_local_path(source)
    except (OSError, ValueError) as error:
        raise IONError(f"{source} could not be fetched ({error}); check the address.") from error
    state = held = load_lazily(path)
    if isinstance(held, dict):
        state = next((held[k] for k in ("model", "state_dict") if k in held), held)
    check_state(state, source)
    consume_prefix_in_state_dict_if_present(state, "module.")
    return {key: torch.as_tensor(value) for key, value in state.items()}


def main() -> None:
    """Parse the command line, convert, and say what the model needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="torchvision's file, or its URL")
    parser.add_argument("target", help="the file to write, NAME.pkl")
    args = parser.parse_args()
    if not args.target.endswith(".pkl"):
        parser.error(f"{args.target} must end with .pkl, by which Detectron2 knows the format")
    state = read(args.source)
    content = convert(state, args.source)
    write_atomically(args.target, lambda file: pickle.dump(content, file))
    mean, std = pixel_statistics(state)
    print(
        f"{args.target}: {content['__author__']}. It was trained with INPUT.FORMAT RGB, "
        f"MODEL.PIXEL_MEAN {mean} and MODEL.PIXEL_STD {std}."
    )


if __name__ == "__main__":
    run_cli(main)
