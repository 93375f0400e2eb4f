"""Labeled and detected boxes for tests of evaluation."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from ion_d2.evaluation import Detections, GroundTruth


def truth_of(boxes, classes=None, difficult=None):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    classes = np.zeros(len(boxes)) if classes is None else classes
    difficult = np.zeros(len(boxes)) if difficult is None else difficult
    return GroundTruth(boxes, np.array(classes, dtype=int), np.array(difficult, dtype=bool))


def detections_of(boxes, scores=None, classes=None):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    scores = np.ones(len(boxes)) if scores is None else scores
    classes = np.zeros(len(boxes)) if classes is None else classes
    return Detections(boxes, np.array(scores, dtype=float), np.array(classes, dtype=int))


def output_of(boxes=(), scores=None, classes=None, size=(100, 120), **fields):
    """What a detector gives for an image."""
    found = detections_of(boxes, scores, classes)
    instances = Instances(size, **fields)
    instances.pred_boxes = Boxes(torch.tensor(found.boxes).float())
    instances.scores = torch.tensor(found.scores).float()
    instances.pred_classes = torch.tensor(found.classes)
    return {"instances": instances}


def run(evaluator, records, outputs):
    evaluator.reset()
    evaluator.process(records, outputs)
    return evaluator.evaluate()


def register_dicts(name, dicts, **metadata):
    """Register a function as Detectron2's tutorial does, in place of an earlier one."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.remove(name)
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(**metadata)
    return name
