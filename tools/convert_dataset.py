"""Write a dataset in another format: PASCAL VOC's, COCO's, YOLO's (Ultralytics) or labelme's.

    python tools/convert_dataset.py labelme:data/labels voc data/voc --split trainval
    python tools/convert_dataset.py voc:data/VOC2007:test yolo data/yolo --split test --link
    python tools/convert_dataset.py detections:found/detections.json labelme to_correct

The dataset is any name that DATASETS.TRAIN takes. Pictures are copied, or linked with --link. What
the format cannot say is counted in a warning: VOC has no outlines; YOLO and labelme have no
run-length masks, difficult objects or crowds; only VOC has label maps. Further splits may be added
to a folder with the same classes; no picture or file of labels there is replaced. What demo.py
found in new pictures is a dataset, too: its boxes are first labels. With --short-side, larger
pictures are made smaller, which a training at that size reads faster.
"""

from __future__ import annotations

import argparse
import functools
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from dataset_smaller import make_smaller, smaller_bytes
from dataset_targets import check_labels_free, check_neighbors, check_picture_free
from dataset_writers import (
    ADVICE,
    Files,
    Record,
    clipped,
    coco_files,
    labelme_files,
    voc_files,
    write_files,
    yolo_files,
)
from detectron2.data import DatasetCatalog
from shared_arguments import whole_number

from ion_d2.data import class_names, ensure_registered
from ion_d2.data.coco_datasets import coco_content
from ion_d2.data.outlines import corners_of
from ion_d2.data.readable import check_sizes
from ion_d2.data.yolo import IMAGE_EXTENSIONS
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.files import distinct_file_names, write_result

logger = logging.getLogger(__name__)


_JPEG_OR_PNG = (".jpg", ".jpeg", ".png")
# For each format: its files, where its pictures lie, which suffixes they may have, and the name of
# the dataset.
FORMATS: dict[str, tuple[Callable[..., Files], str, tuple[str, ...], str]] = {
    "voc": (voc_files, "JPEGImages", _JPEG_OR_PNG, "voc:{folder}:{split}"),
    "coco": (coco_files, "{split}", (), "coco:{folder}/{split}.json:{folder}/{split}"),
    "yolo": (yolo_files, "images/{split}", IMAGE_EXTENSIONS, "yolo:{folder}/data.yaml:{split}"),
    "labelme": (labelme_files, "{split}", (), "labelme:{folder}/{split}"),
}


def convert(
    dataset: str,
    form: str,
    folder: Path,
    split: str,
    *,
    link: bool = False,
    short_side: int | None = None,
) -> None:
    """Write a dataset and its pictures; see the module.

    Args:
        dataset: its name.
        form: one of FORMATS.
        folder: what to write.
        split: its name there.
        link: whether to link pictures that keep their size.
        short_side: of the pictures at most, in pixels; None keeps their sizes.

    Raises:
        IONError: it cannot be read or written, a picture is missing or has another size than its
            labels say, or the folder holds other classes or what would be replaced.
    """
    if short_side and form == "coco":
        raise IONError("--short-side is not for COCO's format; write VOC's, YOLO's or labelme's.")
    ensure_registered([dataset])
    originals = DatasetCatalog.get(dataset)
    check_sizes(originals, any_depth=not short_side)
    compose, place, suffixes, _ = FORMATS[form]
    pictures = folder / place.format(split=split)
    records = _placed(originals, pictures, suffixes, short_side)
    check_neighbors(form, pictures, suffixes, records)
    labels = coco_content(dataset) if form == "coco" else class_names([dataset])
    check_labels_free(compose(folder, split, labels, records))
    write_files(compose(folder, split, labels, records))
    for record in records:
        if record["smaller"]:
            _place_smaller(record)
        else:
            place_picture(Path(record["file_name"]).resolve(), record["written"], link=link)
    _warn_of_loss(form, originals)
    if form == "voc":
        _warn_of_thin(records)


