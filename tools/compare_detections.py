#!/usr/bin/env python
"""Draw what several models detect on the same pictures, side by side.

    python tools/compare_detections.py plain=output/plain ION=output/ion --input a.jpg b.jpg \\
        --output both.jpg

A model is a folder that train_net.py has written to, with its config.yaml and model_final.pth;
the name before "=" is its title.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from demo_drawings import write_drawing
from demo_folder import ELSEWHERE
from detectron2.config import CfgNode
from detectron2.structures import Instances
from PIL import Image
from shared_arguments import read_model_config, score, whole_number
from tqdm import tqdm

from ion_d2.data.readable import read_image
from ion_d2.engine.drawing import draw_panels
from ion_d2.engine.pictures import marks_of
from ion_d2.engine.predictor import IONPredictor
from ion_d2.engine.run_folder import TRAINED
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.files import make_folder


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=_run, help="folders of runs (their OUTPUT_DIR)", metavar="NAME=RUN")
    add("--input", nargs="+", action="extend", required=True, type=Path, help="pictures")
    add("--output", required=True, type=Path, help="the drawing, .jpg or .png")
    add("--confidence-threshold", type=score, default=0.5, help="lowest score to draw (0.5)")
    add("--size", type=whole_number(16), default=320, help="longer side of a panel, pixels (320)")
    add("--columns", type=whole_number(1), default=2, help="pictures in a line (2)")
    return parser


def _run(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not folder or Path(text).is_dir():  # its own name may have a "="
        return Path(text).resolve().name, Path(text)
    return name, Path(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Detect and draw.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    args = build_parser().parse_args(argv)
    # Pillow reads more formats than it writes.
    if Image.registered_extensions().get(args.output.suffix.lower()) not in Image.SAVE:
        raise IONError(f"--output {args.output} has no suffix of a picture, such as .jpg or .png.")
    if args.output.resolve() in [path.resolve() for path in args.input]:
        raise IONError(f"--output {args.output} is one of the pictures; {ELSEWHERE}.")
    make_folder(args.output.absolute().parent, ELSEWHERE)
    images = [read_image(str(path), "BGR") for path in args.input]
    threshold = args.confidence_threshold
    titles, runs = zip(*args.runs)
    models = [read_model(run, threshold) for run in runs]
    names = models[0][1]
    for run, (_, others) in zip(runs, models):
        if others != names:
            raise IONError(f"{run} and {runs[0]} detect different classes.")
    found = [detect_by(*model, images, threshold) for model in models]
    sheets = [
        draw_panels(
            image[:, :, ::-1],
            [(title, marks_of(each[i])) for title, each in zip(titles, found)],
            names,
            panel_size=args.size,
        )
        for i, image in enumerate(images)
    ]
    write_drawing(arrange(sheets, args.columns), args.output)


def read_model(run: Path, lowest_score: float) -> tuple[CfgNode, list[str]]:
    """Read the config of the model in a run's folder, and the names of its classes."""
    weights = ["MODEL.WEIGHTS", str(run / "model_final.pth")]
    model = argparse.Namespace(config_file=str(run / TRAINED), classes=None, opts=weights)
    return read_model_config(model, lowest_score=lowest_score)


def detect_by(
    cfg: CfgNode, names: list[str], images: Sequence[np.ndarray], lowest_score: float
) -> list[Instances]:
    """Load a model, and detect.

    Args:
        cfg: its config.
        names: of its classes.
        images: (H, W, 3) uint8, BGR.
        lowest_score: of the detections wanted.
    """
    predict = IONPredictor.from_config(cfg, names)
    run = Path(cfg.MODEL.WEIGHTS).parent.name
    found = [predict(image)["instances"] for image in tqdm(images, desc=run, disable=None)]
    return [each[each.scores >= lowest_score] for each in found]


def arrange(sheets: Sequence[Image.Image], columns: int) -> Image.Image:
    """Put pictures into lines and columns, each as large as its largest, on white.

    Args:
        sheets: the pictures.
        columns: how many stand in a line.
    """
    lines = [sheets[i : i + columns] for i in range(0, len(sheets), columns)]
    heights = [max(sheet.height for sheet in line) for line in lines]
    width = max(sheet.width for sheet in sheets)
    size = (width * min(columns, len(sheets)), sum(heights))
    page, top = Image.new("RGB", size, "white"), 0
    for line, height in zip(lines, heights):
        for column, sheet in enumerate(line):
            page.paste(sheet, (column * width, top))
        top += height
    return page


if __name__ == "__main__":
    run_cli(main)
