"""Small archives laid out as the official ones of VOC 2007, VOC 2012 and SBD."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import replace

import numpy as np
from sbd_file import write_sbd
from voc_folder import object_xml, write_label, write_split, write_voc
from voc_release import RELEASES

# VOC 2012 holds pictures of VOC 2007, of its test set too, under another name.
TRAINVAL07, TEST07 = ("000005", "000032"), ("000001", "000027")
TRAINVAL12 = ("2007_000027", "2007_000032", "2008_000002", "2008_000003", "2009_000001")
VAL12 = ("2008_000003",)
SEGMENTED = {"VOC2007": ("000032",), "VOC2012": ("2007_000027", "2008_000002")}
SBD_TRAIN, SBD_VAL = ("2008_000002", "2008_000003"), ("2009_000001",)
LABELS = {"VOC2007": 3, "VOC2012": 5, "SBD": 7}  # the id that fills them


def write_archives(folder):
    """Write the four archives; returns name -> content."""
    split12 = {"trainval": TRAINVAL12, "val": VAL12}
    return {
        "VOCtrainval_06-Nov-2007.tar": _voc(folder / "a", "VOC2007", {"trainval": TRAINVAL07}),
        "VOCtest_06-Nov-2007.tar": _voc(folder / "b", "VOC2007", {"test": TEST07}),
        "VOCtrainval_11-May-2012.tar": _voc(folder / "c", "VOC2012", split12),
        "benchmark.tgz": _sbd(folder / "d"),
    }


def releases_at(address, contents):
    """The releases, as a server at an address has them."""
    return tuple(
        replace(release, url=f"{address}/{name}", md5=hashlib.md5(content).hexdigest())
        for release, (name, content) in zip(RELEASES, contents.items())
    )


def _voc(folder, name, splits):
    root = folder / "VOCdevkit" / name
    split, ids = next(iter(splits.items()))
    write_voc(root, {i: [object_xml("dog", (3, 4, 30, 25))] for i in ids}, split=split)
    for split, ids in splits.items():
        write_split(root, split, "".join(f"{image_id}\n" for image_id in ids))
    (root / "ImageSets" / "Segmentation").mkdir()
    if split != "test":
        (root / "SegmentationClass").mkdir()
        for image_id in SEGMENTED[name]:
            ids = np.full((30, 40), LABELS[name])
            write_label(root / "SegmentationClass" / f"{image_id}.png", ids)
        text = "".join(f"{image_id}\n" for image_id in SEGMENTED[name])
        (root / "ImageSets" / "Segmentation" / "trainval.txt").write_text(text)
    return _tar(folder, "VOCdevkit", "w")


def _sbd(folder):
    dataset = folder / "benchmark_RELEASE" / "dataset"
    for name in ("cls", "inst", "img"):
        (dataset / name).mkdir(parents=True)
    for image_id in SBD_TRAIN + SBD_VAL:
        write_sbd(dataset / "cls" / f"{image_id}.mat", np.full((30, 40), LABELS["SBD"]))
        (dataset / "inst" / f"{image_id}.mat").write_bytes(b"not needed")
        (dataset / "img" / f"{image_id}.jpg").write_bytes(b"not needed")
    for split, ids in (("train", SBD_TRAIN), ("val", SBD_VAL)):
        (dataset / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    return _tar(folder, "benchmark_RELEASE", "w:gz")


def _tar(folder, name, mode):
    with tarfile.open(folder / "archive", mode) as tar:
        tar.add(folder / name, arcname=name)
    return (folder / "archive").read_bytes()
