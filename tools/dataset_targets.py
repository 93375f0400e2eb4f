"""What a conversion finds in its folder: it replaces nothing, and mixes no two datasets."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataset_smaller import smaller_bytes
from dataset_writers import DATA_FILE, Record

from ion_d2.data.folders import composed, index_folder
from ion_d2.errors import IONError


def check_picture_free(record: Record) -> None:
    """Look at the place of a picture.

    Raises:
        IONError: something is there that is not from an earlier run of the same command.
    """
    picture, target = Path(record["file_name"]), record["written"]
    if not target.exists():
        return
    itself = target.samefile(picture)
    if record["smaller"]:
        same = not itself and target.read_bytes() == smaller_bytes(record)
    else:
        same = target.is_symlink() if itself else filecmp.cmp(picture, target, shallow=False)
    if not same:
        raise _would_be_replaced(target)


def check_labels_free(files: Iterable[tuple[Path, bytes]]) -> None:
    """Look at the places of files of labels, which may have been corrected by hand.

    Raises:
        IONError: one is there with another content, and is not the one to which splits are added,
            nor VOC's list of a split that has grown.
    """
    for path, content in files:
        if path.name == DATA_FILE or not path.is_file():
            continue
        before, is_list = path.read_bytes(), path.parent.name == "Main"
        if before != content and not (is_list and {*before.split()} <= {*content.split()}):
            raise _would_be_replaced(path)


def check_neighbors(
    form: str, folder: Path, suffixes: Sequence[str], records: Sequence[Record]
) -> None:
    """Refuse a folder with files that a reader would take for part of this dataset.

    VOC's folder serves all splits: there, only another picture of the same stem is refused.

    Raises:
        IONError: there is such a file.
    """
    suffixes = (".json",) if form == "labelme" else suffixes
    if not suffixes or not folder.is_dir():  # COCO's files list their pictures
        return
    ours = {composed(record["written"].stem): record["written"] for record in records}
    for stem, path in index_folder(str(folder), suffixes).items():
        mine = ours.get(stem, Path(path) if form == "voc" else None)
        if mine is None:
            raise IONError(
                f"{path} is there and of no picture of this dataset; choose another --split or "
                "write this dataset into another folder."
            )
        if form != "labelme" and mine != Path(path):
            raise IONError(
                f"{mine} and {path}, which is there, would have the same labels; write this "
                "dataset into another folder."
            )


def _would_be_replaced(path: Path) -> IONError:
    return IONError(f"{path} would be replaced; write this dataset into another folder.")
