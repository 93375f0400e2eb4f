"""Pictures, label maps, boxes and outlines at a smaller size, for tools/convert_dataset.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_writers import ADVICE, Record
from detectron2.structures import BoxMode
from PIL import Image

from ion_d2.data.readable import read_image, read_size
from ion_d2.files import write_result

QUALITY = 85  # of JPEG files


def make_smaller(record: Record, short_side: int) -> None:
    """Change a dataset dict to a picture of such a short side; smaller ones stay as they are.

    Outlines are scaled; masks of run lengths are left out.

    Args:
        record: the dict, with its size.
        short_side: in pixels; the long side follows, rounded.
    """
    old = np.array([record["width"], record["height"]])
    new = np.maximum(np.rint(old * min(1.0, short_side / old.min())), 1).astype(int)
    record["width"], record["height"] = new.tolist()
    if "annotations" in record:
        record["annotations"] = [_scaled(each, new / old) for each in record["annotations"]]


def _scaled(found: Record, factor: np.ndarray) -> Record:
    corners = BoxMode.convert(list(found["bbox"]), found["bbox_mode"], BoxMode.XYXY_ABS)
    box = {"bbox": (corners * np.tile(factor, 2)).tolist(), "bbox_mode": BoxMode.XYXY_ABS}
    outlines = found.get("segmentation")
    if isinstance(outlines, list):
        scaled = [(each * np.tile(factor, len(each) // 2)).tolist() for each in outlines]
        return {**found, **box, "segmentation": scaled}
    return {key: value for key, value in {**found, **box}.items() if key != "segmentation"}


def write_smaller(picture: Path, target: Path, size: tuple[int, int]) -> None:
    """Write a picture, upright, of a width and height, unless it is there.

    Raises:
        IONError: it cannot be read or written.
    """
    if target.exists() and read_size(str(target)) == size[::-1]:
        return
    image = Image.fromarray(read_image(str(picture), "RGB"))
    small = image.resize(size, Image.Resampling.LANCZOS)
    kind = Image.registered_extensions()[target.suffix.lower()]
    write_result(str(target), lambda file: small.save(file, kind, quality=QUALITY), ADVICE)
