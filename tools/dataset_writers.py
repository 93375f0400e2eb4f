"""Labels in each format, for tools/convert_dataset.py and demo.py: files, not written yet."""

from __future__ import annotations

import io
import itertools
import json
import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import yaml
from detectron2.structures import BoxMode
from PIL import Image

from ion_d2.data.class_file import class_file_text, read_class_file
from ion_d2.data.outlines import corners_of, outline_boxes, outline_inside
from ion_d2.data.plain_files import read_yaml
from ion_d2.data.sem_seg import read_label_map
from ion_d2.data.yolo import NO_SPLITS, class_names_of
from ion_d2.errors import IONError
from ion_d2.files import write_result
from ion_lab.scenes.voc_writer import voc_palette

# A dataset dict, with the place of its picture under "written".
Record = dict[str, Any]
Files = Iterator[tuple[Path, bytes]]  # and what each is to hold
ADVICE = "make room or choose another folder"
DATA_FILE = "data.yaml"  # of YOLO's layout, to which splits are added
_ALL_IDS = 256  # of a label map


def write_files(files: Iterable[tuple[Path, bytes]]) -> None:
    """Write files, those that are there anew.

    Raises:
        IONError: one cannot be written.
    """
    for path, content in files:
        write_result(str(path), operator.methodcaller("write", content), ADVICE)


def voc_files(folder: Path, split: str, classes: Sequence[str], records: list[Record]) -> Files:
    """``Annotations``, ``ImageSets/Main/SPLIT.txt``, ``classes.txt`` and ``SegmentationClass``."""
    yield _class_file(folder / "classes.txt", classes)
    for record in records:
        root = ET.Element("annotation")
        _texts(root, folder=folder.name, filename=record["written"].name)
        size = ET.SubElement(root, "size")
        _texts(size, width=record["width"], height=record["height"], depth=3)
        for found in record.get("annotations", ()):
            entry = ET.SubElement(root, "object")
            difficult = int(bool(found.get("difficult") or found.get("iscrowd")))
            _texts(entry, name=classes[found["category_id"]], difficult=difficult)
            x0, y0, x1, y1 = corners_of(found)
            # VOC counts pixels from 1, the right and bottom one included.
            box = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
            edges = {key: f"{value:.10g}" for key, value in box.items()}
            _texts(ET.SubElement(entry, "bndbox"), **edges)
        if "annotations" in record:
            ET.indent(root)
            path = folder / "Annotations" / f"{record['written'].stem}.xml"
            yield path, ET.tostring(root, encoding="unicode").encode() + b"\n"
        if "sem_seg_file_name" in record:
            path = folder / "SegmentationClass" / f"{record['written'].stem}.png"
            yield path, _label_map(record)
    names = "".join(f"{record['written'].stem}\n" for record in records)
    yield folder / "ImageSets" / "Main" / f"{split}.txt", names.encode()


def _label_map(record: Record) -> bytes:
    """The PNG of a label map at the picture's size, in VOC's colors."""
    labels = Image.fromarray(read_label_map(record["sem_seg_file_name"], _ALL_IDS))
    small = labels.resize((record["width"], record["height"]), Image.Resampling.NEAREST)
    small.putpalette(voc_palette())
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()


def coco_files(folder: Path, split: str, content: Record, records: list[Record]) -> Files:
    """``SPLIT.json`` of the content given; image ids that are text become numbers."""
    names = {str(record["image_id"]): record["written"].name for record in records}
    ids = [image["id"] for image in content["images"]]
    numbered = all(isinstance(each, int) for each in ids)
    numbers = dict(zip(ids, ids if numbered else range(1, len(ids) + 1)))
    images = [
        {**image, "id": numbers[image["id"]], "file_name": names[str(image["id"])]}
        for image in content["images"]
    ]
    content = {**content, "images": images}
    if "annotations" in content:
        found = content["annotations"]
        content["annotations"] = [{**it, "image_id": numbers[it["image_id"]]} for it in found]
    yield (
        folder / f"{split}.json",
        json.dumps(content, default=operator.methodcaller("tolist")).encode(),
    )


def yolo_files(
    folder: Path, split: str, classes: Sequence[str], records: Iterable[Record]
) -> Files:
    """``labels/SPLIT`` and ``data.yaml``."""
    content = _data_of(folder, split, classes)
    for record in records:
        if "annotations" in record:
            lines = [_yolo_line(found, record) for found in _alike(record["annotations"])]
            path = folder / "labels" / split / f"{record['written'].stem}.txt"
            yield path, "".join(lines).encode()
    yield folder / DATA_FILE, yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode()


