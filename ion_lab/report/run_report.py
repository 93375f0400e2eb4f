"""The report of a run: what it reached, how it got there, and what its model looks at."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from torch import nn

from ion_d2.engine.fit_config import classifier
from ion_d2.modeling import ContextBackbone

from .detections import detection_section
from .document import Facts, Listing, Part, Section, Text
from .evaluated_run import Outcome, read_outcome
from .fields_view import fields_parts, measure_fields
from .inside import inside_section
from .observe import Sample, observe, take_samples
from .page import write_report
from .scores import score_parts
from .states_view import states_parts
from .training_curves import read_metrics, training_section

logger = logging.getLogger(__name__)

FILE_NAME = "report.html"
# Images that the model looks at: for shares of layers, and for receptive fields.
_IMAGES, _FIELD_IMAGES = 24, 6
_CENTER = (0.5, 0.5)


def write_run_report(
    cfg: CfgNode,
    model: nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    place: tuple[float, float] = _CENTER,
) -> str:
    """Write the report of a run.

    It reads what training and evaluation left in ``OUTPUT_DIR``, and lets the model look at a few
    images of the first dataset of ``DATASETS.TEST``.

    Args:
        cfg: the run's config; its datasets are registered.
        model: with the run's weights; it is left in the mode in which it was.
        path: the file; None for ``report.html`` in ``OUTPUT_DIR``.
        place: (y, x) of the cell whose receptive field is shown, as shares of the image.

    Returns:
        The file's path.

    Raises:
        IONError: result files are broken or of another dataset, an image cannot be read, or the
            report cannot be written.
    """
    path = os.path.join(cfg.OUTPUT_DIR, FILE_NAME) if path is None else os.fspath(path)
    was_training = model.training
    try:
        sections = run_sections(cfg, model.eval(), place)
    finally:
        model.train(was_training)
    name = os.path.basename(os.path.abspath(cfg.OUTPUT_DIR))
    lead = f"{' + '.join(cfg.MODEL[classifier(cfg)].IN_FEATURES)} on {', '.join(cfg.DATASETS.TEST)}"
    write_report(path, f"Run {name}", sections, lead=lead)
    logger.info("The report is in %s", path)
    return path


def run_sections(
    cfg: CfgNode, model: nn.Module, place: tuple[float, float] = _CENTER
) -> list[Section]:
    """The sections of a run's report, with the model in evaluation mode."""
    outcomes = [read_outcome(cfg, name) for name in cfg.DATASETS.TEST]
    sections = [Section(_titled("Result", o, outcomes), score_parts(o)) for o in outcomes]
    for outcome in outcomes:
        if outcome.found is not None and outcome.labeled:
            section = detection_section(outcome)
            sections.append(Section(_titled(section.title, outcome, outcomes), section.parts))
    sections.append(training_section(read_metrics(os.path.join(cfg.OUTPUT_DIR, "metrics.json"))))
    if outcomes and outcomes[0].records:
        sections += _model_sections(cfg, model, outcomes[0], place)
    return [*sections, _settings(cfg, model)]


def _titled(title: str, outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    return title if len(outcomes) == 1 else f"{title}: {outcome.dataset}"


def _model_sections(
    cfg: CfgNode, model: nn.Module, outcome: Outcome, place: tuple[float, float]
) -> list[Section]:
    """What the model looks at, inside and outside of the boxes."""
    if not isinstance(model, GeneralizedRCNN):
        text = f"Models of the kind {type(model).__name__} cannot be looked into here."
        return [Section("What the model looks at", [Text([text])])]
    samples = take_samples(cfg, outcome.dataset, _IMAGES)
    names = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    # One at a time: the features of many large images would not fit into memory.
    seen = ((sample, observe(model, sample)) for sample in samples)
    return [
        _outside(cfg, model, samples[:_FIELD_IMAGES], place),
        inside_section(model, seen, names, outcome.class_names),
    ]


def _outside(
    cfg: CfgNode,
    model: nn.Module,
    samples: Sequence[Sample],
    place: tuple[float, float],
) -> Section:
    fields = measure_fields(cfg, model, samples, place)
    groups = any(isinstance(module, nn.GroupNorm) for module in model.backbone.modules())
    parts: list[Part] = fields_parts(fields, len(samples), groups)
    if states := observe(model, samples[0]).states:
        stride = int(model.backbone.output_shape()[fields[-1].name].stride)
        parts += states_parts(samples[0], states, cfg.INPUT.FORMAT == "RGB", stride)
    else:
        parts.append(Text(["No recurrence runs over this model's features."]))
    return Section("Outside: what one cell sees", parts)


def _settings(cfg: CfgNode, model: nn.Module) -> Section:
    context = "none"
    if isinstance(getattr(model, "backbone", None), ContextBackbone):
        context = f"{cfg.MODEL.CONTEXT.NAME} on {cfg.MODEL.CONTEXT.IN_FEATURE}"
    numbers = [parameter.numel() for parameter in model.parameters()]
    # An evaluation's own config may not tell how its weights were trained.
    trained = [
        ("Trained on", ", ".join(cfg.DATASETS.TRAIN)),
        ("Schedule", f"{cfg.SOLVER.MAX_ITER:,} steps of {cfg.SOLVER.IMS_PER_BATCH} images"),
    ]
    items = [
        *(trained if cfg.DATASETS.TRAIN else ()),
        ("Tested on", ", ".join(cfg.DATASETS.TEST) or "nothing"),
        ("Backbone", cfg.MODEL.BACKBONE.NAME),
        ("Context", context),
        ("Features read", ", ".join(cfg.MODEL[classifier(cfg)].IN_FEATURES)),
        ("Segmentation loss", "on" if cfg.MODEL.SEG_REGULARIZER_ON else "off"),
        ("Parameters", f"{sum(numbers):,}"),
        ("Seed", str(cfg.SEED) if cfg.SEED >= 0 else "drawn at random"),
    ]
    return Section("Settings", [Facts(items), Listing("The whole config", cfg.dump())])
