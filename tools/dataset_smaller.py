"""Pictures, label maps, boxes and outlines at a smaller size, for tools/convert_dataset.py."""

from __future__ import annotations

import io

import numpy as np
from dataset_writers import Record
from detectron2.structures import BoxMode
from PIL import Image

from ion_d2.data.outlines import corners_of
from ion_d2.data.readable import read_image

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
    box = {"bbox": (corners_of(found) * np.tile(factor, 2)).tolist(), "bbox_mode": BoxMode.XYXY_ABS}
    outlines = found.get("segmentation")
    if isinstance(outlines, list):
        scaled = [(each * np.tile(factor, len(each) // 2)).tolist() for each in outlines]
        return {**found, **box, "segmentation": scaled}
    return {key: value for key, value in {**found, **box}.items() if key != "segmentation"}


def smaller_bytes(record: Record) -> bytes:
    """The file of a dict's picture, upright, at the dict's size, in the format of its name.

    Raises:
        IONError: it cannot be read.
    """
    image = Image.fromarray(read_image(record["file_name"], "RGB"))
    kind = Image.registered_extensions().get(record["written"].suffix.lower())
    if kind is None:  # a name without a suffix, for instance
        with Image.open(record["file_name"]) as picture:
            kind = picture.format
    file, size = io.BytesIO(), (record["width"], record["height"])
    image.resize(size, Image.Resampling.LANCZOS).save(file, kind, quality=QUALITY)
    return file.getvalue()
