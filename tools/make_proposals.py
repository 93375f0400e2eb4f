"""Make object proposals for a dataset with OpenCV: Selective Search or EdgeBoxes.

    python tools/make_proposals.py voc:data/VOC2007:trainval trainval.pkl --workers 8

The result is a proposal file of Detectron2 (DATASETS.PROPOSAL_FILES_TRAIN). Ctrl-C stops the run;
the same command goes on where it stopped. It needs OpenCV's contrib modules: `pip uninstall -y
opencv-python opencv-python-headless && pip install opencv-contrib-python-headless`.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog
from proposals_making import Job, generate_proposals
from proposals_opencv import METHODS, build_proposer
from shared_arguments import whole_number

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.setup import run_cli


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="voc:PATH:SPLIT, coco:JSON:IMAGE_DIR or a registered name")
    parser.add_argument("out", help="proposal file to write")
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="default: %(default)s"
    )
    parser.add_argument("--model", metavar="FILE", help="edge model (model.yml.gz) for edge-boxes")
    parser.add_argument(
        "--max-boxes",
        type=whole_number(1),
        default=2000,
        help="the best boxes to keep (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=os.cpu_count(),
        help="processes (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="no boxes for pictures that are broken"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its arguments; None takes them from the command line.

    Raises:
        IONError: bad input.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.model and args.method != "edge-boxes":
        parser.error("--model is read by --method edge-boxes alone")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    signal.signal(signal.SIGTERM, _interrupt)
    ensure_registered([args.dataset])
    dicts = DatasetCatalog.get(args.dataset)
    build = functools.partial(build_proposer, args.method, args.max_boxes, args.model)
    build()  # what is missing shows here, before any worker starts
    settings = {"method": args.method, "max_boxes": args.max_boxes, "model": args.model}
    job = Job(build, args.max_boxes, settings, args.skip_unreadable)
    made = generate_proposals(dicts, job, args.out, num_workers=args.workers)
    total = sum(map(len, made.boxes))
    print(f"Wrote {total} boxes of {len(made.ids)} images to {args.out}")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_cli(main)
