"""A context block that nothing reads, and settings that its kind of block would ignore."""

from __future__ import annotations

import re
from collections.abc import Sequence

from detectron2.config import CfgNode

from ...config import default_of
from ...errors import IONError
from .build import CONTEXT

# Keys of MODEL.CONTEXT that one kind of block alone reads. Left out are those that shared configs
# and plug_in set whatever the block: TRANSITION, INIT, NORM, BIAS_INIT, DROPOUT and the widths.
_JOINED = ("Chain", "Branches")
_OF_CONTEXTS = {
    **dict.fromkeys(("SHARED_INPUT", "FIRST_STEP_BIAS", "ALL_STACKS"), ("IRNN",)),
    **{"DIRECTIONS": ("IRNN", "RNN"), "NUM_STACKS": ("IRNN", "RNN", "Conv")},
    **{"CELL": ("RNN",), "KERNEL_SIZE": ("Conv",), "PARTS": _JOINED},
}
_CONTEXTS = {"IRNN", "RNN", "Conv", "GlobalAverage", *_JOINED}  # others may read any
# What reads the backbone in each of Detectron2's models and ION's.
_READERS = {
    **dict.fromkeys(("GeneralizedRCNN", "ION"), ("ROI_HEADS", "RPN")),
    **{"PanopticFPN": ("ROI_HEADS", "RPN", "SEM_SEG_HEAD"), "ProposalNetwork": ("RPN",)},
    **{"RetinaNet": ("RETINANET",), "SemanticSegmentor": ("SEM_SEG_HEAD",)},
}


def check_context_is_read(cfg: CfgNode, features: Sequence[str]) -> None:
    """Refuse a context block that costs its time and trains nothing, and settings it ignores.

    Its parameters would have no gradient, on which distributed training fails. Models and proposal
    generators of other projects may read it by keys of their own.

    Args:
        cfg: the full config.
        features: what the block returns.

    Raises:
        IONError: neither the ROI heads, nor the RPN, nor a segmentation head, nor RetinaNet's reads
            it or its earlier stacks, or a setting of another kind of block is not its default.
    """
    _check_settings_of_context(cfg)
    model = cfg.MODEL
    parts = _readers(model)
    if not parts or model.BACKBONE.NAME != "build_ion_context_backbone":
        return
    keys = " or ".join(f"MODEL.{part}.IN_FEATURES" for part in parts)
    read = {name for part in parts for name in model[part].IN_FEATURES}
    if not any(name.startswith(CONTEXT) for name in read):
        raise IONError(
            "MODEL.BACKBONE.NAME is 'build_ion_context_backbone', but nothing reads its context: "
            f"name 'context' in {keys}, or set MODEL.BACKBONE.NAME to {model.CONTEXT.BOTTOM_UP!r}."
        )
    if model.CONTEXT.NAME == "Branches":
        branches = [name for name in features if not re.fullmatch(r"context\d+", name)]
        if unread := [name for name in branches if name not in read]:
            raise IONError(
                f"MODEL.CONTEXT.NAME is 'Branches', but nothing reads {', '.join(unread)}; add to "
                f"{keys}, or take the block out of MODEL.CONTEXT.PARTS."
            )
    if model.CONTEXT.ALL_STACKS and not any(re.fullmatch(r"context\d+", name) for name in read):
        raise IONError(
            "MODEL.CONTEXT.ALL_STACKS is True, but nothing reads an earlier stack: name 'context1' "
            f"in {keys}, or set it to False."
        )


def _readers(model: CfgNode) -> list[str]:
    """The parts that read the backbone by their IN_FEATURES; none where that is not known."""
    generator = model.PROPOSAL_GENERATOR.NAME
    parts = [*_READERS.get(model.META_ARCHITECTURE, ())]
    if "RPN" in parts and generator != "RPN":
        parts.remove("RPN")
        if generator != "PrecomputedProposals":
            return []
    return [*parts, "SEM_SEG_HEAD"] if parts and model.SEG_REGULARIZER_ON else parts


def _check_settings_of_context(cfg: CfgNode) -> None:
    context = cfg.MODEL.CONTEXT
    used = {context.NAME, *(context.PARTS if context.NAME in _JOINED else ())}
    for key, kinds in _OF_CONTEXTS.items() if used <= _CONTEXTS else ():
        default = default_of(f"MODEL.CONTEXT.{key}")
        if context[key] != default and not used & {*kinds}:
            raise IONError(
                f"MODEL.CONTEXT.{key} is {context[key]!r}, which is for {' or '.join(kinds)}, but "
                f"MODEL.CONTEXT.NAME is {context.NAME!r}; set it to {default!r}, or the name to "
                f"{kinds[0]!r}."
            )
