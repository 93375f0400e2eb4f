"""The rows of the paper's tables, and what each asks of a config and of the model."""

import csv
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = "configs/paper"

# Widths of VGG16's blocks (conv2 on), and of the context features that have a fixed one.
WIDTHS = {"conv2": 128, "conv3": 256, "conv4": 512, "conv5": 512}
VGG16_CONVOLUTIONS = 14_714_688

VOC_LISTS = {
    "07+12": ("voc_2007_trainval", "voc_2012_trainval"),
    "07++12": ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval"),
    "07+12+S": ("voc_2007_trainval_0712S", "voc_2012_trainval_0712S"),
}
COCO_LISTS = {
    "train": ("coco_2014_train",),
    "train+S": ("coco_2014_train",),
    "trainval35k+S": ("coco_2014_train", "coco_2014_valminusminival"),
}
# The labels of VOC 2012 test and of test-dev are not public.
TESTS = {"VOC07": ("voc_2007_test",), "VOC12": (), "test-dev": ("coco_2014_minival",)}

CONTEXTS = {
    "IRNN": {"NAME": "IRNN"},
    "IRNN left-right, IRNN up-down": {"DIRECTIONS": [["left", "right"], ["up", "down"]]},
    "IRNN beside 2x512 conv 3x3": {"NAME": "Branches", "PARTS": ["IRNN", "Conv"]},
    "2x512 conv 3x3, then IRNN": {"NAME": "Chain", "PARTS": ["Conv", "IRNN"]},
    "2x512 conv 3x3": {"NAME": "Conv", "KERNEL_SIZE": 3, "HIDDEN_DIM": 512, "OUT_DIM": 512},
    "2x256 conv 5x5": {"NAME": "Conv", "KERNEL_SIZE": 5, "HIDDEN_DIM": 256, "OUT_DIM": 256},
    "global average": {"NAME": "GlobalAverage"},
}


def read_table(name):
    with open(DOCS / name, newline="") as file:
        return list(csv.DictReader(file))


ROWS = read_table("paper_tables.csv")
OURS = [row for row in ROWS if row["config"]]


def config_file(row):
    return f"{FOLDER}/{row['config']}.yaml"


def base_file(row):
    """The project's config whose every other setting a row keeps."""
    return f"configs/ion_vgg16_{'voc' if row['metric'] == 'mAP' else 'coco'}.yaml"


def expected_settings(row):
    """What a row sets, by config key, beside its output folder."""
    return {**_recipe(row), **_data(row), **_model(row), **_test(row)}


def _recipe(row):
    first, second = (40_000, 100_000) if row["metric"] == "mAP" else (80_000, 320_000)
    return {
        "SOLVER.STAGES": [
            {"MAX_ITER": first, "FREEZE_AT": 5, "BASE_LR": 5e-3, "END_LR": 1e-4},
            {"MAX_ITER": second, "FREEZE_AT": 2, "BASE_LR": 1e-3, "END_LR": 1e-5},
        ],
        "SOLVER.MAX_ITER": first + second,
        "SOLVER.BASE_LR": 5e-3,
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.IMS_PER_PASS": 1,
        "SOLVER.MOMENTUM": 0.9,
        "SOLVER.WEIGHT_DECAY": 5e-4,
        "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
        "SOLVER.BIAS_LR_FACTOR": 2.0,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
        "SOLVER.CLIP_GRADIENTS.FULL_MODEL": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 20.0,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 128,
        "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.1, 0.5],
        "MODEL.ROI_HEADS.IOU_LABELS": [-1, 0, 1],
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0,
        "MODEL.ROI_BOX_HEAD.FC_DROPOUT": 0.5,
        "MODEL.CONTEXT.DROPOUT": 0.25,
        "MODEL.DROPOUT_ON": row["dropout"] == "yes",
    }


def _data(row):
    voc = row["metric"] == "mAP"
    train = (VOC_LISTS if voc else COCO_LISTS)[row["train"]]
    test = TESTS[row["test"]]
    suffix = row["boxes"].lower().replace("+", "_")
    top = 4000 if row["boxes"] == "SS+EB" else 2000

    def files(names):
        # A list with segmentation labels has the images, and so the boxes, of the plain one.
        plain = [name.replace("_0712S", "") for name in names]
        return [] if suffix == "rpn" else [f"datasets/proposals/{n}_{suffix}.pkl" for n in plain]

    return {
        "DATASETS.TRAIN": train,
        "DATASETS.TEST": test,
        "DATASETS.SEM_SEG_DIRS": ["SegmentationSBD"] if voc and row["seg"] == "yes" else [],
        "DATASETS.PROPOSAL_FILES_TRAIN": files(train),
        "DATASETS.PROPOSAL_FILES_TEST": files(test),
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": top,
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": top,
        "MODEL.LOAD_PROPOSALS": suffix != "rpn",
        "MODEL.PROPOSAL_GENERATOR.NAME": "RPN" if suffix == "rpn" else "PrecomputedProposals",
    }


