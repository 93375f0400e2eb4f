"""Write a set of synthetic scenes in VOC layout: the demo's data and a measuring instrument.

    python tools/make_scenes.py scenes --train 600 --test 120

docs/STUDY.md tells what the pictures show. Repeating a command finds its set and returns at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ion_d2.engine.setup import run_cli
from ion_lab.scenes import FAMILY_CLASSES, generate_scenes


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description="Write a set of synthetic scenes in VOC layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", help="folder to write; new, empty, or an earlier set to replace")
    parser.add_argument("--train", type=int, default=600, help="pictures in split trainval")
    parser.add_argument("--test", type=int, default=120, help="pictures in split test")
    parser.add_argument(
        "--families",
        nargs="+",
        metavar="NAME",
        default=["outside", "inside", "ordinary"],
        help=f"families of classes, of: {', '.join(FAMILY_CLASSES)}",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument(
        "--distance",
        type=int,
        metavar="MIN",
        help="least rows between a cue and its objects, in pixels; by default what keeps the cue "
        "out of the sight of VGG16's conv5",
    )
    parser.add_argument(
        "--cue", choices=["band", "balanced"], default="band", help="kind of region cue"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its arguments; None takes them from the command line.
    """
    args = build_parser().parse_args(argv)
    scenes = generate_scenes(
        args.out,
        num_train=args.train,
        num_test=args.test,
        families=args.families,
        seed=args.seed,
        size=args.size,
        distance=args.distance,
        cue=args.cue,
    )
    verb = "Wrote" if scenes.written else "Already there:"
    print(f"{verb} {scenes.num_train} + {scenes.num_test} scenes in {scenes.root}")


if __name__ == "__main__":
    run_cli(main)
