"""The pieces need Detectron2's own classes alone: nothing of ``ion_d2.engine`` is ever imported."""

import pytest
from model_helpers import SMALL
from process_helpers import run_python

pytestmark = pytest.mark.slow

COMMON = [
    *SMALL, "MODEL.ROI_HEADS.NUM_CLASSES", "1", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2",
    "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.STEPS", "()",
    "SOLVER.BASE_LR", "0.0001", "SOLVER.WARMUP_ITERS", "0", "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0", "MODEL.RPN.POST_NMS_TOPK_TEST",
    "20",
]  # fmt: skip
PLAIN_HEADS = ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES",
               "['context']"]  # fmt: skip
PIECES = {
    "all": ["MODEL.SEG_REGULARIZER_ON", "True", "TEST.SEM_SEG", "True"],
    "context": ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", *PLAIN_HEADS],
    "skip pooling": [
        "MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.BACKBONE.NAME",
        "build_ion_vgg_backbone", "MODEL.ROI_HEADS.IN_FEATURES", "['conv3', 'conv4', 'conv5']",
    ],
}  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_train_evaluate_predict_and_export(piece, tmp_path):
    done = run_python("tests/plain_detectron2.py", tmp_path, *COMMON, *PIECES[piece])
    assert done.returncode == 0, done.stderr[-3000:]
