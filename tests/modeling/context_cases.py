"""Each kind of context block as a user chooses it, in small."""

import torch

from ion_d2.engine.setup import load_config
from ion_d2.modeling.context import build_context_block

# Each variant as a user chooses it: keys under MODEL.CONTEXT.
VARIANTS = {
    "diagonal": {"TRANSITION": "diagonal"},
    "left_right_up_down": {"TRANSITION": "full", "DIRECTIONS": [["left", "right"], ["up", "down"]]},
    "separate_input": {"TRANSITION": "full", "SHARED_INPUT": False},
    "first_step_bias": {"TRANSITION": "full", "FIRST_STEP_BIAS": True},
    "both_stacks": {"ALL_STACKS": True},
    "max": {"TRANSITION": "max"},
    "normalized": {"NORM": "BRN"},
    "normalized_conv": {"NAME": "Conv", "NORM": "BRN"},
    "normalized_average": {"NAME": "GlobalAverage", "NORM": "BRN"},
    "tanh": {"NAME": "RNN", "CELL": "tanh"},
    "gru": {"NAME": "RNN", "CELL": "gru"},
    "lstm": {"NAME": "RNN", "CELL": "lstm", "DIRECTIONS": [["up"], ["right", "left"]]},
    "conv": {"NAME": "Conv", "KERNEL_SIZE": 5},
    "average": {"NAME": "GlobalAverage"},
    "chain": {"NAME": "Chain", "PARTS": ["Conv", "IRNN"]},
    "chain_both_stacks": {"NAME": "Chain", "PARTS": ["IRNN", "Conv"], "ALL_STACKS": True},
    "branches_both_stacks": {"NAME": "Branches", "PARTS": ["Conv", "IRNN"], "ALL_STACKS": True},
    "branches": {"NAME": "Branches", "PARTS": ["IRNN", "Conv", "GlobalAverage"]},
}


def options(variant):
    return [part for key, v in VARIANTS[variant].items() for part in (f"MODEL.CONTEXT.{key}", v)]


def make_block(variant, in_channels=3, seed=0):
    """A small block with every parameter random, so that no term is hidden by a zero."""
    opts = ["MODEL.CONTEXT.HIDDEN_DIM", 6, "MODEL.CONTEXT.OUT_DIM", 5, *options(variant)]
    cfg = load_config("configs/ion_tiny.yaml", [str(part) for part in opts])
    torch.manual_seed(seed)
    block = build_context_block(cfg, in_channels).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.4)
    return block


def outputs(block, x, sizes=None):
    result = block(x, sizes)
    return result if isinstance(result, dict) else {"context": result}
