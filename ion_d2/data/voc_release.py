"""The official releases of VOC 2007, VOC 2012 and SBD: installing what is not there yet."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.datasets.sbd import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT
from tqdm import tqdm

from ion_d2.data.download import download, move_into, unpack
from ion_d2.data.folders import index_folder, read_lines
from ion_d2.data.sem_seg import read_label_map
from ion_d2.data.voc_lists import write_list
from ion_d2.errors import IONError

logger = logging.getLogger(__name__)

# SBD's labels beside VOC's SegmentationClass. Palette pictures open in any program, load about
# twice as fast as Matlab files with their boundary maps, and are checked once, before training.
SBD_FOLDER = "SegmentationSBD"
_SBD_ARCHIVED = "benchmark_RELEASE/dataset"
_VOC_ARCHIVED = "VOCdevkit"
_VOC_IDS = 21


@dataclass(frozen=True)
class VOCRelease:
    """An archive of VOC that holds one split of a folder in VOC layout."""

    url: str
    md5: str
    folder: str
    split: str

    def is_complete(self, root: str) -> bool:
        """Whether every picture, annotation and (in trainval) label map of the split is there."""
        folder = os.path.join(root, self.folder)
        wanted = [("Main", "JPEGImages", ".jpg"), ("Main", "Annotations", ".xml")]
        if self.split != "test":
            wanted.append(("Segmentation", "SegmentationClass", ".png"))
        return all(
            _has_all(
                os.path.join(folder, "ImageSets", task, self.split + ".txt"),
                os.path.join(folder, files),
                extension,
            )
            for task, files, extension in wanted
        )

    def install(self, archive: str, root: str, staging: str) -> None:
        """Unpack the archive to the staging folder, then move its content to ``root``."""
        unpack(archive, staging, _VOC_ARCHIVED + "/")
        unpacked = os.path.join(staging, _VOC_ARCHIVED)
        if not self.is_complete(unpacked):
            raise IONError(
                f"{archive} does not hold all of VOC's split {self.split}; nothing was changed."
            )
        move_into(os.path.join(unpacked, self.folder), os.path.join(root, self.folder))


@dataclass(frozen=True)
class SBDRelease:
    """The archive of SBD, whose class labels become palette pictures in VOC2012."""

    url: str
    md5: str

    def is_complete(self, root: str) -> bool:
        """Whether every label map of SBD's own lists is there."""
        labels = os.path.join(root, "VOC2012", SBD_FOLDER)
        return all(_has_all(_sbd_list(root, split), labels, ".png") for split in ("train", "val"))

    def install(self, archive: str, root: str, staging: str) -> None:
        """Unpack the class labels, convert them and move them to ``root``; the lists come last."""
        names = ("cls/", "train.txt", "val.txt")
        unpack(archive, staging, tuple(f"{_SBD_ARCHIVED}/{name}" for name in names))
        unpacked, converted = os.path.join(staging, _SBD_ARCHIVED), os.path.join(staging, "png")
        _convert_sbd(os.path.join(unpacked, "cls"), converted)
        move_into(converted, os.path.join(root, "VOC2012", SBD_FOLDER))
        for split in ("train", "val"):
            ids = read_lines(os.path.join(unpacked, split + ".txt"))
            write_list(_sbd_list(root, split), ids)


def _voc(key: str, split: str) -> VOCRelease:
    known = DATASET_YEAR_DICT[key]
    return VOCRelease(known["url"], known["md5"], os.path.basename(known["base_dir"]), split)


RELEASES = (
    _voc("2007", "trainval"),
    _voc("2007-test", "test"),
    _voc("2012", "trainval"),
    SBDRelease(SBDataset.url, SBDataset.md5),
)


def install_releases(
    root: str, archives: str, releases: Sequence[VOCRelease | SBDRelease] = RELEASES
) -> None:
    """Download and unpack what is not there yet.

    Files appear in ``root`` only once their archive has been unpacked and converted as a whole.

    Args:
        root: where VOC2007 and VOC2012 are or will be.
        archives: folder of the downloaded archives; those that lie there are not fetched again.
        releases: what is wanted.

    Raises:
        IONError: a download fails, an archive is not the official one, or the disk is full.
    """
    for release in releases:
        name = os.path.basename(release.url)
        if release.is_complete(root):
            logger.info("Already there: what %s holds.", name)
            continue
        archive, staging = os.path.join(archives, name), os.path.join(root, ".unpacking-" + name)
        try:
            shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
            os.makedirs(archives, exist_ok=True)
            download(release.url, archive, release.md5)
            release.install(archive, root, staging)
        except OSError as error:
            raise IONError(
                f"{error.filename or root} cannot be written ({error.strerror}); make room or the "
                "folder writable, then run the command again."
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _convert_sbd(source: str, target: str) -> None:
    """Turn a folder of SBD's class labels into palette pictures of the same ids."""
    os.makedirs(target)
    palette = voc_palette()
    files = index_folder(source, (".mat",))
    for image_id, path in tqdm(files.items(), desc="SBD to PNG", unit="files", disable=None):
        picture = Image.fromarray(read_label_map(path, _VOC_IDS))
        picture.putpalette(palette)
        picture.save(os.path.join(target, image_id + ".png"))


def voc_palette() -> list[int]:
    """VOC's 256 colors, as 768 numbers from 0 to 255."""
    ids = np.arange(256)
    colors = np.zeros((256, 3), dtype=int)
    for bit in range(8):  # an id's bits go to red, green and blue in turn, to their highest first
        colors[:, bit % 3] |= (ids >> bit & 1) << (7 - bit // 3)
    return colors.ravel().tolist()


def _sbd_list(root: str, split: str) -> str:
    return os.path.join(root, "VOC2012", "ImageSets", "Segmentation", f"sbd_{split}.txt")


def _has_all(list_file: str, folder: str, extension: str) -> bool:
    """Whether a folder has a file for every image of a list."""
    if not os.path.isfile(list_file) or not os.path.isdir(folder):
        return False
    return set(read_lines(list_file)) <= index_folder(folder, (extension,)).keys()
