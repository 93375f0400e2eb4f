"""Writes a tiny dataset in COCO's format, whose category ids have gaps."""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

SIZE = (96, 64)  # width, height
# Category id, color: the red objects are class 0, the blue ones class 1.
RED, BLUE = (3, (255, 0, 0)), (7, (0, 0, 255))


def object_of(kind, x, y, side, form):
    """A square of one color with its mask as "polygon", "runs", "compressed" or None."""
    mask = np.zeros(SIZE[::-1], dtype=np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    segmentation = None
    if form == "polygon":
        segmentation = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    elif form == "compressed":
        segmentation = {
            "size": list(SIZE[::-1]),
            "counts": mask_util.encode(mask)["counts"].decode(),
        }
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
