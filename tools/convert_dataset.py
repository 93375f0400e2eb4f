"""Write a dataset in another format: PASCAL VOC's, COCO's or YOLO's (Ultralytics).

    python tools/convert_dataset.py labelme:data/labels voc data/voc --split trainval
    python tools/convert_dataset.py voc:data/VOC2007:test yolo data/yolo --split test --link

The dataset is any name that DATASETS.TRAIN takes. Pictures are copied, or linked with --link. What
the format cannot say is counted in a warning: VOC has no outlines, YOLO none of run lengths, and no
difficult objects or crowds. Further splits may be added to a folder with the same classes.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import yaml
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from ion_d2.data import class_names, ensure_registered
from ion_d2.data.coco_datasets import coco_content
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.files import distinct_file_names, write_result

logger = logging.getLogger(__name__)

Record = dict[str, Any]
_ADVICE = "make room or choose another folder"


def write_voc(folder: Path, split: str, dataset: str, records: list[Record]) -> None:
    """``Annotations``, ``ImageSets/Main/SPLIT.txt`` and ``classes.txt``."""
    classes = class_names([dataset])
    _write(folder / "classes.txt", _same_classes(folder / "classes.txt", "\n".join(classes) + "\n"))
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
    names = "".join(f"{record['written'].stem}\n" for record in records)
    _write(folder / "ImageSets" / "Main" / f"{split}.txt", names)


def write_coco(folder: Path, split: str, dataset: str, records: list[Record]) -> None:
    """``SPLIT.json``, with the ids of the dataset."""
    content = coco_content(dataset)
    names = {str(record["image_id"]): record["written"].name for record in records}
    for image in content["images"]:
        image["file_name"] = names[str(image["id"])]
    _write(folder / f"{split}.json", json.dumps(content))


def write_yolo(folder: Path, split: str, dataset: str, records: list[Record]) -> None:
    """``labels/SPLIT`` and ``data.yaml``."""
    path, names = folder / "data.yaml", dict(enumerate(class_names([dataset])))
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    if content.setdefault("names", names) != names:
        raise IONError(f"{path} has other classes; write this dataset into another folder.")
    for record in records:
        if "annotations" in record:
            lines = [_yolo_line(found, record) for found in record["annotations"]]
            _write(folder / "labels" / split / f"{record['written'].stem}.txt", "".join(lines))
    content.update({"path": ".", split: f"images/{split}"})
    _write(path, yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


# For each format: what writes it, where its pictures lie, and which suffixes they may have.
_FORMATS = {
    "voc": (write_voc, "JPEGImages", (".jpg", ".jpeg", ".png")),
    "coco": (write_coco, "{split}", ()),
    "yolo": (write_yolo, "images/{split}", ()),
}


def convert(dataset: str, form: str, folder: Path, split: str, *, link: bool = False) -> None:
    """Write a dataset and its pictures; see the module.

    Raises:
        IONError: it cannot be read or written, or the folder holds other classes.
    """
    ensure_registered([dataset])
    # Not the dataset's own dicts, which get a key.
    records = [dict(record) for record in DatasetCatalog.get(dataset)]
    write, place, suffixes = _FORMATS[form]
    stems = distinct_file_names([Path(record["file_name"]).stem for record in records])
    for record, stem in zip(records, stems):
        picture = Path(record["file_name"])
        if suffixes and picture.suffix.lower() not in suffixes:
            raise IONError(
                f"{picture} is no {' or '.join(suffixes)} picture, as this format wants; convert "
                "the picture first."
            )
        target = folder / place.format(split=split) / f"{stem}{picture.suffix}"
        record["written"] = _place(picture.resolve(), target, link=link)
    write(folder, split, dataset, records)
    _warn_of_loss(form, records)


def _place(picture: Path, target: Path, *, link: bool) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.unlink(missing_ok=True)
            target.symlink_to(picture)
        elif not (target.exists() and target.samefile(picture)):
            shutil.copy2(picture, target)
    except OSError as error:
        raise IONError(f"{target} cannot be written ({error.strerror}); {_ADVICE}.") from error
    return target


def _yolo_line(found: Record, record: Record) -> str:
    width, height = record["width"], record["height"]
    outlines = found.get("segmentation")
    if isinstance(outlines, list) and outlines:
        numbers: list[float] = []
        for outline in outlines:
            # Each is closed, so that the way to the next and the way back lie on each other.
            numbers += [*outline, *outline[:2]] if len(outlines) > 1 else outline
        shares = [value / (height if place % 2 else width) for place, value in enumerate(numbers)]
    else:
        x0, y0, x1, y1 = _corners(found)
        box = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
        shares = list(box)
    return " ".join([str(found["category_id"]), *(f"{share:.9g}" for share in shares)]) + "\n"


def _corners(found: Record) -> list[float]:
    return BoxMode.convert(list(map(float, found["bbox"])), found["bbox_mode"], BoxMode.XYXY_ABS)


def _warn_of_loss(form: str, records: Sequence[Record]) -> None:
    lost: Counter[str] = Counter()
    for found in (found for record in records for found in record.get("annotations", ())):
        lost["outlines"] += form == "voc" and bool(found.get("segmentation"))
        lost["run lengths"] += form == "yolo" and isinstance(found.get("segmentation"), dict)
        lost["keypoints"] += form != "coco" and bool(found.get("keypoints"))
        lost["crowds and difficult objects as such"] += form == "yolo" and bool(
            found.get("iscrowd") or found.get("difficult")
        )
    for what, count in lost.items():
        if count:
            logger.warning("The %s of %d object(s) are lost.", what, count)


def _same_classes(path: Path, text: str) -> str:
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise IONError(f"{path} has other classes; write this dataset into another folder.")
    return text


def _texts(parent: ET.Element, **values: Any) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)


def _write(path: Path, text: str) -> None:
    write_result(str(path), lambda file: file.write(text.encode()), _ADVICE)


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="voc:PATH:SPLIT, coco:JSON:IMAGE_DIR, labelme:DIR, ...")
    parser.add_argument("format", choices=list(_FORMATS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="train", help="its name there (default: %(default)s)")
    parser.add_argument("--link", action="store_true", help="link the pictures, do not copy them")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its arguments; None takes them from the command line.

    Raises:
        IONError: bad input.
    """
    args = build_parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    convert(args.dataset, args.format, args.folder, args.split, link=args.link)
    folder, split = args.folder, args.split
    names = {
        "voc": f"voc:{folder}:{split}",
        "coco": f"coco:{folder / split}.json:{folder / split}",
        "yolo": f"yolo:{folder / 'data.yaml'}:{split}",
    }
    print(f"Wrote {names[args.format]}")


if __name__ == "__main__":
    run_cli(functools.partial(main, sys.argv[1:]))
