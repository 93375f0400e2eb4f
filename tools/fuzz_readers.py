"""The readers that tools/fuzz.py tries: for each a sound file, and what reads it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from fuzz_changes import Reader
from fuzz_formats import (
    BYTES,
    CSV,
    JSON,
    JSON_LINES,
    LINES,
    MAT,
    PICKLE,
    SAFETENSORS,
    TORCH,
    XML,
    YAML,
)
from PIL import Image
from proposals_mat import read_mat
from proposals_text import read_csv, read_json

from ion_d2.data import ensure_registered
from ion_d2.data.proposals import read_proposals
from ion_d2.data.readable import read_image
from ion_d2.data.sem_seg import read_label_map
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import load_config
from ion_lab.report.training_curves import read_metrics
from ion_lab.study.figures import read_figures


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def _text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


_BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"
_VOC = f"""<annotation><folder>VOC2007</folder><size><width>40</width><height>30</height></size>
<object><name>cat</name><difficult>0</difficult>{_BOX}</object></annotation>"""
_COCO = {
    "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog", "keypoints": ["nose"]}],
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9], "area": 40, "iscrowd": 0,
         "segmentation": [[1, 2, 9, 2, 9, 9]]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [1, 2, 9, 9], "keypoints": [3, 4, 2],
         "segmentation": {"size": [30, 40], "counts": [100, 20, 1080]}},
    ],
}  # fmt: skip
_SHAPES = [
    {"label": "cat", "shape_type": kind, "points": points, "group_id": None}
    for kind, points in (("polygon", [[1, 2], [9, 2], [9, 9]]), ("circle", [[9, 9], [9, 12]]))
]
_FOUND = {"class": "cat", "class_id": 0, "score": 0.5, "box": [1, 2, 9, 9]}
_FIGURES = {"classes": {"cat": {"area": {"AP50": 50.0}}}, "mean": {"area": {"AP50": 50.0}}}


def _voc(folder: Path) -> Path:
    _picture(folder / "JPEGImages" / "a.png")
    _text(folder / "ImageSets" / "Main" / "train.txt", "a\n")
    _text(folder / "classes.txt", "# two\ncat\ndog\n")
    return _text(folder / "Annotations" / "a.xml", _VOC)


def _voc_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        _voc(folder)
        return folder / name

    return write


def _coco(folder: Path) -> Path:
    _picture(folder / "a.png")
    return _text(folder / "a.json", json.dumps(_COCO))


def _yolo(folder: Path) -> Path:
    _picture(folder / "images" / "a.png")
    _text(folder / "labels" / "a.txt", "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.5 0.1 0.5 0.5\n")
    content = {"path": ".", "train": ["images"], "names": {0: "cat", 1: "dog"}}
    return _text(folder / "data.yaml", yaml.safe_dump(content))


def _yolo_labels(folder: Path) -> Path:
    _yolo(folder)
    return folder / "labels" / "a.txt"


def _labelme(folder: Path) -> Path:
    _picture(folder / "a.png")
    content = {"version": "5", "shapes": _SHAPES, "imagePath": "a.png", "imageData": None}
    return _text(folder / "a.json", json.dumps(content))


def _detections(folder: Path) -> Path:
    _text(folder / "a.classes.txt", "cat\ndog\n")
    picture = {"file": str(_picture(folder / "a.png")), "width": 40, "height": 30}
    return _text(folder / "a.json", json.dumps([{**picture, "detections": [_FOUND]}]))


def _proposals(folder: Path) -> Path:
    boxes = np.array([[1, 2, 9, 9], [3, 4, 8, 9]], np.float32)
    content = {"ids": ["a", 7], "boxes": [boxes, boxes], "bbox_mode": 0}
    content["objectness_logits"] = [np.ones(2, np.float32), np.zeros(2, np.float32)]
    return _text(folder / "a.pkl", pickle.dumps(content))


def _mat_file(folder: Path) -> Path:
    cells = np.empty(2, dtype=object)
    cells[:] = [np.array([[1, 2, 9, 9]], np.uint16)] * 2
    content = {"boxes": cells, "images": np.array(["a", "b"], dtype=object)}
    return _text(folder / "a.mat", MAT.content(content))


def _label_mat(folder: Path) -> Path:
    content = {"GTcls": {"Segmentation": np.ones((4, 5), np.uint8), "Boundaries": [1, 2]}}
    return _text(folder / "a.mat", MAT.content(content))


def _checkpoint(folder: Path) -> Path:
    state = {"weight": torch.ones(4, 4), "bias": torch.zeros(4)}
    content = {"model": state, "class_names": ["cat", "dog"], "iteration": 7}
    content["ema"] = {f"module.{key}": value for key, value in state.items()}
    return _text(folder / "a.pth", TORCH.content(content))


def _zoo(folder: Path) -> Path:
    state = {"weight": np.ones((4, 4), np.float32), "bias": np.zeros(4, np.float32)}
    content = {"model": state, "__author__": "x", "matching_heuristics": True}
    return _text(folder / "a.pkl", pickle.dumps(content))


def _tensors(folder: Path) -> Path:
    from safetensors.torch import save

    state = {"weight": torch.ones(4, 4), "bias": torch.zeros(4)}
    return _text(folder / "a.safetensors", save(state, {"class_names": '["cat"]'}))


def _config(folder: Path) -> Path:
    content = {"MODEL": {"WEIGHTS": "", "CONTEXT": {"HIDDEN_DIM": 8}}, "SEED": 3, "VERSION": 2}
    return _text(folder / "a.yaml", yaml.safe_dump(content))


def _load(name: str) -> None:
    """Read a dataset by its name, as a program does."""
    try:
        ensure_registered([name])
        DatasetCatalog.get(name)
    finally:
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.pop(name, None)


def _load_checkpoint(path: Path) -> None:
    IONCheckpointer(torch.nn.Linear(4, 4), classes=["cat", "dog"]).load(str(path))


def _load_split(path: Path) -> None:
    _load(f"voc:{_root(path)}:train")


def _root(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / "JPEGImages").is_dir())


READERS = {
    "voc": Reader(_voc, _load_split, XML),
    "split": Reader(_voc_file("ImageSets/Main/train.txt"), _load_split, LINES),
    "classes": Reader(_voc_file("classes.txt"), _load_split, LINES),
    "coco": Reader(_coco, lambda path: _load(f"coco:{path}:{path.parent}"), JSON),
    "yolo": Reader(_yolo, lambda path: _load(f"yolo:{path}:train"), YAML),
    "yolo-labels": Reader(
        _yolo_labels,
        lambda path: _load(f"yolo:{path.parents[1] / 'data.yaml'}:train"),
        LINES,
    ),
    "labelme": Reader(_labelme, lambda path: _load(f"labelme:{path.parent}"), JSON),
    "detections": Reader(_detections, lambda path: _load(f"detections:{path}"), JSON),
    "proposals": Reader(_proposals, read_proposals, PICKLE),
    "proposals-mat": Reader(_mat_file, lambda path: read_mat(path, "fast-rcnn"), MAT),
    "proposals-csv": Reader(
        lambda folder: _text(folder / "a.csv", "image_id,x0,y0,x1,y1,score\na,1,2,9,9,0.5\n"),
        read_csv,
        CSV,
    ),
    "proposals-json": Reader(
        lambda folder: _text(
            folder / "a.json", '[{"image_id": 1, "bbox": [1, 2, 9, 9], "score": 1}]'
        ),
        read_json,
        JSON,
    ),
    "label-map-mat": Reader(_label_mat, lambda path: read_label_map(path, 3), MAT),
    "checkpoint": Reader(_checkpoint, _load_checkpoint, TORCH),
    "checkpoint-pkl": Reader(_zoo, _load_checkpoint, PICKLE),
    "safetensors": Reader(_tensors, _load_checkpoint, SAFETENSORS),
    "config": Reader(_config, lambda path: load_config(str(path)), YAML),
    "results": Reader(
        lambda folder: _text(folder / "voc_results.json", json.dumps(_FIGURES)),
        lambda path: read_figures(path, {"AP50": "classes/*/area/AP50"}),
        JSON,
    ),
    "metrics": Reader(
        lambda folder: _text(folder / "metrics.json", '{"iteration": 1, "total_loss": 2.0}\n'),
        lambda path: read_metrics(str(path)),
        JSON_LINES,
    ),
    "picture": Reader(
        lambda folder: _picture(folder / "a.png"),
        lambda path: read_image(str(path), "BGR"),
        BYTES,
    ),
}
