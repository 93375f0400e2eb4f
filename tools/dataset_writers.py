"""Labels in each format, for tools/convert_dataset.py and demo.py."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import yaml
from detectron2.structures import BoxMode
from PIL import Image

from ion_d2.data.plain_files import read_yaml
from ion_d2.data.sem_seg import read_label_map
from ion_d2.data.yolo import class_names_of
from ion_d2.errors import IONError
from ion_d2.files import write_result
from ion_lab.scenes.voc_writer import voc_palette

# A dataset dict, with the place of its picture under "written".
Record = dict[str, Any]
ADVICE = "make room or choose another folder"
_ALL_IDS = 256  # of a label map


def write_voc(folder: Path, split: str, classes: Sequence[str], records: list[Record]) -> None:
    """``Annotations``, ``ImageSets/Main/SPLIT.txt``, ``classes.txt`` and ``SegmentationClass``."""
    _write_classes(folder / "classes.txt", classes)
    for record in records:
        root = ET.Element("annotation")
        _texts(root, folder=folder.name, filename=record["written"].name)
        size = ET.SubElement(root, "size")
        _texts(size, width=record["width"], height=record["height"], depth=3)
        for found in record.get("annotations", ()):
            entry = ET.SubElement(root, "object")
            difficult = int(bool(found.get("difficult") or found.get("iscrowd")))
            _texts(entry, name=classes[found["category_id"]], difficult=difficult)
            x0, y0, x1, y1 = _corners(found)
            # VOC counts pixels from 1, the right and bottom one included.
            box = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
            edges = {key: f"{value:.10g}" for key, value in box.items()}
            _texts(ET.SubElement(entry, "bndbox"), **edges)
        if "annotations" in record:
            ET.indent(root)
            path = folder / "Annotations" / f"{record['written'].stem}.xml"
            _write(path, ET.tostring(root, encoding="unicode") + "\n")
        if "sem_seg_file_name" in record:
            _write_label_map(folder / "SegmentationClass" / f"{record['written'].stem}.png", record)
    names = "".join(f"{record['written'].stem}\n" for record in records)
    _write(folder / "ImageSets" / "Main" / f"{split}.txt", names)


def _write_label_map(path: Path, record: Record) -> None:
    """A label map at the picture's size, in VOC's colors."""
    labels = Image.fromarray(read_label_map(record["sem_seg_file_name"], _ALL_IDS))
    small = labels.resize((record["width"], record["height"]), Image.Resampling.NEAREST)
    small.putpalette(voc_palette())
    write_result(str(path), lambda file: small.save(file, "PNG"), ADVICE)


def write_coco(folder: Path, split: str, content: Record, records: list[Record]) -> None:
    """``SPLIT.json``, with the ids of the dataset, whose content of a file is given."""
    names = {str(record["image_id"]): record["written"].name for record in records}
    for image in content["images"]:
        image["file_name"] = names[str(image["id"])]
    _write(folder / f"{split}.json", json.dumps(content))


def write_yolo(folder: Path, split: str, classes: Sequence[str], records: Iterable[Record]) -> None:
    """``labels/SPLIT`` and ``data.yaml``."""
    path = folder / "data.yaml"
    content = (read_yaml(path) if path.exists() else None) or {}
    if content and class_names_of(content, str(path)) != list(classes):
        raise IONError(f"{path} has other classes; write this dataset into another folder.")
    content.setdefault("names", dict(enumerate(classes)))
    for record in records:
        if "annotations" in record:
            lines = [_yolo_line(found, record) for found in record["annotations"]]
            _write(folder / "labels" / split / f"{record['written'].stem}.txt", "".join(lines))
    # Ultralytics takes "path: ." for the working directory, and none for the folder of the file.
    if content.get("path") == ".":
        del content["path"]
    elsewhere = "path" in content
    content[split] = str((folder / "images" / split).resolve()) if elsewhere else f"images/{split}"
    _write(path, yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


def write_labelme(
    folder: Path, split: str, classes: Sequence[str], records: Iterable[Record]
) -> None:
    """A JSON file beside each picture of ``SPLIT``, and ``classes.txt``."""
    _write_classes(folder / split / "classes.txt", classes)
    for record in records:
        shapes: list[Record] = []
        for group, found in enumerate(record.get("annotations", ())):
            outlines = _outlines(found)
            x0, y0, x1, y1 = _corners(found)
            kind, drawn = ("polygon", outlines) if outlines else ("rectangle", [[x0, y0, x1, y1]])
            shapes += [
                {
                    "label": classes[found["category_id"]],
                    "points": [list(point) for point in zip(points[::2], points[1::2])],
                    "group_id": group if len(drawn) > 1 else None,
                    "shape_type": kind,
                    "flags": {},
                }
                for points in drawn
            ]
        content = {"version": "5.0.0", "flags": {}, "shapes": shapes, "imageData": None}
        content["imagePath"] = record["written"].name
        content.update(imageHeight=record["height"], imageWidth=record["width"])
        _write(record["written"].with_suffix(".json"), json.dumps(content, indent=1))


def _yolo_line(found: Record, record: Record) -> str:
    width, height = record["width"], record["height"]
    limits = (width, height)
    outlines = [_clipped(outline, limits) for outline in _outlines(found)]
    if outlines:
        numbers: list[float] = []
        for outline in outlines:
            # Each is closed, so that the way to the next and the way back lie on each other.
            numbers += [*outline, *outline[:2]] if len(outlines) > 1 else outline
        shares = [value / (height if place % 2 else width) for place, value in enumerate(numbers)]
    else:
        x0, y0, x1, y1 = _clipped(_corners(found), limits)
        box = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
        shares = list(box)
    return " ".join([str(found["category_id"]), *(f"{share:.9g}" for share in shares)]) + "\n"


def _clipped(numbers: Sequence[float], limits: Sequence[int]) -> list[float]:
    """Corners x, y, x, y, ... within a picture of such a width and height."""
    return [min(max(value, 0.0), limits[place % 2]) for place, value in enumerate(numbers)]


def _outlines(found: Record) -> list[list[float]]:
    mask = found.get("segmentation")
    return mask if isinstance(mask, list) else []


def _corners(found: Record) -> list[float]:
    return BoxMode.convert(list(map(float, found["bbox"])), found["bbox_mode"], BoxMode.XYXY_ABS)


def _write_classes(path: Path, classes: Sequence[str]) -> None:
    text = "\n".join(classes) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise IONError(f"{path} has other classes; write this dataset into another folder.")
    _write(path, text)


def _texts(parent: ET.Element, **values: Any) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)


def _write(path: Path, text: str) -> None:
    write_result(str(path), lambda file: file.write(text.encode()), ADVICE)
