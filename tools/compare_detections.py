#!/usr/bin/env python
"""Draw what several models detect on the same pictures, side by side.

    python tools/compare_detections.py output/plain output/ion --input a.jpg b.jpg --output both.jpg

A model is a folder that train_net.py has written to, with its config.yaml and model_final.pth.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from demo_inputs import read_picture
from detectron2.structures import Instances
from PIL import Image
from shared_arguments import read_model_config, whole_number
from tqdm import tqdm

from ion_d2.engine.drawing import draw_panels
from ion_d2.engine.pictures import marks_of, save_picture
from ion_d2.engine.predictor import IONPredictor
from ion_d2.engine.run_folder import TRAINED
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders of runs (their OUTPUT_DIR)")
    add("--input", nargs="+", required=True, type=Path, help="pictures")
    add("--output", required=True, type=Path, help="the drawing, .jpg or .png")
    add("--confidence-threshold", type=float, default=0.5, help="lowest score to draw (0.5)")
    add("--size", type=whole_number(16), default=320, help="longer side of a panel, pixels (320)")
    add("--columns", type=whole_number(1), default=2, help="pictures in a line (2)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Detect and draw.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    args = build_parser().parse_args(argv)
    if args.output.suffix.lower() not in Image.registered_extensions():
        raise IONError(f"--output {args.output} has no suffix of a picture, such as .jpg or .png.")
    images = [read_picture(str(path)) for path in args.input]
    found = dict(detect_by_each(args.runs, images, args.confidence_threshold))
    names = next(iter(found.values()))[0]
    for run, (others, _) in found.items():
        if others != names:
            raise IONError(f"{run} and {args.runs[0]} detect different classes.")
    titles = {str(run): run.resolve().name for run in args.runs}
    if len(set(titles.values())) < len(titles):
        titles = {run: run for run in titles}
    sheets = [
        draw_panels(
            image[:, :, ::-1],
            [(titles[run], marks_of(detections[i])) for run, (_, detections) in found.items()],
            names,
            panel_size=args.size,
        )
        for i, image in enumerate(images)
    ]
    save_picture(arrange(sheets, args.columns), args.output)


def arrange(sheets: Sequence[Image.Image], columns: int) -> Image.Image:
    """Put pictures into lines on white, each line as high as its highest.

    Args:
        sheets: the pictures.
        columns: how many stand in a line.
    """
    lines = [sheets[i : i + columns] for i in range(0, len(sheets), columns)]
    heights = [max(sheet.height for sheet in line) for line in lines]
    width = max(sum(sheet.width for sheet in line) for line in lines)
    page, top = Image.new("RGB", (width, sum(heights)), "white"), 0
    for line, height in zip(lines, heights):
        left = 0
        for sheet in line:
            page.paste(sheet, (left, top))
            left += sheet.width
        top += height
    return page


def detect_by_each(
    runs: Sequence[Path], images: Sequence[np.ndarray], lowest_score: float
) -> Iterator[tuple[str, tuple[list[str], list[Instances]]]]:
    """Load one model after the other, and detect.

    Args:
        runs: the models' folders.
        images: (H, W, 3) uint8, BGR.
        lowest_score: of the detections wanted.

    Yields:
        The folder; names of the classes, and the detections in each image.
    """
    for run in runs:
        weights = ["MODEL.WEIGHTS", str(run / "model_final.pth")]
        model = argparse.Namespace(config_file=str(run / TRAINED), classes=None, opts=weights)
        cfg, names = read_model_config(model, lowest_score=lowest_score)
        predict = IONPredictor.from_config(cfg, names)
        found = [predict(image)["instances"] for image in tqdm(images, desc=run.name, disable=None)]
        yield str(run), (names, [each[each.scores >= lowest_score] for each in found])


if __name__ == "__main__":
    run_cli(functools.partial(main, sys.argv[1:]))
