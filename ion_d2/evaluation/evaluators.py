"""Which evaluators a test dataset gets, by the type in its metadata, and where they write.

Under Detectron2's own trainer::

    class Trainer(DefaultTrainer):
        build_evaluator = staticmethod(ion_d2.evaluation.build_evaluators)
"""

from __future__ import annotations

import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from fvcore.common.registry import Registry

from ..data.catalog import ensure_registered, evaluator_type
from ..data.run_images import test_dicts
from ..errors import IONError
from ..files import distinct_file_names
from .coco_evaluator import IONCOCOEvaluator
from .sem_seg_evaluator import IONSemSegEvaluator
from .voc_evaluator import IONVOCEvaluator

RESULT_FILES = {
    "voc": ("voc_results.json", "detections.json"),
    "coco": ("coco_instances_results.json",),
    "sem_seg": ("sem_seg_results.json",),
}
"""What evaluations write, by their kind."""

EVALUATORS = Registry("ION_EVALUATORS")
EVALUATORS.__doc__ = """
Functions that build the evaluators of a dataset, by the ``evaluator_type`` of its metadata::

    @EVALUATORS.register()
    def my_type(cfg: CfgNode, dataset_name: str, folder: str) -> list[DatasetEvaluator]:
        ...

``folder`` is where they may write. They are built before a training starts, so that they can raise
:class:`~ion_d2.IONError` in time.
"""


def build_evaluators(cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
    """Build the evaluators of one of ``DATASETS.TEST``.

    The type in its metadata decides, or, where there is none, what its dicts hold: objects with
    masks or keypoints are evaluated as COCO does, boxes as VOC and COCO do. They write to
    :func:`evaluation_folder`.

    Raises:
        IONError: the type has no evaluator here, or the dataset cannot be evaluated as the config
            says.
    """
    ensure_registered([dataset_name])
    kind = evaluator_type(dataset_name)
    if kind is None:
        raise IONError(
            f"Dataset '{dataset_name}' has no annotations to evaluate on, and its metadata no "
            "evaluator_type; add boxes, or take it out of DATASETS.TEST."
        )
    if kind not in EVALUATORS:
        known = ", ".join(sorted(name for name, _ in EVALUATORS))
        raise IONError(
            f"Dataset '{dataset_name}' has the evaluator_type '{kind}', which has no evaluator "
            f"here (there are: {known}); set one of these in its MetadataCatalog entry, or "
            "register a function of that name in ion_d2.evaluation.EVALUATORS."
        )
    folder = evaluation_folder(cfg, dataset_name)
    return DatasetEvaluators(EVALUATORS.get(kind)(cfg, dataset_name, folder))


def evaluation_folder(cfg: CfgNode, dataset_name: str) -> str:
    """``OUTPUT_DIR``, or a folder of the dataset's name in it if it is not the only test set."""
    names = list(dict.fromkeys([*cfg.DATASETS.TEST, dataset_name]))
    if len(names) < 2:
        return cfg.OUTPUT_DIR
    return os.path.join(cfg.OUTPUT_DIR, distinct_file_names(names)[names.index(dataset_name)])


def result_files(cfg: CfgNode, dataset_name: str) -> tuple[str, ...]:
    """What the evaluation of a registered dataset may write; all, for a type of one's own."""
    kind = evaluator_type(dataset_name)
    if kind == "coco":
        return RESULT_FILES["coco"]
    if kind in ("pascal_voc", "ion_voc"):
        return (*RESULT_FILES["voc"], *(RESULT_FILES["sem_seg"] if cfg.TEST.SEM_SEG else ()))
    return tuple(name for names in RESULT_FILES.values() for name in names)


@EVALUATORS.register()
def pascal_voc(cfg: CfgNode, dataset_name: str, folder: str) -> list[DatasetEvaluator]:
    """Average precision as VOC and COCO define it, of the boxes in the dataset's dicts."""
    where: dict[str, Any] = {"output_dir": folder, "records": test_dicts(cfg, dataset_name)}
    metric, server_files = cfg.TEST.VOC_METRIC, cfg.TEST.VOC_SERVER_FILES
    boxes = IONVOCEvaluator(dataset_name, metric=metric, server_files=server_files, **where)
    if not cfg.TEST.SEM_SEG:
        return [boxes]
    head = cfg.MODEL.SEM_SEG_HEAD
    labels = {"num_classes": head.NUM_CLASSES, "ignore_label": head.IGNORE_VALUE}
    return [boxes, IONSemSegEvaluator(dataset_name, **labels, **where)]


@EVALUATORS.register()
def ion_voc(cfg: CfgNode, dataset_name: str, folder: str) -> list[DatasetEvaluator]:
    """The same, under the name that sets in VOC layout had before (CHANGELOG)."""
    return pascal_voc(cfg, dataset_name, folder)


@EVALUATORS.register()
def coco(cfg: CfgNode, dataset_name: str, folder: str) -> list[DatasetEvaluator]:
    """Detectron2's evaluation of COCO's format."""
    for key, what in (("SEM_SEG", "label maps"), ("VOC_SERVER_FILES", "files for VOC's server")):
        if cfg.TEST[key]:
            raise IONError(
                f"TEST.{key} is True, but {dataset_name} is in COCO's format, whose evaluation "
                f"knows no {what}; set it to False."
            )
    ids = None  # all of the file, which the evaluator reads itself
    if cfg.INPUT.SKIP_UNREADABLE:
        ids = [record["image_id"] for record in test_dicts(cfg, dataset_name)]
    return [
        IONCOCOEvaluator(
            dataset_name,
            image_ids=ids,
            output_dir=folder,
            # pycocotools itself, since the C++ copy of it is not in every build of Detectron2.
            use_fast_impl=False,
            kpt_oks_sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
        )
    ]
