"""The official releases of VOC 2007, VOC 2012 and SBD: installing what is not there yet."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from torchvision.datasets.sbd import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT
from tqdm import tqdm
from voc_download import download, move_into, unpack

from ion_d2.data.folders import index_folder, read_lines
from ion_d2.data.sem_seg import read_label_map
from ion_d2.errors import IONError
from ion_lab.scenes.voc_writer import voc_palette

logger = logging.getLogger(__name__)

# SBD's labels beside VOC's SegmentationClass. Palette pictures open in any program, load about
# twice as fast as Matlab files with their boundary maps, and are checked once, before training.
_SBD_LABELS, _SBD_LIST = "VOC2012/SegmentationSBD", "VOC2012/ImageSets/Segmentation/sbd_{}.txt"
_VOC_IDS = 21


@dataclass(frozen=True)
class Release:
    """An archive, and what it gives to the folder that holds VOC2007 and VOC2012.

    Attributes:
        url: where the archive is.
        md5: its checksum.
        content: (list of image IDs, folder, extension of its files), by paths below that folder.
        unpack: unpacks an archive into an empty folder; returns where in it the content lies.
    """

    url: str
    md5: str
    content: tuple[tuple[str, str, str], ...]
    unpack: Callable[[str, str], str]

    def is_complete(self, root: str) -> bool:
        """Whether all lists and all files that they name are in ``root``."""
        return all(
            _has_all(os.path.join(root, list_file), os.path.join(root, folder), extension)
            for list_file, folder, extension in self.content
        )


def _has_all(list_file: str, folder: str, extension: str) -> bool:
    if not os.path.isfile(list_file) or not os.path.isdir(folder):
        return False
    return set(read_lines(list_file)) <= index_folder(folder, (extension,)).keys()


def _voc(key: str, split: str) -> Release:
    known = DATASET_YEAR_DICT[key]
    name = os.path.basename(known["base_dir"])
    wanted = [("Main", "JPEGImages", ".jpg"), ("Main", "Annotations", ".xml")]
    if split != "test":
        wanted.append(("Segmentation", "SegmentationClass", ".png"))
    content = tuple(
        (f"{name}/ImageSets/{task}/{split}.txt", f"{name}/{files}", extension)
        for task, files, extension in wanted
    )
    return Release(known["url"], known["md5"], content, functools.partial(_unpack_voc, name))


def _unpack_voc(name: str, archive: str, folder: str) -> str:
    unpack(archive, folder, f"VOCdevkit/{name}/")
    return os.path.join(folder, "VOCdevkit")


def _unpack_sbd(archive: str, folder: str) -> str:
    """The class labels as palette pictures, and SBD's lists."""
    prefix = "benchmark_RELEASE/dataset/"
    unpack(archive, folder, tuple(prefix + name for name in ("cls/", "train.txt", "val.txt")))
    unpacked, target = os.path.join(folder, prefix), os.path.join(folder, "converted")
    _convert_labels(os.path.join(unpacked, "cls"), os.path.join(target, _SBD_LABELS))
    for split in ("train", "val"):
        move_into(f"{unpacked}{split}.txt", os.path.join(target, _SBD_LIST.format(split)))
    return target


def _convert_labels(source: str, target: str) -> None:
    os.makedirs(target)
    palette = voc_palette()
    files = index_folder(source, (".mat",))
    for image_id, path in tqdm(files.items(), desc="SBD to PNG", unit="files", disable=None):
        picture = Image.fromarray(read_label_map(path, _VOC_IDS))
        picture.putpalette(palette)
        picture.save(os.path.join(target, image_id + ".png"))


_SBD_CONTENT = tuple((_SBD_LIST.format(split), _SBD_LABELS, ".png") for split in ("train", "val"))
RELEASES = (
    _voc("2007", "trainval"),
    _voc("2007-test", "test"),
    _voc("2012", "trainval"),
    Release(SBDataset.url, SBDataset.md5, _SBD_CONTENT, _unpack_sbd),
)


def install_releases(root: str, archives: str, releases: Sequence[Release] = RELEASES) -> None:
    """Download and unpack what is not there yet.

    Files appear in ``root``, the folder of VOC2007 and VOC2012, only once their archive has been
    unpacked and converted as a whole; none there is replaced. Archives that lie in the folder
    ``archives`` are not fetched again.

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
            content = release.unpack(archive, staging)
            if not release.is_complete(content):
                raise IONError(f"{archive} lacks files that it should hold; nothing was changed.")
            move_into(content, root)
        except OSError as error:
            raise IONError(
                f"{error.filename or root} cannot be written ({error.strerror}); make room or the "
                "folder writable, then run the command again."
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
