"""The image lists of "07+12+S": VOC 2007 and 2012 with the segmentation labels of VOC and SBD.

The paper trains on trainval of both years ("07+12"); "S" adds labels, not images: SBD's images are
images of VOC 2012 trainval. Test images stay out, also those of VOC 2007 that VOC 2012 has taken
over as 2007_ID.
"""

from __future__ import annotations

import os

from ion_d2.data.folders import list_folder, read_lines
from ion_d2.data.voc_datasets import NO_VAL, TRAINVAL
from ion_d2.data.voc_split import read_split
from ion_d2.errors import IONError
from ion_d2.files import replace_file


def write_lists(root: str) -> dict[str, int]:
    """Write ``trainval_0712S`` into VOC2007 and VOC2012, and ``train_0712S`` into VOC2012.

    ``root`` is the folder that holds both; returned are the numbers of images by "FOLDER:SPLIT".

    Raises:
        IONError: a list of VOC is missing, or no image would be left for a list.
    """
    voc07, voc12 = os.path.join(root, "VOC2007"), os.path.join(root, "VOC2012")
    read_split(voc07, "test")  # without it, nobody knows what must stay out
    test07 = _ids(voc07, "test")
    kept_out = test07 | {f"2007_{image_id}" for image_id in test07} | _ids(voc12, "test")
    wanted = {
        (voc07, TRAINVAL): kept_out,
        (voc12, TRAINVAL): kept_out,
        (voc12, NO_VAL): kept_out | _ids(voc12, "val"),
    }
    lists = {}
    for (folder, split), unwanted in wanted.items():
        ids = [line.split()[0] for line in read_split(folder, "trainval")]
        lists[folder, split] = [image_id for image_id in ids if image_id not in unwanted]
        if not lists[folder, split]:
            raise IONError(
                f"No image of {folder} is left for {split}: each is in a test list; check the "
                "files in ImageSets."
            )
    for (folder, split), ids in lists.items():
        _write_list(os.path.join(folder, "ImageSets", "Main", split + ".txt"), ids)
    return {f"{os.path.basename(f)}:{split}": len(ids) for (f, split), ids in lists.items()}


def _write_list(path: str, ids: list[str]) -> None:
    if not os.path.isfile(path) or read_lines(path) != ids:
        text = "".join(f"{image_id}\n" for image_id in ids)
        replace_file(path, lambda file: file.write(text.encode()))


def _ids(folder: str, split: str) -> set[str]:
    """The images of a split of any task: detection, segmentation, person layout, actions."""
    tasks = os.path.join(folder, "ImageSets")
    paths = [os.path.join(tasks, task, split + ".txt") for task in list_folder(tasks)]
    return {line.split()[0] for path in paths if os.path.isfile(path) for line in read_lines(path)}