def _data_of(folder: Path, split: str, classes: Sequence[str]) -> Record:
    """The content of ``data.yaml`` with a split more."""
    path, pictures = folder / DATA_FILE, (folder / "images" / split).resolve()
    if split in NO_SPLITS:
        raise IONError(f"{path} has another use for '{split}'; choose another --split.")
    content = (read_yaml(path) if path.exists() else None) or {}
    if content and class_names_of(content, str(path)) != list(classes):
        raise IONError(f"{path} has other classes; write this dataset into another folder.")
    content.setdefault("names", dict(enumerate(classes)))
    # Ultralytics takes "path: ." for the working directory, and none for the folder of the file.
    if content.get("path") == ".":
        del content["path"]
    start, there = str(content.get("path") or ""), content.get(split)
    if there and (folder / start / str(there)).resolve() != pictures:
        raise IONError(f"{path} has another split '{split}', {there}; choose another --split.")
    content[split] = str(pictures) if "path" in content else f"images/{split}"
    return content


def labelme_files(
    folder: Path, split: str, classes: Sequence[str], records: Iterable[Record]
) -> Files:
    """A JSON file beside each picture of ``SPLIT``, and ``classes.txt``."""
    yield _class_file(folder / split / "classes.txt", classes)
    for record in records:
        shapes: list[Record] = []
        for group, found in enumerate(record.get("annotations", ())):
            outlines = _outlines(found)
            x0, y0, x1, y1 = corners_of(found)
            kind, drawn = ("polygon", outlines) if outlines else ("rectangle", [[x0, y0, x1, y1]])
            shapes += [
                {
                    "label": classes[found["category_id"]],
                    "points": [list(point) for point in zip(points[::2], points[1::2])],
                    "group_id": group if len(drawn) > 1 else None,
                    "shape_type": kind,
                    "flags": {},
                    **({"difficult": True} if found.get("difficult") else {}),
                }
                for points in drawn
            ]
        content = {"version": "5.0.0", "flags": {}, "shapes": shapes, "imageData": None}
        content["imagePath"] = record["written"].name
        content.update(imageHeight=record["height"], imageWidth=record["width"])
        yield record["written"].with_suffix(".json"), json.dumps(content, indent=1).encode()


def _alike(annotations: Iterable[Record]) -> list[Record]:
    """All objects of a picture with outlines or all with boxes: Ultralytics knows no mixture."""
    objects: list[Record] = []
    for found in annotations:
        box = {"bbox": corners_of(found), "bbox_mode": BoxMode.XYXY_ABS}
        drawn = {"segmentation": outlines} if (outlines := _outlines(found)) else {}
        objects.append({"category_id": found["category_id"], **box, **drawn})
    outline_boxes([{"annotations": objects}])
    return objects


def _yolo_line(found: Record, record: Record) -> str:
    width, height = record["width"], record["height"]
    limits, outlines = (width, height), _outlines(found)
    if outlines:
        inside = (outline_inside(outline, (height, width)).ravel() for outline in outlines)
        numbers = _joined([*filter(len, inside)] or [clipped(each, limits) for each in outlines])
        shares = [value / (height if place % 2 else width) for place, value in enumerate(numbers)]
    else:
        x0, y0, x1, y1 = clipped(corners_of(found), limits)
        box = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
        shares = list(box)
    return " ".join([str(found["category_id"]), *(f"{share:.9g}" for share in shares)]) + "\n"


def _joined(outlines: Sequence[Any]) -> list[float]:
    """One outline of several: each in turn, closed, and back from start to start.

    So the ways between them, gone there and back, enclose nothing.
    """
    if len(outlines) == 1:
        return [*outlines[0]]
    closed = ([*outline, *outline[:2]] for outline in outlines)
    back = (outline[:2] for outline in reversed(outlines[1:-1]))
    return [*itertools.chain(*closed, *back)]


def clipped(numbers: Sequence[float], limits: Sequence[int]) -> list[float]:
    """Corners x, y, x, y, ... within a picture of such a width and height."""
    return [min(max(value, 0.0), limits[place % 2]) for place, value in enumerate(numbers)]


def _outlines(found: Record) -> list[list[float]]:
    mask = found.get("segmentation")
    return mask if isinstance(mask, list) else []


def _class_file(path: Path, classes: Sequence[str]) -> tuple[Path, bytes]:
    if not path.exists():
        return path, class_file_text(classes).encode()
    if read_class_file(str(path)) != list(classes):
        raise IONError(f"{path} has other classes; write this dataset into another folder.")
    return path, path.read_bytes()


def _texts(parent: ET.Element, **values: Any) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)
