"""Download VOC 2007, VOC 2012 and SBD, check and unpack them, and write the lists of "07+12+S".

    python tools/prepare_voc.py datasets

Needs about 8 GB. What is there already is kept: an interrupted run goes on with the archive at
which it stopped, and a finished one returns at once. Archives that you already have go into
datasets/archives. Afterwards, configs/ion_vgg16_voc_seg.yaml trains on the result.
"""

from __future__ import annotations

import argparse
import logging
import os

from voc_lists import write_lists
from voc_release import RELEASES, install_releases

from ion_d2.engine.setup import run_cli


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root",
        nargs="?",
        default=os.environ.get("DETECTRON2_DATASETS", "datasets"),
        help="folder for VOC2007 and VOC2012; by default $DETECTRON2_DATASETS, or datasets",
    )
    parser.add_argument(
        "--archives", help="folder of the downloaded archives; by default ROOT/archives"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its arguments; None takes them from the command line.

    Raises:
        IONError: something cannot be downloaded, unpacked or written.
    """
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    root = os.path.expanduser(args.root)
    archives = os.path.expanduser(args.archives or os.path.join(root, "archives"))
    install_releases(root, archives, RELEASES)
    for name, count in write_lists(root).items():
        print(f"{name}: {count} images")
    print(f"VOC 2007, VOC 2012 and SBD are in {root}; {archives} may be deleted.")


if __name__ == "__main__":
    run_cli(main)
