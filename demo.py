#!/usr/bin/env python
"""Detect objects in pictures and videos with a trained model, draw them, and list them.

    python demo.py --config-file output/config.yaml --input a.jpg folder/ '*.png' --output found/ \\
        MODEL.WEIGHTS output/model_final.pth
    python demo.py --config-file output/config.yaml --video-input clip.mp4 --output found/ \\
        --save json csv --opts MODEL.WEIGHTS output/model_final.pth

Each picture and video is drawn into the output folder. --save says in which forms to list there
what was found (docs/DEMO.md):

    json      detections.json, and the classes in detections.classes.txt; together they are the
              dataset detections:found/detections.json, which tools/convert_dataset.py takes
    csv       detections.csv, a line an object
    coco      coco_results.json, with the images and categories that its ids mean in
              coco_images.json
    yolo      yolo/: pictures, or frames of videos, with first labels, to be corrected by hand
    labelme   labelme/: the same for labelme

Pictures that cannot be read are told at the end, and the others done. The exit status is then 1.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ion_d2.engine.predictor import IONPredictor
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.files import make_folder

sys.path.append(str(Path(__file__).resolve().parent / "tools"))

from demo_drawings import Drawings, WindowClosed  # noqa: E402
from demo_folder import ELSEWHERE, OutputFolder  # noqa: E402
from demo_inputs import Input, Shot, batches, find_pictures, is_video, read_shots  # noqa: E402
from demo_results import FORMS, Results  # noqa: E402
from demo_video import count_frames  # noqa: E402
from shared_arguments import (  # noqa: E402
    add_model_arguments,
    read_model_config,
    score,
    whole_number,
)

logger = logging.getLogger("demo")
LOG_PERIOD = 30.0  # seconds between two lines of progress where there is no terminal


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; options and KEY VALUE overrides may come in any order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_model_arguments(parser)
    many = {"nargs": "+", "action": "extend", "default": []}
    add("--input", **many, help="files, folders (with subfolders) or patterns")
    add("--video-input", action="append", default=[], metavar="FILE", help="video, or its address")
    camera = {"nargs": "?", "type": whole_number(0), "const": 0, "metavar": "N"}
    add("--webcam", **camera, help="camera N (0), until Ctrl-C")
    add("--output", required=True, type=Path, help="folder for drawings and results")
    add("--save", nargs="+", type=_form, default=["json"], help=f"{', '.join(FORMS)} (json)")
    add("--no-drawings", action="store_true", help="do not draw pictures and videos")
    add("--show", action="store_true", help="show them in a window; Esc or q ends")
    add("--confidence-threshold", type=score, default=0.5, help="lowest score to report (0.5)")
    add(
        "--batch",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="pictures at a time, of one size",
    )
    add("--every", type=whole_number(1), default=1, metavar="N", help="of a video, each N-th frame")
    add("--json", type=_file, help="file for --save json (OUTPUT/detections.json)")
    add("--opts", dest="more", nargs=argparse.REMAINDER, default=[], help="the overrides, last")
    args = parser.parse_intermixed_args(argv)
    if not args.input and not args.video_input and args.webcam is None:
        parser.error("one of --input, --video-input and --webcam is required")
    if args.json is not None and "json" not in args.save:
        args.save.append("json")
    args.opts = [*args.opts, *args.more]
    return args


def _form(text: str) -> str:
    if text not in FORMS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(FORMS)}; KEY VALUE overrides go after --opts"
        )
    return text


def _file(text: str) -> Path:
    if not Path(text).name:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file")
    return Path(text)


def find_inputs(args: argparse.Namespace, folder: OutputFolder) -> list[Input]:
    """List what to detect on.

    Raises:
        IONError: an input is not there.
    """
    places = find_pictures(args.input, folder)
    inputs = [Input(path, place, is_video(path)) for path, place in places.items()]
    for text in args.video_input:
        path = Path(text).expanduser()
        if "://" not in text and not path.is_file():
            raise IONError(f"--video-input {text} is no file; correct its path.")
        folder.keep([path])
        source = text if "://" in text else path
        inputs.append(Input(source, folder.free(folder.path / path.name, ".mp4"), is_clip=True))
    if args.webcam is not None:
        place = folder.free(folder.path / f"camera_{args.webcam}", ".mp4")
        inputs.append(Input(args.webcam, place, is_clip=True))
    return inputs


class Progress:
    """A bar with the time left on a terminal; elsewhere, a line now and then."""

    def __init__(self, inputs: Iterable[Input], every: int) -> None:
        counts = [-(-count_frames(x.source) // every) if x.is_clip else 1 for x in inputs]
        self._total = sum(counts) if all(counts) else None
        self._bar = tqdm(total=self._total, desc="detecting", unit="picture", disable=None)
        self._start = self._told = time.monotonic()

    def reach(self, number: int) -> None:
        """Tell that so many pictures are done."""
        self._bar.update(number - self._bar.n)
        now = time.monotonic()
        if self._bar.disable and now - self._told >= LOG_PERIOD:
            self._told = now
            elapsed = now - self._start
            meter = tqdm.format_meter(number, self._total, elapsed, ncols=0, unit="picture")
            logger.info("detecting: %s", meter)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def main() -> int:
    """Detect, draw and list; return 1 if something could not be read or written, else 0."""
    args = parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logger.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # "docker stop" ends it as Ctrl-C
    folder = OutputFolder(args.output)
    inputs = find_inputs(args, folder)
    make_folder(args.output, ELSEWHERE)
    cfg, names = read_model_config(
        args, further=("TEST.SEM_SEG", "False"), lowest_score=args.confidence_threshold
    )
    results = Results(folder, names, args.save, args.json)
    predictor = IONPredictor.from_config(cfg, names)
    drawings = Drawings(folder, names, save=not args.no_drawings, show=args.show)
    progress = Progress(inputs, args.every)
    faults: dict[str, str] = {}
    try:
        shots = read_shots(inputs, args.every, faults)
        for batch in batches(shots, args.batch):
            detect(batch, predictor, args.confidence_threshold, results, drawings, faults)
            progress.reach(results.pictures + len(faults))
    except WindowClosed:
        pass
    except KeyboardInterrupt:
        if args.webcam is None:  # of which it is the usual end
            raise
    finally:
        progress.close()
        finish(results, drawings, faults)
    return int(bool(faults))


def detect(
    shots: list[Shot],
    predictor: IONPredictor,
    threshold: float,
    results: Results,
    drawings: Drawings,
    faults: dict[str, str],
) -> None:
    """Detect on pictures of one size; what the model cannot take is put into ``faults``.

    Raises:
        IONError: a drawing cannot be written, or memory is short.
    """
    try:
        predictions = predictor.predict_batch([shot.image for shot in shots])
    except torch.cuda.OutOfMemoryError as error:
        raise IONError(
            f"The GPU's memory does not suffice for {len(shots)} pictures at a time; lower --batch "
            "or INPUT.MIN_SIZE_TEST."
        ) from error
    except IONError as error:  # of a shape, for instance, that the model cannot take
        faults.update({shot.file: f"{shot.file}: {error}" for shot in shots})
        return
    for shot, prediction in zip(shots, predictions):
        found = prediction["instances"]
        found = found[found.scores >= threshold]
        results.add(shot, found)
        drawings.add(shot, found)


def finish(results: Results, drawings: Drawings, faults: dict[str, str]) -> None:
    """Write what was found until now, also if Ctrl-C ended it, and tell what failed."""
    results.write(faults)
    try:
        drawings.close()
    except IONError as error:
        faults["drawings"] = str(error)
    for fault in faults.values():
        sys.stderr.write(f"error: {fault}\n")
    for line in results.told():
        print(line)


if __name__ == "__main__":
    run_cli(main)
