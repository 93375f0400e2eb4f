"""Writes tiny real datasets in VOC layout (XML, JPEG, PNG) for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BCCD = DATA / "bccd" / "VOC2007"
COCO_VOC20 = DATA / "coco_voc20" / "VOC2007"


def object_xml(name, box, extra="<difficult>0</difficult>"):
    """One <object>; `box` is xmin, ymin, xmax, ymax as they stand in the file."""
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box)
    box_xml = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
    return f"<object><name>{name}</name>{extra}<bndbox>{box_xml}</bndbox></object>"


def annotation_xml(objects=(), size=(40, 30)):
    """One annotation file; `size` is (width, height) or None to leave it out."""
    size_xml = ""
    if size is not None:
        size_xml = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{size_xml}{''.join(objects)}</annotation>"


def write_image(path, size=(40, 30), **options):
    """A picture of random colors, (width, height) in `size`."""
    rng = np.random.default_rng(len(path.name))
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_label(path, ids):
    """A palette PNG whose palette is deliberately not the identity."""
    image = Image.fromarray(np.asarray(ids, dtype=np.uint8))
    image.putpalette([(7 * i + 13) % 256 for i in range(768)])  # turns a grayscale image into "P"
    image.save(path)
    return path


def write_voc(root, images, split="train", extension=".jpg"):
    """A dataset of pictures 40 x 30.

    Args:
        root: folder to create.
        images: image ID -> list of object XML.
        split: split that names them all.
        extension: of the picture files.
    """
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for image_id, objects in images.items():
        (root / "Annotations" / f"{image_id}.xml").write_text(annotation_xml(objects))
        write_image(root / "JPEGImages" / f"{image_id}{extension}")
    write_split(root, split, "".join(f"{image_id}\n" for image_id in images))
    return root


def write_split(root, split, text):
    """Writes the bytes as they are, line ends included."""
    (root / "ImageSets" / "Main" / f"{split}.txt").write_bytes(text.encode())
