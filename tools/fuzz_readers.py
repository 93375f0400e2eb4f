"""What tools/fuzz.py and tests/test_fuzz.py have in common: the readers, and inputs for them.

An input is a sound file with something done to it: to the values of its format, or to its bytes.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import scipy.io
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import strategies as st
from PIL import Image

from ion_d2.data import ensure_registered
from ion_d2.data.proposals import read_proposals
from ion_d2.data.proposals.mat import read_mat
from ion_d2.data.proposals.text import read_csv, read_json
from ion_d2.data.readable import read_image
from ion_d2.data.sem_seg import read_label_map
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_lab.report.training_curves import read_metrics
from ion_lab.study.figures import read_figures

Draw = Callable[[Any], Any]
SECONDS = 1.0
_ODD = [
    None, True, 0, -1, 1, 2**31, 2**63, -(10**400), 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", " ", "0", "nan", "1e999", "\0", "a\nb", "\ud800", "\u202e", "é", "e\u0301", "../../x",
    "/dev/zero", "<b>", "x" * 5000, [], {}, [[]], [None], {"": None}, [0] * 4, [0] * 5, [1e300] * 6,
]  # fmt: skip
_TOKENS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b"-", b"9" * 400, b"[" * 3000, b"<a>", b"nan", b"../",
]  # fmt: skip
_ACTIONS = ["odd", "odd", "any", "remove", "repeat", "wrap", "deep", "number"]


class Reader(NamedTuple):
    """A reader, and how its input is made."""

    write: Callable[[Path], Path]  # a sound dataset into a folder; returns the file to change
    read: Callable[[Path], Any]
    values: Callable[[bytes], Any]  # of the file's content
    content: Callable[[Any], bytes]  # and back


@st.composite
def inputs(draw: Draw, reader: Reader, sound: bytes) -> bytes:
    """Contents of a file, one to four changes away from a sound one."""
    content = sound
    if draw(st.integers(0, 2)):
        tree = [reader.values(sound)]
        for _ in range(draw(st.integers(1, 3))):
            _change(tree, draw)
        try:
            content = reader.content(tree[0])
        except Exception:  # what the format cannot say; its bytes can still be wrong
            content = sound
    if content == sound or not draw(st.integers(0, 3)):
        content = _damaged(content, draw)
    return content


def check(reader: Reader, path: Path, content: bytes) -> None:
    """Read a content, which must succeed or raise an IONError of one line, in a second of CPU."""
    path.write_bytes(content)
    start = time.process_time()
    try:
        reader.read(path)
    except IONError as error:
        assert "\n" not in str(error), f"more than a line: {error}"
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"it took {seconds:.1f} s"


def _change(tree: Any, draw: Draw) -> None:
    """Replace, remove, repeat or wrap one of the values of a tree of lists and dicts."""
    places = list(_places(tree))
    parent, key = draw(st.sampled_from(places))
    action = draw(st.sampled_from(_ACTIONS))
    if action == "remove" and parent is not tree:
        del parent[key]
    elif action == "repeat" and isinstance(parent, list) and parent is not tree:
        parent.insert(key, copy.deepcopy(parent[key]))
    elif action == "wrap":
        parent[key] = [parent[key]]
    elif action == "deep":
        for _ in range(draw(st.sampled_from([3, 40, 200]))):
            parent[key] = [parent[key]]
    elif action == "number":
        parent[key] = draw(st.integers() | st.floats())
    elif action == "any":
        plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
        parent[key] = draw(
            st.recursive(plain, lambda part: st.lists(part, max_size=5), max_leaves=6)
        )
    else:
        parent[key] = copy.deepcopy(draw(st.sampled_from(_ODD)))


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, (dict, list)) and value:
            yield from _places(value)


def _damaged(content: bytes, draw: Draw) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        action = draw(st.sampled_from(["flip", "flip", "cut", "drop", "token", "double", "utf-16"]))
        if action == "flip" and changed:
            changed[place] = draw(st.integers(0, 255))
        elif action == "cut":
            del changed[place:]
        elif action == "drop":
            del changed[place : place + draw(st.integers(1, 40))]
        elif action == "token":
            changed[place:place] = draw(st.sampled_from(_TOKENS))
        elif action == "double":
            changed[place:place] = changed[place : place + 200]
        elif action == "utf-16":
            changed = bytearray(changed.decode("latin1").encode("utf-16"))
    return bytes(changed)


# Files as trees of values.


def _lines(content: bytes) -> Any:
    return [line.split(" ") for line in content.decode().splitlines()]


def _of_lines(tree: Any) -> bytes:
    return "\n".join(" ".join(map(str, line)) for line in tree).encode()


def _xml(content: bytes) -> Any:
    def values(element: ET.Element) -> Any:
        return [element.tag, [values(part) for part in element] or element.text]

    return values(ET.fromstring(content))


def _of_xml(tree: Any) -> bytes:
    def text(element: Any) -> str:
        if isinstance(element, list) and len(element) == 2 and isinstance(element[0], str):
            tag, inside = element
            return f"<{tag}>{text(inside)}</{tag}>"
        if isinstance(element, list):
            return "".join(map(text, element))
        return str(element)

    return text(tree).encode()


def _json(content: bytes) -> Any:
    return json.loads(content)


def _of_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _of_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree).encode()


def _mat(content: bytes) -> Any:
    read = scipy.io.loadmat(io.BytesIO(content))
    return {key: value for key, value in read.items() if not key.startswith("__")}


def _of_mat(tree: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, tree, do_compression=True)
    return file.getvalue()


def _torch(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=False)


def _of_torch(tree: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def _safetensors(content: bytes) -> Any:
    length = int.from_bytes(content[:8], "little")
    return [json.loads(content[8 : 8 + length]), content[8 + length :].hex()]


def _of_safetensors(tree: Any) -> bytes:
    header = json.dumps(tree[0]).encode()
    return len(header).to_bytes(8, "little") + header + bytes.fromhex(tree[1])


# Sound files.


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
    return _text(folder / "a.mat", _of_mat(content))


def _label_mat(folder: Path) -> Path:
    content = {"GTcls": {"Segmentation": np.ones((4, 5), np.uint8), "Boundaries": [1, 2]}}
    return _text(folder / "a.mat", _of_mat(content))


def _checkpoint(folder: Path) -> Path:
    state = {"weight": torch.ones(4, 4), "bias": torch.zeros(4)}
    content = {"model": state, "class_names": ["cat", "dog"], "iteration": 7}
    content["ema"] = {f"module.{key}": value for key, value in state.items()}
    return _text(folder / "a.pth", _of_torch(content))


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


_by_split = {"read": lambda path: _load(f"voc:{_root(path)}:train"), "values": _lines,
             "content": _of_lines}  # fmt: skip


def _root(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / "JPEGImages").is_dir())


def _of_json_file(write: Callable[[Path], Path], read: Callable[[Path], Any]) -> Reader:
    return Reader(write, read, _json, _of_json)


READERS = {
    "voc": Reader(_voc, _by_split["read"], _xml, _of_xml),
    "split": Reader(_voc_file("ImageSets/Main/train.txt"), **_by_split),
    "classes": Reader(_voc_file("classes.txt"), **_by_split),
    "coco": _of_json_file(_coco, lambda path: _load(f"coco:{path}:{path.parent}")),
    "yolo": Reader(_yolo, lambda path: _load(f"yolo:{path}:train"), yaml.safe_load, _of_yaml),
    "yolo-labels": Reader(
        _yolo_labels,
        lambda path: _load(f"yolo:{path.parents[1] / 'data.yaml'}:train"),
        _lines,
        _of_lines,
    ),
    "labelme": _of_json_file(_labelme, lambda path: _load(f"labelme:{path.parent}")),
    "detections": _of_json_file(_detections, lambda path: _load(f"detections:{path}")),
    "proposals": Reader(_proposals, read_proposals, pickle.loads, pickle.dumps),
    "proposals-mat": Reader(_mat_file, lambda path: read_mat(path, "fast-rcnn"), _mat, _of_mat),
    "proposals-csv": Reader(
        lambda folder: _text(folder / "a.csv", "image_id,x0,y0,x1,y1,score\na,1,2,9,9,0.5\n"),
        read_csv,
        lambda content: [line.split(",") for line in content.decode().splitlines()],
        lambda tree: "\n".join(",".join(map(str, line)) for line in tree).encode(),
    ),
    "proposals-json": _of_json_file(
        lambda folder: _text(
            folder / "a.json", '[{"image_id": 1, "bbox": [1, 2, 9, 9], "score": 1}]'
        ),
        read_json,
    ),
    "label-map-mat": Reader(_label_mat, lambda path: read_label_map(path, 3), _mat, _of_mat),
    "checkpoint": Reader(_checkpoint, _load_checkpoint, _torch, _of_torch),
    "checkpoint-pkl": Reader(_zoo, _load_checkpoint, pickle.loads, pickle.dumps),
    "safetensors": Reader(_tensors, _load_checkpoint, _safetensors, _of_safetensors),
    "config": Reader(_config, lambda path: load_config(str(path)), yaml.safe_load, _of_yaml),
    "results": _of_json_file(
        lambda folder: _text(folder / "voc_results.json", json.dumps(_FIGURES)),
        lambda path: read_figures(path, {"AP50": "classes/*/area/AP50"}),
    ),
    "metrics": Reader(
        lambda folder: _text(folder / "metrics.json", '{"iteration": 1, "total_loss": 2.0}\n'),
        lambda path: read_metrics(str(path)),
        lambda content: [json.loads(line) for line in content.splitlines()],
        lambda tree: b"\n".join(map(_of_json, tree)),
    ),
    "picture": Reader(
        lambda folder: _picture(folder / "a.png"),
        lambda path: read_image(str(path), "BGR"),
        lambda content: list(content),
        lambda tree: bytes(tree),
    ),
}
