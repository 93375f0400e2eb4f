#!/usr/bin/env python
"""Detect objects in pictures with a trained model, and draw them.

    python demo.py --config-file output/config.yaml --input a.jpg folder/ '*.png' --output found/ \\
        MODEL.WEIGHTS output/model_final.pth

Each picture is drawn into the output folder; detections.json there lists what was found, and
detections.classes.txt the classes. The two are a dataset, detections:found/detections.json, which
tools/convert_dataset.py writes as first labels in labelme's or another format.
"""

from __future__ import annotations

import argparse
import glob
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from tqdm import tqdm

from ion_d2.data.readable import UnreadableImageError, read_image
from ion_d2.engine.fit_config import settle_classes
from ion_d2.engine.pictures import draw_detections, save_picture
from ion_d2.engine.predictor import IONPredictor
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.errors import IONError
from ion_d2.evaluation.results_file import write_json, write_text
from ion_d2.files import fitting_name

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
PANEL_SIZE = 960


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; options and KEY VALUE overrides may come in any order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="config of the model")
    parser.add_argument(
        "--input", nargs="+", required=True, help="pictures, folders (with subfolders) or patterns"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the drawn pictures")
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.5, help="lowest score to report (0.5)"
    )
    parser.add_argument("--json", type=Path, help="detections (OUTPUT/detections.json)")
    parser.add_argument("--classes", help="text file with one class name a line")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")
    return parser.parse_intermixed_args(argv)


def find_pictures(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """Find the pictures and choose where each is drawn.

    A picture of a searched folder keeps its place below it. No two drawings share a file, and none
    takes the place of an input. Drawings of an earlier run, in an output folder below a searched
    one, are not taken for inputs.

    Args:
        inputs: files, folders or glob patterns.
        output: folder for the drawings.

    Returns:
        The drawing's file for each picture, in the order of the inputs.

    Raises:
        IONError: an input matches no picture.
    """
    places: dict[Path, Path] = {}
    for text in inputs:
        found = _expand(text, output)
        if not found:
            raise IONError(
                f"--input {text} matches no picture; give files, folders or quoted patterns, and "
                "KEY VALUE overrides after another option's value, for instance --output's."
            )
        for picture, place in found:
            places.setdefault(picture, place)
    taken = {_identity(picture) for picture in places}
    return {picture: _free(output / place, taken) for picture, place in places.items()}


def _expand(text: str, output: Path) -> list[tuple[Path, Path]]:
    """List the pictures of one input with their places below the output folder."""
    path = Path(text).expanduser()
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        own = output.resolve()
        nested = own != path.resolve() and path.resolve() in own.parents
        files = [p for p in sorted(path.rglob("*")) if not (nested and own in p.resolve().parents)]
        return [(p, p.relative_to(path)) for p in files if _is_picture(p)]
    files = map(Path, sorted(glob.glob(str(path), recursive=True)))
    return [(p, Path(p.name)) for p in files if _is_picture(p)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _identity(path: Path) -> str:
    """Name a file alike however it is reached; case does not tell files apart on every system."""
    return str(path.resolve()).lower()


def _free(wanted: Path, taken: set[str]) -> Path:
    """Turn a wanted file name into a JPEG's that is not taken yet, and take it."""
    place, number = wanted.with_name(fitting_name(wanted.stem, suffix=".jpg")), 1
    while _identity(place) in taken:
        number += 1
        place = wanted.with_name(fitting_name(wanted.stem, suffix=f"_{number}.jpg"))
    taken.add(_identity(place))
    return place


def describe(picture: Path, found: Instances, names: Sequence[str]) -> dict[str, Any]:
    """Put the detections of a picture into plain values for JSON, the surest first."""
    height, width = found.image_size
    rows = zip(found.pred_boxes.tensor.tolist(), found.scores.tolist(), found.pred_classes.tolist())
    detections = [
        {
            "class": names[label],
            "class_id": label,
            "score": round(score, 4),
            "box": [round(value, 2) for value in box],
        }
        for box, score, label in sorted(rows, key=lambda row: -row[1])
    ]
    return {"file": str(picture), "width": width, "height": height, "detections": detections}


def setup(args: argparse.Namespace) -> tuple[CfgNode, list[str]]:
    """Read the config and a name for every class, and make the two agree.

    The config's score threshold lets pass all that is to be reported.
    """
    cfg = load_config(args.config_file, args.opts)
    names = settle_classes(cfg, args.classes, weights=cfg.MODEL.WEIGHTS)
    cfg.defrost()
    heads = cfg.MODEL.ROI_HEADS
    # Only ever lower: where boxes vote, those of low scores have a voice too.
    heads.SCORE_THRESH_TEST = min(heads.SCORE_THRESH_TEST, args.confidence_threshold)
    cfg.freeze()
    return cfg, names


def main() -> int:
    """Detect, draw and list; return 1 if a picture could not be read, else 0."""
    args = parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    pictures = find_pictures(args.input, args.output)
    report = args.json or args.output / "detections.json"
    _make_folders(args.output, report.parent)
    cfg, names = setup(args)
    predictor = IONPredictor.from_config(cfg, names)
    write_text(str(report.with_suffix(".classes.txt")), "".join(f"{name}\n" for name in names))
    listed: list[dict[str, Any]] = []
    try:
        for picture, place in tqdm(pictures.items(), desc="detecting", unit="picture"):
            try:
                image = read_image(str(picture), "BGR")
                found = predictor(image)["instances"]
            except UnreadableImageError as error:
                _tell(f"{picture} cannot be read as a picture ({error.__cause__ or error})")
            except IONError as error:  # of a shape, for instance, that the model cannot take
                _tell(f"{picture}: {error}")
            else:
                found = found[found.scores >= args.confidence_threshold]
                listed.append(describe(picture, found, names))
                draw(image, found, names, place)
    finally:  # what was found until then, also if Ctrl-C ends it
        write_json(str(report), listed, indent=1)
    return int(len(listed) < len(pictures))


def _tell(fault: str) -> None:
    tqdm.write(f"error: {fault}", file=sys.stderr)


def draw(image: np.ndarray, found: Instances, names: Sequence[str], place: Path) -> None:
    """Write a picture, (H, W, 3) uint8 in BGR, with all its detections.

    Raises:
        IONError: it cannot be written.
    """
    _make_folders(place.parent)
    try:
        save_picture(draw_detections(image, found, names, panel_size=PANEL_SIZE), place)
    except OSError as error:
        raise IONError(
            f"{place} cannot be written ({error.strerror or error}); choose another --output."
        ) from error


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IONError(
                f"The folder {folder} cannot be made ({error.strerror}); choose another --output."
            ) from error


if __name__ == "__main__":
    run_cli(main)