def _model(row):
    pool = row["pool"].split("+")
    conv2 = ["conv2"] if "conv2" in pool else []
    backbone = "build_ion_context_backbone" if row["context"] else "build_ion_vgg_backbone"
    settings = {
        "MODEL.BACKBONE.NAME": backbone,
        "MODEL.VGG.OUT_FEATURES": [*conv2, "conv3", "conv4", "conv5"],
        "MODEL.ROI_HEADS.IN_FEATURES": pool,
        "MODEL.SKIP_POOLER.NORM": row["norm"],
        # The paper measured 1000, and 130 by position, on other weights of VGG16.
        "MODEL.SKIP_POOLER.SCALE_INIT": 0.0,
        "MODEL.SKIP_POOLER.LEARN_SCALE": row["scale"] != "fixed",
        "MODEL.SEG_REGULARIZER_ON": row["seg"] == "yes",
        "MODEL.CONTEXT.ALL_STACKS": "context1" in pool,
        "MODEL.CONTEXT.NUM_STACKS": 2,
    }
    for key, value in CONTEXTS.get(row["context"], {}).items():
        settings[f"MODEL.CONTEXT.{key}"] = value
    if row["units"]:
        settings["MODEL.CONTEXT.HIDDEN_DIM"] = int(row["units"])
        learned = row["transition"] == "learned"
        settings["MODEL.CONTEXT.TRANSITION"] = "full" if learned else "identity"
    return settings


def _test(row):
    settings = {
        "TEST.BOX_REFINEMENT.ENABLED": row["refine"] == "yes",
        "TEST.BOX_REFINEMENT.ROUNDS": 2,
        "TEST.FLIP_AVERAGING": row["flip"] == "yes",
        "TEST.DETECTIONS_PER_IMAGE": 100,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3,
    }
    if row["vote_iou"]:
        settings["TEST.BOX_REFINEMENT.VOTE_IOU"] = float(row["vote_iou"])
    return settings


def expected_parameters(row):
    """Number of parameters of each part, from the sizes that the paper gives."""
    classes = 20 if row["metric"] == "mAP" else 80
    context, extra, context_width = _context_parameters(row)
    widths = {**WIDTHS, "context": context_width, **extra}
    pooled = sum(widths[name] for name in row["pool"].split("+"))
    pooler = 0
    if row["norm"] != "none":
        pooler += pooled  # a scale per channel
    if row["norm"] != "none" or "+" in row["pool"]:
        pooler += pooled * 512 + 512
    shared_rpn = 512 * 512 * 9 + 512
    return {
        "backbone": VGG16_CONVOLUTIONS + context,
        "roi_heads.box_pooler": pooler,
        "roi_heads.box_head": (512 * 49 + 1) * 4096 + 4097 * 4096,
        "roi_heads.box_predictor": 4097 * (classes + 1) + 4097 * 4 * classes,
        # 5 sizes and 3 shapes of anchors, each with a score and 4 sides.
        "proposal_generator": shared_rpn + 513 * 15 * 5 if row["boxes"] == "RPN" else 0,
        # 32x32 kernels to the classes and the background.
        "sem_seg_head": 512 * (classes + 1) * 32 * 32 + classes + 1 if row["seg"] == "yes" else 0,
    }


def _context_parameters(row):
    """Parameters of the context block, widths of its further features and of its main one."""
    kind = row["context"]
    irnn, conv = 0, 0
    if row["units"]:
        units, directions = int(row["units"]), 2 if "left-right" in kind else 4
        merged = directions * units
        irnn = 513 * units + (merged + 1) * units + (merged + 1) * 512
        irnn += 2 * directions * units**2 if row["transition"] == "learned" else 0
    found = re.search(r"2x(\d+) conv (\d)x", kind)
    if found:
        width, side = int(found[1]), int(found[2])
        conv = 512 * width * side**2 + width * width * side**2 + 2 * width
    extra = {"context1": int(row["units"] or 0), "context_conv": 512}
    return irnn + conv, extra, 256 if kind == "2x256 conv 5x5" else 512
