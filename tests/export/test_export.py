"""Exported detectors find what the original finds, for images of any size, without this project."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from model_helpers import small_config, small_model

from ion_d2.engine.setup import build_model, load_config
from ion_d2.errors import IONError
from ion_d2.export import DetectorAdapter, compare, describe, export_detector, load_exported
from ion_d2.modeling import SkipPooler
from ion_d2.plugging import plug_in

pytestmark = pytest.mark.slow

# Random weights score all classes alike, 1/4: of 60 boxes, some of each picture pass.
OPTS = ["MODEL.SKIP_POOLER.SCALE_INIT", "30.0", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.26",
        "MODEL.RPN.POST_NMS_TOPK_TEST", "60"]  # fmt: skip
SIZES = [(96, 128), (131, 77), (64, 65), (400, 300)]
FPN = [
    "MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8,
    "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.SKIP_POOLER.OUT_CHANNELS", 32, "MODEL.WEIGHTS", "",
    "MODEL.CONTEXT.HIDDEN_DIM", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
    "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", 3,
]  # fmt: skip


def images(sizes=SIZES):
    generator = np.random.default_rng(0)
    return [torch.from_numpy(generator.integers(0, 256, (3, *s), dtype=np.uint8)) for s in sizes]


def spread(model):
    """Make the random model's scores differ from box to box and from class to class."""
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_score.weight", "objectness_logits.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def exported(model, path):
    export_detector(model, path, {})
    return load_exported(path)


POOLER, AGNOSTIC = "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"
VOTED = {"TEST.BOX_REFINEMENT.ENABLED": True, "TEST.BOX_REFINEMENT.VOTE_IOU": 0.3}
BRN, TRANSITION = {"MODEL.CONTEXT.NORM": "BRN", "MODEL.VGG.NORM": "BRN"}, "MODEL.CONTEXT.TRANSITION"
MODELS = [
    (".ts", {POOLER: "ROIPool"}), (".onnx", {POOLER: "ROIPool"}), (".onnx", {POOLER: "ROIAlignV2"}),
    (".ts", {**VOTED, AGNOSTIC: True}), (".onnx", {**VOTED, AGNOSTIC: False}),
    (".ts", {**BRN, TRANSITION: "max"}), (".onnx", {**BRN, TRANSITION: "identity"}),
    (".ts", {"MODEL.CONTEXT.NAME": "GlobalAverage"}),
    (".onnx", {"MODEL.CONTEXT.NAME": "GlobalAverage"}),
]  # fmt: skip


@pytest.mark.parametrize("suffix, keys", MODELS)
def test_same_detections_on_other_sizes(tmp_path, suffix, keys):
    model = spread(small_model(*OPTS, *[part for item in keys.items() for part in item]))
    detect = exported(model, tmp_path / f"model{suffix}")
    result = compare(DetectorAdapter(model), detect, images())
    assert result.agrees and result.detections > 20, result
    if suffix == ".onnx":
        opset = onnx.load(tmp_path / "model.onnx").opset_import
        assert [(used.domain, used.version) for used in opset] == [("", 17)]
    assert len(result.exported_seconds) == len(SIZES)


@pytest.mark.parametrize(
    "config, feature, heads, suffix",
    [
        ("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", "p3", "IONROIHeads", ".onnx"),
        ("COCO-Detection/faster_rcnn_R_50_C4_3x.yaml", "res4", "IONRes5ROIHeads", ".onnx"),
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", "p5", "IONCascadeROIHeads", ".ts"),
    ],
)
def test_plugged_in(tmp_path, config, feature, heads, suffix):
    """An FPN pads to multiples of 32: the context must see each image's own size."""
    torch.manual_seed(0)
    opts = [*OPTS, *FPN, "MODEL.CONTEXT.IN_FEATURE", feature, "MODEL.MASK_ON", "False"]
    opts += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05"]  # a C4 proposes few boxes here
    model = spread(build_model(load_config(f"model_zoo:{config}", opts, adapt=plug_in)))
    assert type(model.roi_heads).__name__ == heads
    (pooler,) = (module for module in model.modules() if isinstance(module, SkipPooler))
    pooler.gate.data.fill_(0.25)  # from 0, context would make no difference
    detect = exported(model, tmp_path / f"model{suffix}")
    result = compare(DetectorAdapter(model), detect, images([(64, 96), (97, 130), (33, 120)]))
    assert result.agrees and result.detections > 10, result


@pytest.mark.parametrize(("key", "value"), [("TRANSITION", "max"), ("NAME", "RNN")])
def test_what_onnx_cannot_keep_is_told(tmp_path, key, value):
    model = small_model(f"MODEL.CONTEXT.{key}", value)
    with pytest.raises(IONError, match=f"CONTEXT.{key} '{value}'.*export this model to a .ts"):
        export_detector(model, tmp_path / "model.onnx", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".ts", ".onnx"])
def test_nothing_found(tmp_path, suffix):
    model = small_model("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.999")
    boxes, scores, classes = exported(model, tmp_path / f"model{suffix}")(images()[0])
    assert not any(module.training for module in model.modules())
    assert boxes.shape == (0, 4) and len(scores) == len(classes) == 0


def test_facts_lie_beside_the_model(tmp_path):
    cfg = small_config("INPUT.MIN_SIZE_TEST", "80", "INPUT.MAX_SIZE_TEST", "100", *OPTS)
    facts = describe(cfg, ["a", "b", "c"])
    export_detector(small_model(*OPTS), tmp_path / "new" / "model.onnx", facts)
    read = json.loads((tmp_path / "new" / "model.onnx.json").read_text())
    assert read == facts and read["classes"] == ["a", "b", "c"]
    assert read["input"]["channels"] == "RGB" and read["score_threshold"] == 0.26
    assert (read["input"]["shortest_side"], read["input"]["longest_side"]) == (80, 100)
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"model.onnx", "model.onnx.json"}


def test_differences_are_counted():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 9, 9], [1, 1, 4, 4]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 1, 2])
    order = torch.tensor([1, 0, 2, 3])
    moved = boxes[order].clone()
    moved[0, 2] += 0.25  # within the tolerance
    moved[2, 0] += 0.75  # beyond it
    others = classes[order].clone()
    others[3] = 0  # another class
    found = (moved, scores[order] + 0.0005, others)
    result = compare(lambda x: (boxes, scores, classes), lambda x: found, [None])
    assert (result.detections, result.missing, result.extra) == (4, 2, 2)
    assert result.box_error == pytest.approx(0.25) and not result.agrees
    assert result.score_error == pytest.approx(0.0005, rel=1e-2)


@pytest.mark.parametrize(
    "opts, word",
    [
        (["TEST.FLIP_AVERAGING", "True"], "TEST.FLIP_AVERAGING False"),
        (["MODEL.MASK_ON", "True"], "MODEL.MASK_ON False"),
        (["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"], "PROPOSAL_GENERATOR.NAME RPN"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path, opts, word):
    with pytest.raises(IONError, match=word):
        export_detector(small_model(*opts), tmp_path / "model.ts", {})
    assert not list(tmp_path.iterdir())


def test_bad_places_are_told(tmp_path):
    model = small_model()
    with pytest.raises(IONError, match=r"model\.pt should end in \.ts or \.onnx"):
        export_detector(model, tmp_path / "model.pt", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(IONError, match="choose another place"):
        export_detector(model, tmp_path / "file" / "model.ts", {})
    for suffix in (".ts", ".onnx"):
        with pytest.raises(IONError, match="cannot be loaded"):
            load_exported(tmp_path / f"absent{suffix}")
