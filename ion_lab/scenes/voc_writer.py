"""Scenes on disk, in the folders and formats of PASCAL VOC."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ion_lab.scenes.compose import Scene
from ion_lab.scenes.placing import SceneObject

PICTURE_FOLDERS = ("Annotations", "JPEGImages", "SegmentationClass")
"""Folders that hold one file per scene."""

SPLIT_FOLDERS = ("Main", "Segmentation")


def voc_palette() -> list[int]:
    """VOC's 256 colors as 768 numbers: R, G, B of label 0, then of label 1, ...

    Bits 0, 1, 2 of a label become the highest bits of R, G, B, the next three bits the bits below
    them, and so on.
    """
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for step in range(8):
        for channel in range(3):
            colors[:, channel] |= (labels >> (3 * step + channel) & 1) << (7 - step)
    return colors.ravel().tolist()


_PALETTE = voc_palette()


def write_scene(root: Path, name: str, scene: Scene) -> None:
    """Write picture, segmentation and annotation of a scene, without suffix called ``name``."""
    # Full chroma and high quality: see the module ion_lab.scenes for what they preserve.
    Image.fromarray(scene.image).save(
        root / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0
    )
    labels = Image.fromarray(scene.labels)
    labels.putpalette(_PALETTE)
    labels.save(root / "SegmentationClass" / f"{name}.png")
    annotation = _annotation(f"{name}.jpg", scene)
    ET.indent(annotation)
    ET.ElementTree(annotation).write(root / "Annotations" / f"{name}.xml", encoding="unicode")


def write_split(root: Path, split: str, names: Sequence[str]) -> None:
    """Write a split's list of names for detection and for segmentation."""
    for folder in SPLIT_FOLDERS:
        target = root / "ImageSets" / folder / f"{split}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{name}\n" for name in names), encoding="ascii")


def _annotation(filename: str, scene: Scene) -> ET.Element:
    height, width, depth = scene.image.shape
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "JPEGImages"
    ET.SubElement(root, "filename").text = filename
    source = ET.SubElement(root, "source")
    ET.SubElement(source, "database").text = "ion_d2 synthetic scenes"
    _numbers(ET.SubElement(root, "size"), width=width, height=height, depth=depth)
    _numbers(root, segmented=1)
    for item in scene.objects:
        _add_object(root, item)
    return root


def _add_object(root: ET.Element, item: SceneObject) -> None:
    element = ET.SubElement(root, "object")
    ET.SubElement(element, "name").text = item.name
    ET.SubElement(element, "pose").text = "Unspecified"
    _numbers(element, truncated=0, difficult=0)
    x0, y0, x1, y1 = item.box
    # VOC counts pixels from 1 and includes the last.
    _numbers(ET.SubElement(element, "bndbox"), xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)


def _numbers(parent: ET.Element, **values: int) -> None:
    for tag, value in values.items():
        ET.SubElement(parent, tag).text = str(value)
