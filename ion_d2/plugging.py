"""Switches ION on in other configs of Detectron2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from .config import add_ion_config
from .errors import IONError
from .modeling.context import CONTEXT
from .modeling.model_values import check_features, deepest_of, depth
from .modeling.unread_settings import ROI_HEADS
from .value_rules import Rule, changed, check_rules

# The set-up whose AP was never behind skip pooling alone by more than the seeds' spread on
# photographs (docs/PHOTOGRAPHS.md): the block begins as sums of the feature that feeds it, and is
# added to the deepest one, times a learned gate that starts at 0. So the model begins as skip
# pooling alone.
PLUGGED_IRNN: dict[str, Any] = {
    "transition": "identity",
    "init": "rows_then_columns",
    "norm": "BRN",
    # Sums of what is above 0 or below: a recurrence that is cut at 0 would lose one of them.
    "bias_init": 3.0,
    "dropout": 0.0,
}

# What a config must be for ION to plug in.
_PLUGGABLE: dict[str, Rule] = {
    "MODEL.META_ARCHITECTURE": (
        lambda name: name == "GeneralizedRCNN",
        "'GeneralizedRCNN' (Faster, Mask, Keypoint or Cascade R-CNN), whose ROI heads ION replaces",
    ),
    "MODEL.BACKBONE.NAME": (
        lambda name: name != "build_ion_context_backbone",
        "a backbone without context, which ION adds",
    ),
    "MODEL.PROPOSAL_GENERATOR.NAME": (
        lambda name: name != "RRPN",
        "one that makes upright boxes, as 'RPN' does; ION does not pool rotated ones",
    ),
    "MODEL.ROI_HEADS.NAME": (
        ROI_HEADS.__contains__,
        f"one of {', '.join(ROI_HEADS)}, which ION has its own version of",
    ),
}


def plug_in(cfg: CfgNode) -> dict[str, Any]:
    """Switch context and skip pooling on in a config of Detectron2's R-CNN family.

    The context block reads the deepest feature that the ROI heads read; these then pool their
    features, and "context", which is added to the deepest, times a gate that starts at 0. Where
    they read one stage of a ResNet (C4, DC5), they pool that stage and those before it, from res2
    on. The heads' weights keep their shapes, so that a checkpoint of the plain model still fits.

    Args:
        cfg: a config, with or without ION's keys, changed in place.

    Returns:
        Overrides, config key -> value, that would do the same in a YAML file.

    Raises:
        IONError: the config has no ROI heads that ION's can replace, has ION's already, or is
            frozen.
    """
    if cfg.is_frozen():
        raise IONError("The config is frozen, and ION changes it; call its defrost() first.")
    add_ion_config(cfg)
    check_rules(cfg, _PLUGGABLE)
    overrides = _overrides(cfg)
    cfg.merge_from_list([item for pair in overrides.items() for item in pair])
    return overrides


def _overrides(cfg: CfgNode) -> dict[str, Any]:
    model = cfg.MODEL
    read = list(model.ROI_HEADS.IN_FEATURES)
    timm = model.TIMM.OUT_FEATURES if model.BACKBONE.NAME == "build_timm_backbone" else ()
    wanted = stages_to(read[0], timm) if len(read) == 1 else read
    # Of those that a ResNet returns already, others may read some.
    resnet = sorted({*wanted, *model.RESNETS.OUT_FEATURES}) if wanted[:1] == ["res2"] else None
    shapes = _shapes(cfg, resnet)
    check_features("MODEL.ROI_HEADS.IN_FEATURES", read, shapes)
    pooled = [name for name in wanted if name in shapes]
    deepest = deepest_of(read, shapes)
    overrides: dict[str, Any] = {
        "MODEL.META_ARCHITECTURE": "ION",
        "MODEL.BACKBONE.NAME": "build_ion_context_backbone",
        "MODEL.CONTEXT.BOTTOM_UP": model.BACKBONE.NAME,
        "MODEL.CONTEXT.IN_FEATURE": deepest,
        # As wide as that feature, to be added to it.
        "MODEL.CONTEXT.HIDDEN_DIM": 0,
        "MODEL.CONTEXT.OUT_DIM": 0,
        **{f"MODEL.CONTEXT.{name.upper()}": value for name, value in PLUGGED_IRNN.items()},
        "MODEL.SKIP_POOLER.CONTEXT": "residual",
        "MODEL.SKIP_POOLER.CONTEXT_GAIN": 0.0,
        "MODEL.ROI_HEADS.NAME": ROI_HEADS[model.ROI_HEADS.NAME],
        "MODEL.ROI_HEADS.IN_FEATURES": [*pooled, CONTEXT],
        # The paper's 1000 is the amplitude of its VGG16: measure this backbone's.
        "MODEL.SKIP_POOLER.SCALE_INIT": 0.0,
        # What the heads were made for.
        "MODEL.SKIP_POOLER.OUT_CHANNELS": shapes[read[-1]].channels,
        # For MODEL.SEG_REGULARIZER_ON; 0 takes the number of classes from the data.
        "MODEL.SEM_SEG_HEAD.NAME": "IONSegHead",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": [CONTEXT],
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 0,
    }
    if pooled != read and resnet:
        overrides["MODEL.RESNETS.OUT_FEATURES"] = resnet
    return overrides


def stages_to(name: str, stages: Sequence[str]) -> list[str]:
    """The stages up to a given one: those of Detectron2's ResNet, or of the list given.

    Another feature is alone.
    """
    if found := re.fullmatch(r"res([2-5])", name):
        return [f"res{i}" for i in range(2, int(found[1]) + 1)]
    before = [stage for stage in stages if [] < depth(stage) <= depth(name)]
    return sorted(before, key=depth) if name in before else [name]


def _shapes(cfg: CfgNode, resnet_features: list[str] | None) -> dict[str, ShapeSpec]:
    """What the backbone returns; of a ResNet, other features than the config's may be asked for."""
    values: dict[str, Any] = {"MODEL.TIMM.WEIGHTS": ""}  # which the model itself reads
    if resnet_features:
        values["MODEL.RESNETS.OUT_FEATURES"] = resnet_features
    return build_backbone(changed(cfg, values)).output_shape()
