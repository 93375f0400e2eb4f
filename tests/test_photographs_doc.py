"""The programs and settings of docs/PHOTOGRAPHS_*.md do what these say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.structures import Boxes, pairwise_iou
from model_helpers import make_input, train_step
from voc_folder import object_xml, write_voc

from ion_d2.data.proposals import read_proposals
from ion_d2.engine.setup import build_model, load_config
from ion_d2.evaluation.image_boxes import ground_truth_from_dict

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_BOX_HEAD.FC_DIM", 32]
LAYERS = ["stage2", "stage3", "stage4"]
SKIP = ["MODEL.BACKBONE.NAME", "build_squeezenet", "MODEL.ROI_HEADS.IN_FEATURES", LAYERS]


def block_of(page, language):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return found


def test_proposals_around_the_objects_find_all(tmp_path, monkeypatch, catalogs):
    boxes = {f"im{n}": [object_xml("cat", (5 + n, 4, 20 + n, 18))] for n in range(3)}
    name = f"voc:{write_voc(tmp_path / 'VOC', boxes, split='train')}:train"
    output = tmp_path / "around.pkl"
    monkeypatch.setattr(sys, "argv", ["around.py", name, str(output)])
    exec(block_of("PHOTOGRAPHS_SMALL_OBJECTS.md", "python"), {})
    for found in read_proposals(output).boxes:
        assert found.shape == (8 + 100, 4) and (found >= 0).all() and (found <= (40, 30) * 2).all()
    truth = [ground_truth_from_dict(record) for record in DatasetCatalog.get(name)]
    ious = [
        pairwise_iou(*(Boxes(torch.as_tensor(b, dtype=torch.float32)) for b in (t.boxes, found)))
        for t, found in zip(truth, read_proposals(output).boxes)
    ]
    assert all(iou.max() > 0.5 for iou in ious)


@pytest.mark.parametrize("overrides", [[], SKIP], ids=["ION", "skip"])
def test_squeezenet(tmp_path, monkeypatch, overrides):
    program = block_of("PHOTOGRAPHS_SQUEEZENET.md", "python")
    settings = block_of("PHOTOGRAPHS_SQUEEZENET.md", "yaml")
    (tmp_path / "squeezenet.yaml").write_text(settings.replace("configs/", f"{ROOT}/configs/"))
    monkeypatch.syspath_prepend(ROOT)
    assert 'weights="DEFAULT"' in program  # of ImageNet, which a test does not download
    exec(program.replace('"DEFAULT"', "None"), {"__name__": "squeezenet"})
    try:
        cfg = load_config(str(tmp_path / "squeezenet.yaml"), [*SMALL, *overrides])
        model = build_model(cfg)
    finally:
        del BACKBONE_REGISTRY._obj_map["build_squeezenet"]
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"proposal_generator", "roi_heads", *([] if overrides else ["backbone"])}
    assert model.roi_heads.box_pooler.reduce.in_channels == 128 + 256 + 512 + 128 * (not overrides)
    # 33 rows and 64 columns become whole cells of 16 pixels.
    losses = train_step(model, make_input(33, 64, boxes=1))
    assert {"loss_cls", "loss_box_reg", "loss_rpn_cls"} <= losses.keys()
    shapes = {n: (each.stride, each.channels) for n, each in model.backbone.output_shape().items()}
    assert [shapes[name] for name in LAYERS] == [(4, 128), (8, 256), (16, 512)]
