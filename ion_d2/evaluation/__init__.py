"""Evaluation: VOC and COCO average precision of boxes, mean IoU of segmentation."""

from .coco_evaluator import IONCOCOEvaluator
from .coco_style import COCO_METRICS, evaluate_coco_style
from .evaluators import EVALUATORS, RESULT_FILES, build_evaluators, evaluation_folder, result_files
from .image_boxes import Detections, GroundTruth
from .proposal_recall import ProposalRecall, evaluate_proposals
from .sem_seg_evaluator import IONSemSegEvaluator
from .voc_ap import COCO_THRESHOLDS, VOCResult, check_metric, evaluate_voc, voc_average_precision
from .voc_evaluator import IONVOCEvaluator

__all__ = [
    "COCO_METRICS",
    "COCO_THRESHOLDS",
    "EVALUATORS",
    "Detections",
    "GroundTruth",
    "IONCOCOEvaluator",
    "RESULT_FILES",
    "IONSemSegEvaluator",
    "IONVOCEvaluator",
    "ProposalRecall",
    "VOCResult",
    "build_evaluators",
    "check_metric",
    "evaluate_coco_style",
    "evaluate_proposals",
    "evaluate_voc",
    "evaluation_folder",
    "result_files",
    "voc_average_precision",
]
