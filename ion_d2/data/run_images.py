"""The dataset dicts of a run: what the config names, with proposals and label maps."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import filter_images_with_few_keypoints
from detectron2.data.transforms import ResizeShortestEdge

from ..errors import IONError
from .mapper import is_learned
from .proposals import get_dicts, proposal_files
from .readable import UnreadableImageError, check_present, filter_unreadable, or_skip
from .reading_on import skip_unreadable
from .sem_seg import add_label_files, log_label_count
from .task_labels import check_training_labels

logger = logging.getLogger(__name__)


def train_dicts(cfg: CfgNode) -> list[dict]:
    """The images of ``DATASETS.TRAIN``, with their proposals and further label maps.

    Raises:
        IONError: there is nothing to train on, not what the model learns, or a picture is missing.
    """
    skip_unreadable(cfg.INPUT.SKIP_UNREADABLE)
    try:
        dicts = get_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            proposal_files=proposal_files(cfg, "TRAIN"),
        )
    except UnreadableImageError as error:
        raise or_skip(error) from error
    except AssertionError as error:  # Detectron2's way to say that no image is left
        raise IONError(
            f"DATASETS.TRAIN gives nothing to train on: {error} An image needs a box (in COCO's "
            "format, one with iscrowd 0; CVAT marks masks as crowds); "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False keeps images without boxes."
        ) from error
    except KeyError:  # what Detectron2 raises if one of the datasets has annotations, another not
        loaded = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]
        check_training_labels(cfg, loaded)
        raise
    check_training_labels(cfg, dicts)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        dicts = _with_learned_objects(cfg, dicts)
    check_present(dicts)
    if cfg.MODEL.KEYPOINT_ON:
        dicts = _with_keypoints(cfg, dicts)
    if cfg.MODEL.SEG_REGULARIZER_ON:
        dicts = add_label_files(dicts, cfg.DATASETS.SEM_SEG_DIRS)
        log_label_count(dicts)
    return dicts


def _with_learned_objects(cfg: CfgNode, dicts: list[dict]) -> list[dict]:
    """Leave out images of which all objects are difficult, which Detectron2 knows nothing of.

    All that they show would be background in the others, difficult objects too.
    """
    difficult = cfg.DATASETS.USE_DIFFICULT
    kept = [d for d in dicts if any(is_learned(found, difficult) for found in d["annotations"])]
    if not kept:
        raise IONError(
            "DATASETS.TRAIN gives nothing to train on: every object is a crowd or marked "
            "difficult. DATASETS.USE_DIFFICULT True trains on difficult ones."
        )
    if left := len(dicts) - len(kept):
        logger.info("Left out %d images of which every object is difficult.", left)
    return kept


def _with_keypoints(cfg: CfgNode, dicts: list[dict]) -> list[dict]:
    least = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    kept = filter_images_with_few_keypoints(dicts, least) if least else dicts
    if not kept:
        raise IONError(
            f"No image of DATASETS.TRAIN has {least} labeled keypoints; lower "
            "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE."
        )
    return kept


def test_dicts(cfg: CfgNode, dataset_name: str, with_proposals: bool = False) -> list[dict]:
    """The images of a test dataset with the label maps of ``DATASETS.SEM_SEG_DIRS``.

    ``INPUT.SKIP_UNREADABLE`` leaves broken pictures out. ``with_proposals`` adds the boxes of
    ``DATASETS.PROPOSAL_FILES_TEST``, if the model loads any.

    Raises:
        IONError: there are no images, or a file of them cannot be read.
    """
    skip_unreadable(cfg.INPUT.SKIP_UNREADABLE)
    files = proposal_files(cfg, "TEST") if with_proposals else None
    if files is not None:
        if dataset_name not in cfg.DATASETS.TEST:
            raise IONError(
                f"DATASETS.PROPOSAL_FILES_TEST has no file for '{dataset_name}', which is not in "
                "DATASETS.TEST; name both there."
            )
        files = (files[list(cfg.DATASETS.TEST).index(dataset_name)],)
    dicts = add_label_files(load_dicts(dataset_name, files), cfg.DATASETS.SEM_SEG_DIRS)
    return filter_unreadable(dicts, test_resize(cfg)) if cfg.INPUT.SKIP_UNREADABLE else dicts


def test_resize(cfg: CfgNode) -> ResizeShortestEdge:
    """How the pictures of a test are resized."""
    shortest = cfg.INPUT.MIN_SIZE_TEST
    return ResizeShortestEdge([shortest, shortest], cfg.INPUT.MAX_SIZE_TEST)


def load_dicts(dataset_name: str, proposal_files: Sequence[str] | None = None) -> list[dict]:
    """All images of a dataset, with the boxes of a proposal file if one is given.

    Raises:
        IONError: there are no images, or a file of them cannot be read.
    """
    try:
        return get_dicts([dataset_name], filter_empty=False, proposal_files=proposal_files)
    except UnreadableImageError as error:
        raise or_skip(error) from error
    except AssertionError as error:  # Detectron2's way to say that there is no image
        raise IONError(f"The dataset '{dataset_name}' has no images; name another one.") from error


def spread_evenly(dicts: Sequence[dict], count: int) -> list[dict]:
    """Choose ``count`` images at equal distances, from the first to the last; all if fewer."""
    places = np.linspace(0, len(dicts) - 1, min(count, len(dicts))).round().astype(int)
    return [dicts[place] for place in places]
