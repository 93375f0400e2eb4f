"""Train, evaluate, predict and export a config with Detectron2's own classes, without our engine.

python tests/plain_detectron2.py FOLDER KEY VALUE ...; FOLDER holds config.yaml and the results.
"""

import os
import sys

import cv2
import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, SemSegEvaluator
from detectron2.export import TracingAdapter
from detectron2.structures import BoxMode

import ion_d2.modeling  # noqa: F401  (registers ION's parts)
from ion_d2.config import add_ion_config
from ion_d2.export import export_detector, load_exported

FOLDER, OPTS = sys.argv[1], sys.argv[2:]


def squares():
    """Three pictures with a square each, its mask and a gray label map, which Detectron2 reads."""
    dicts = []
    for i in range(3):
        path = os.path.join(FOLDER, f"{i}.png")
        picture, labels = np.full((64, 80, 3), 90, np.uint8), np.zeros((64, 80), np.uint8)
        picture[8 : 40 + i, 8:40], labels[8 : 40 + i, 8:40] = (200, 30, 30), 1
        cv2.imwrite(path, picture)
        cv2.imwrite(path + ".labels.png", labels)
        box = {"bbox": [8, 8, 40, 40 + i], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        dicts.append(
            {"file_name": path, "image_id": i, "height": 64, "width": 80, "annotations": [box],
             "sem_seg_file_name": path + ".labels.png"}
        )  # fmt: skip
    return dicts


class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, name):
        boxes = COCOEvaluator(name, distributed=False, output_dir=FOLDER, use_fast_impl=False)
        labels = SemSegEvaluator(name, distributed=False)
        return DatasetEvaluators([boxes, labels] if cfg.TEST.SEM_SEG else [boxes])


DatasetCatalog.register("squares", squares)
classes = {"thing_classes": ["square"], "stuff_classes": ["ground", "square"], "ignore_label": 255}
MetadataCatalog.get("squares").set(**classes)
cfg = get_cfg()
add_ion_config(cfg)
cfg.merge_from_file("configs/ion_tiny.yaml")
cfg.merge_from_list([*OPTS, "DATASETS.TRAIN", ("squares",), "DATASETS.TEST", ("squares",)])
cfg.OUTPUT_DIR = FOLDER

trainer = Trainer(cfg)
trainer.resume_or_load(resume=False)
trainer.train()
results = trainer._last_eval_results
assert "AP50" in results["bbox"] and ("sem_seg" in results) == cfg.TEST.SEM_SEG, results

cfg.MODEL.WEIGHTS = os.path.join(FOLDER, "model_final.pth")
image = cv2.imread(os.path.join(FOLDER, "0.png"))
predictor = DefaultPredictor(cfg)
found = predictor(image)
assert found["instances"].pred_boxes.tensor.shape[1] == 4
assert not cfg.TEST.SEM_SEG or found["sem_seg"].shape == (2, 64, 80)

# As Detectron2's train_net.py --eval-only does.
model = Trainer.build_model(cfg)
DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
again = Trainer.test(cfg, model)
np.testing.assert_equal(again["bbox"], results["bbox"])

tensor = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
if cfg.TEST.SEM_SEG:
    path = os.path.join(FOLDER, "detector.ts")
    export_detector(model.eval(), path, {})
    boxes = torch.as_tensor(load_exported(path)(tensor)[0])
else:
    with torch.no_grad():
        adapter = TracingAdapter(
            model.eval(), [{"image": tensor}], lambda m, x: m.inference(x, do_postprocess=False)
        )
        boxes = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)(tensor)[0]
with torch.no_grad():
    expected = model.inference([{"image": tensor}], do_postprocess=False)[0].pred_boxes.tensor
assert torch.allclose(boxes, expected, atol=1e-3)

engine = [name for name in sys.modules if name.startswith("ion_d2.engine")]
assert not engine, engine
