"""Arguments that several programs have, and what they mean."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode

from ion_d2.engine.fit_config import settle_classes
from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_d2.value_rules import changed, value_of


def whole_number(lowest: int) -> Callable[[str], int]:
    """A reader of whole numbers of 32 bits from ``lowest`` on, for argparse."""

    def number(word: str) -> int:
        value = int(word)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{word} is below {lowest}")
        if value >= 2**31:
            raise argparse.ArgumentTypeError(f"{word} is above {2**31 - 1}")
        return value

    return number


def positive(word: str) -> float:
    """Read a number above 0, for argparse."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(word)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{word} is no number above 0")


def score(word: str) -> float:
    """Read a score of detections, for argparse."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(word)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"{word} is no score; give a number from 0 to 1")


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """The names of files or folders, or their whole paths where two names are alike."""
    names = [Path(path).resolve().name for path in paths]
    return names if len(set(names)) == len(names) else list(map(str, paths))


def refuse_existing(path: str) -> None:
    """Raise an IONError if there is something in the place of a file to write."""
    if Path(path).exists():
        raise IONError(f"{path} exists already; remove it or choose another name.")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a trained model."""
    parser.add_argument("--config-file", required=True, help="config of the model")
    parser.add_argument("--classes", help="text file with one class name a line")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")


def read_model_config(
    args: argparse.Namespace, *, further: Sequence[str] = (), lowest_score: float | None = None
) -> tuple[CfgNode, list[str]]:
    """Read the config that the model's arguments name, and a name for every class; they agree.

    Args:
        args: with those of :func:`add_model_arguments`.
        further: overrides after those of the command line.
        lowest_score: of detections that are wanted; the config's threshold lets them pass.

    Raises:
        IONError: the config, the weights or the classes are missing or wrong.
    """
    cfg = load_config(args.config_file, [*args.opts, *further])
    names = settle_classes(cfg, args.classes, weights=cfg.MODEL.WEIGHTS)
    if lowest_score is not None:
        # Only ever lower: where boxes vote, those of low scores have a voice too.
        keys = [f"MODEL.{part}.SCORE_THRESH_TEST" for part in ("ROI_HEADS", "RETINANET")]
        cfg = changed(cfg, {key: min(value_of(cfg, key), lowest_score) for key in keys})
    return cfg, names
