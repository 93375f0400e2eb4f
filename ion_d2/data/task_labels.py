"""Checks that data has the labels that a model learns or is evaluated on."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..errors import IONError
from .catalog import evaluator_type
from .keypoint_names import unpaired_names
from .mapper import is_learned


def check_training_labels(cfg: CfgNode, dicts: Sequence[dict[str, Any]]) -> None:
    """Refuse training data (the dicts of ``DATASETS.TRAIN``) without what the model learns.

    Raises:
        IONError: there are no boxes, masks or keypoints, or not those that the config wants.
    """
    names = list(cfg.DATASETS.TRAIN)
    _check_learned(cfg, dicts, f"DATASETS.TRAIN ({', '.join(names)})")
    if cfg.MODEL.KEYPOINT_ON:
        for name in names:
            _check_keypoint_names(cfg, name)
            _check_same_keypoints(names[0], name)


def check_test_labels(cfg: CfgNode, name: str, dicts: Sequence[dict[str, Any]]) -> None:
    """Refuse test data (the dicts of dataset ``name``) without what the evaluation compares with.

    Raises:
        IONError: masks or keypoints for COCO's evaluation are missing or others than the model's,
            or ``TEST.LOSS`` or ``TEST.BEST_METRIC`` asks for labels that are not there.
    """
    labeled = any("annotations" in record for record in dicts)
    place = f"DATASETS.TEST ({name})"
    metric, alone = cfg.TEST.BEST_METRIC, len(cfg.DATASETS.TEST) == 1
    if metric and not labeled and (alone or metric.startswith(f"{name}/")):
        raise IONError(
            f"TEST.BEST_METRIC is {metric!r}, but {place} has no annotations, and so "
            "no figures; name a dataset with labels, or set it to ''."
        )
    if cfg.TEST.LOSS:
        _check_learned(cfg, dicts, place)
    elif labeled and evaluator_type(name) == "coco":
        _check_fields(cfg, dicts, place)
    else:
        return
    if cfg.MODEL.KEYPOINT_ON:
        _check_keypoint_names(cfg, name)
        _check_sigmas(cfg, name)


def _check_learned(cfg: CfgNode, dicts: Sequence[dict[str, Any]], place: str) -> None:
    for record in dicts:
        if "annotations" not in record:
            text = f"Image {record['file_name']} of {place} has no annotations to learn from"
            raise IONError(f"{text}; name a dataset with labels.")
    _check_fields(cfg, dicts, place)
    if cfg.MODEL.MASK_ON:
        _check_masks(cfg, dicts, place)


def _check_masks(cfg: CfgNode, dicts: Sequence[dict[str, Any]], place: str) -> None:
    """Refuse masks that INPUT.MASK_FORMAT cannot hold, and cropping without what it needs."""
    polygons = False
    for record, annotation in _objects(cfg, dicts):
        if isinstance(annotation["segmentation"], list):
            polygons = True
        elif cfg.INPUT.MASK_FORMAT == "polygon":
            raise IONError(
                f"Image {record['file_name']} of {place} has a mask that is no polygon, but "
                "INPUT.MASK_FORMAT is 'polygon'; set that to 'bitmask'."
            )
    # Bitmasks are drawn of the polygons after these were cropped.
    if polygons and cfg.INPUT.CROP.ENABLED and importlib.util.find_spec("shapely") is None:
        raise IONError(
            f"INPUT.CROP.ENABLED with masks that are polygons, as in {place}, needs the package "
            "shapely; pip install shapely, or set INPUT.CROP.ENABLED to False."
        )


def _check_fields(cfg: CfgNode, dicts: Sequence[dict[str, Any]], place: str) -> None:
    fields = {"MASK_ON": "segmentation", "KEYPOINT_ON": "keypoints"}
    for key, field in fields.items():
        for record, annotation in _objects(cfg, dicts) if cfg.MODEL[key] else ():
            value = annotation.get(field)
            if value is None or not len(value):
                raise IONError(
                    f"Image {record['file_name']} of {place} has an object without {field!r}, but "
                    f"MODEL.{key} is True; add what is missing, or set it to False."
                )


def _objects(
    cfg: CfgNode, dicts: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The objects that are learned, each with its image."""
    for record in dicts:
        for annotation in record.get("annotations", ()):
            if is_learned(annotation, cfg.DATASETS.USE_DIFFICULT):
                yield record, annotation


def _check_keypoint_names(cfg: CfgNode, name: str) -> None:
    metadata = MetadataCatalog.get(name)
    names = metadata.get("keypoint_names")
    if not names:
        raise IONError(
            f"Dataset '{name}' does not name its keypoints, which MODEL.KEYPOINT_ON needs; name "
            "them in one category of its file ('keypoints'), or as keypoint_names in its metadata."
        )
    if metadata.get("keypoint_flip_map") is None:
        unpaired = ", ".join(unpaired_names(names)) or "no pairs"
        raise IONError(
            f"Dataset '{name}' does not tell which keypoints change places in a mirrored picture "
            f"({unpaired}); name both sides of each, or set keypoint_flip_map in its metadata."
        )
    number = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if number != len(names):
        raise IONError(
            f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {number}, but dataset '{name}' has "
            f"{len(names)} keypoints ({', '.join(names)}); set it to {len(names)}."
        )


def _check_same_keypoints(name: str, other: str) -> None:
    for key in ("keypoint_names", "keypoint_flip_map"):
        one, two = (MetadataCatalog.get(dataset).get(key) for dataset in (name, other))
        if one != two:
            raise IONError(
                f"Datasets '{name}' and '{other}' have different keypoints ({key} {one} against "
                f"{two}); give both the same."
            )


def _check_sigmas(cfg: CfgNode, name: str) -> None:
    number = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    given = len(cfg.TEST.KEYPOINT_OKS_SIGMAS)
    if number != (given or 17):
        had = f"has {given} numbers" if given else "is empty, which means the 17 of COCO's persons"
        raise IONError(
            f"TEST.KEYPOINT_OKS_SIGMAS {had}, but dataset '{name}' has {number} keypoints; give "
            "each its sigma, a share of the object's scale."
        )