def _placed(
    originals: Sequence[Record], folder: Path, suffixes: Sequence[str], short_side: int | None
) -> list[Record]:
    """Copies at their new size, with the free place of the picture under "written"."""
    records = [dict(record) for record in originals]
    stems = distinct_file_names([Path(record["file_name"]).stem for record in records])
    for record, stem in zip(records, stems):
        picture = Path(record["file_name"])
        if suffixes and picture.suffix.lower() not in suffixes:
            raise IONError(
                f"{picture} is no {' or '.join(suffixes)} picture, as this format wants; convert "
                "the picture first."
            )
        record["written"] = folder / f"{stem}{picture.suffix}"
        size = record["width"], record["height"]
        if short_side:
            make_smaller(record, short_side)
        record["smaller"] = (record["width"], record["height"]) != size
        check_picture_free(record)
    return records


def _place_smaller(record: Record) -> None:
    if not record["written"].exists():
        small = smaller_bytes(record)
        write_result(str(record["written"]), lambda file: file.write(small), ADVICE)


def place_picture(picture: Path, target: Path, *, link: bool = False) -> None:
    """Copy or link a picture to a file that is not there yet.

    Raises:
        IONError: it cannot be written.
    """
    if target.exists():
        return
    try:
        if link:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(picture)
            return
        source = picture.open("rb")
    except OSError as error:
        advice = ADVICE if link else "make it readable"
        raise IONError(
            f"{picture} cannot be {'linked' if link else 'copied'} to {target} "
            f"({error.strerror}); {advice}."
        ) from error
    with source:
        write_result(str(target), functools.partial(shutil.copyfileobj, source), ADVICE)


def _warn_of_loss(form: str, records: Sequence[Record]) -> None:
    lost: Counter[str] = Counter()
    if form != "voc":
        lost["label maps"] = sum("sem_seg_file_name" in record for record in records)
    for found in (found for record in records for found in record.get("annotations", ())):
        lost["outlines"] += form == "voc" and bool(found.get("segmentation"))
        by_hand = form in ("yolo", "labelme")
        lost["run lengths"] += by_hand and isinstance(found.get("segmentation"), dict)
        lost["keypoints"] += form != "coco" and bool(found.get("keypoints"))
        lost["crowds as such"] += by_hand and bool(found.get("iscrowd"))
        lost["difficult objects as such"] += form == "yolo" and bool(found.get("difficult"))
    for what, count in lost.items():
        if count:
            of = "picture(s)" if what == "label maps" else "object(s)"
            logger.warning("The %s of %d %s are lost.", what, count, of)


def _warn_of_thin(records: Sequence[Record]) -> None:
    """VOC's corners are pixels, and what begins and ends in one is no box."""
    thin = 0
    for record in records:
        for found in record.get("annotations", ()):
            x0, y0, x1, y1 = clipped(corners_of(found), (record["width"], record["height"]))
            thin += min(x1 - x0, y1 - y0) <= 1
    if thin:
        text = "%d box(es), at most a pixel wide or high, are left out where VOC's format is read."
        logger.warning(text, thin)


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="voc:PATH:SPLIT, coco:JSON:IMAGE_DIR, labelme:DIR, ...")
    parser.add_argument("format", choices=list(FORMATS))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--split", type=_split, default="train", help="its name there (default: %(default)s)"
    )
    parser.add_argument("--link", action="store_true", help="link the pictures, do not copy them")
    parser.add_argument(
        "--short-side", type=whole_number(1), metavar="N", help="in pixels, at most"
    )
    return parser


def _split(text: str) -> str:
    if ":" in text or any(part in ("", ".", "..") for part in text.split("/")):
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a split; give one such as train")
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its arguments; None takes them from the command line.

    Raises:
        IONError: bad input.
    """
    args = build_parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    options = {"link": args.link, "short_side": args.short_side}
    folder, split = args.folder, args.split
    convert(args.dataset, args.format, folder, split, **options)
    print("Wrote", FORMATS[args.format][3].format(folder=folder, split=split))


if __name__ == "__main__":
    run_cli(main)
