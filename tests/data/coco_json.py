"""Writes a tiny dataset in COCO's format, whose category ids have gaps."""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

SIZE = (96, 64)  # width, height
# Category id, color: the red objects are class 0, the blue ones class 1.
RED, BLUE = (3, (255, 0, 0)), (7, (0, 0, 255))
# Two pictures for write_coco.
TWO = (
    [(RED, 5, 4, 40, "polygon"), (BLUE, 12, 9, 14, "runs")],
    [(BLUE, 30, 8, 50, "compressed"), (RED, 40, 20, 11, "polygon")],
)


def object_of(kind, x, y, side, form):
    """A square of one color with its mask as "polygon", "runs", "compressed" or None."""
    mask = np.zeros(SIZE[::-1], dtype=np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    segmentation = None
    if form == "polygon":
        segmentation = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    elif form == "compressed":
        counts = mask_util.encode(mask)["counts"].decode()
        segmentation = {"size": list(SIZE[::-1]), "counts": counts}
    elif form == "runs":
        change = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F")])))
        counts = np.diff(np.concatenate([[0], change, [mask.size]]))
        segmentation = {"size": list(SIZE[::-1]), "counts": counts.tolist()}
    entry = {"category_id": kind[0], "bbox": [x, y, side, side], "area": side**2, "iscrowd": 0}
    return {**entry, "segmentation": segmentation} if form else entry


def write_coco(folder, *images):
    """Pictures of squares on white, one list of (kind, x, y, side, form) each; the dataset's name.

    Squares are painted in the order of the list, so a smaller one should come after a larger one.
    """
    (folder / "pictures").mkdir()
    content = {"images": [], "annotations": [], "categories": [
        {"id": BLUE[0], "name": "blue"}, {"id": RED[0], "name": "red"}]}  # fmt: skip
    for number, squares in enumerate(images, start=1):
        picture = Image.new("RGB", SIZE, "white")
        for kind, x, y, side, form in squares:
            picture.paste(Image.new("RGB", (side, side), kind[1]), (x, y))
            entry = {"id": len(content["annotations"]) + 1, "image_id": number}
            content["annotations"].append({**entry, **object_of(kind, x, y, side, form)})
        picture.save(folder / "pictures" / f"{number}.png")
        entry = {"id": number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1]}
        content["images"].append(entry)
    (folder / "all.json").write_text(json.dumps(content))
    return f"coco:{folder}/all.json:{folder}/pictures"


def change_file(name, change):
    """Change the JSON of a dataset, in place or to the one item of what is returned; its path."""
    path = name[len("coco:") :].split(".json")[0] + ".json"
    with open(path) as file:
        content = json.load(file)
    (content,) = change(content) or (content,)
    with open(path, "w") as file:
        json.dump(content, file)
    return path


def every(part, **fields):
    """A change of all entries of a part: to a value, to what a function makes, or away (...)."""

    def change(content):
        for index, entry in enumerate(content[part]):
            for field, value in fields.items():
                if value is ...:
                    del entry[field]
                else:
                    entry[field] = value(entry, index) if callable(value) else value

    return change


def renumber(convert):
    """A change of all ids of images and categories, in both places."""

    ids = {"images": ["id"], "categories": ["id"], "annotations": ["image_id", "category_id"]}

    def change(content):
        for part, fields in ids.items():
            for entry in content[part]:
                entry.update({field: convert(entry[field]) for field in fields})

    return change


def turn(sides):
    """A change of the boxes to ones that start in another corner."""

    def turned(entry, _):
        x, y, width, height = entry["bbox"]
        if "x" in sides:
            x, width = x + width, -width
        if "y" in sides:
            y, height = y + height, -height
        return [x, y, width, height]

    return every("annotations", bbox=turned, area=lambda e, _: e["bbox"][2] * e["bbox"][3])
