"""Which evaluators a test dataset gets, and where they write."""

from __future__ import annotations

import os
import re
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from ..errors import IONError
from ..evaluation import IONCOCOEvaluator, IONSemSegEvaluator, IONVOCEvaluator
from .dicts import test_dicts
from .picture_evaluator import PictureEvaluator


def build_evaluators(cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
    """Choose the evaluators of a dataset by the type in its metadata.

    They write to ``OUTPUT_DIR``, or, where ``DATASETS.TEST`` names several datasets, to a folder of
    the dataset's name in it.

    Args:
        cfg: the config.
        dataset_name: a registered name.

    Returns:
        Box evaluation, segmentation if ``TEST.SEM_SEG``, and pictures.

    Raises:
        IONError: the dataset's type is not one of VOC or COCO, or it has no label maps to evaluate
            segmentation on.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    folder = evaluation_folder(cfg, dataset_name)
    if kind == "ion_voc":
        evaluators = _voc_evaluators(cfg, dataset_name, folder)
    elif kind == "coco":
        if cfg.TEST.SEM_SEG:
            raise IONError(
                f"TEST.SEM_SEG is True, but {dataset_name} is in COCO's format, whose masks are "
                "not evaluated as label maps; set it to False."
            )
        # pycocotools itself, since the C++ copy of it is not in every build of Detectron2.
        options = {"output_dir": folder, "use_fast_impl": False}
        options["kpt_oks_sigmas"] = tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS)
        ids = None  # all of the file, which the evaluator reads itself
        if cfg.INPUT.SKIP_UNREADABLE:
            ids = [d["image_id"] for d in test_dicts(cfg, dataset_name)]
        evaluators = [IONCOCOEvaluator(dataset_name, image_ids=ids, **options)]
    else:
        raise IONError(
            f"The dataset {dataset_name} is of the type {kind}, which has no evaluator here."
        )
    if cfg.TEST.NUM_PICTURES:
        pictures = os.path.join(folder, "pictures")
        evaluators.append(PictureEvaluator(dataset_name, pictures, cfg.TEST.NUM_PICTURES))
    return DatasetEvaluators(evaluators)


def evaluation_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Tell where the evaluation of a dataset writes.

    Args:
        cfg: the config.
        dataset_name: one of ``DATASETS.TEST``.

    Returns:
        ``OUTPUT_DIR``, or a folder in it where several datasets are evaluated.
    """
    names = list(cfg.DATASETS.TEST)
    if len(names) < 2:
        return cfg.OUTPUT_DIR
    # The end of a name tells more, and no system has names of files above 255 bytes.
    folders = [re.sub(r"[^\w.-]+", "_", name)[-60:] for name in names]
    place = names.index(dataset_name)
    count = folders[:place].count(folders[place])
    return os.path.join(cfg.OUTPUT_DIR, folders[place] + (f"_{count + 1}" if count else ""))


def _voc_evaluators(cfg: CfgNode, dataset_name: str, folder: str) -> list[Any]:
    dicts = test_dicts(cfg, dataset_name)
    ids = [d["image_id"] for d in dicts]
    evaluators: list[Any] = [
        IONVOCEvaluator(dataset_name, metric=cfg.TEST.VOC_METRIC, output_dir=folder, image_ids=ids)
    ]
    if cfg.TEST.SEM_SEG:
        classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        evaluators.append(
            IONSemSegEvaluator(dataset_name, classes, output_dir=folder, records=dicts)
        )
    return evaluators
