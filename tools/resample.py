#!/usr/bin/env python
"""Tell how far runs differ in AP, and how much of that is a matter of the test pictures.

    python tools/resample.py output/skip output/ion

It draws as many of the test pictures at random as there are, each any number of times (the
bootstrap), and computes COCO's AP anew of what each run detected in them. The standard error of a
difference is its deviation over such draws; a training with another seed differs on top of that.
All runs are compared with the first, on the same draws.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pycocotools.cocoeval import COCOeval
from shared_arguments import short_names, whole_number
from tabulate import tabulate
from tqdm import tqdm

from ion_d2.engine.fit_config import settle_data
from ion_d2.engine.run_folder import EVALUATED, TRAINED
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.errors import IONError
from ion_d2.evaluation.coco_style import coco_style_evaluation
from ion_lab.report.evaluated_run import Outcome, read_outcome


def read_run(folder: Path) -> Outcome:
    """Read what a run detected in its only test set.

    Raises:
        IONError: there is no run, it has no detections, or its test set is not one with labels.
    """
    configs = [path for path in (folder / EVALUATED, folder / TRAINED) if path.is_file()]
    if not configs:
        raise IONError(f"{folder} has no {TRAINED}; give folders that train_net.py has written to.")
    # In quotes, or a folder called 2016 would be taken for a number.
    cfg = load_config(str(configs[0]), ["OUTPUT_DIR", repr(str(folder)), "MODEL.WEIGHTS", ""])
    if len(cfg.DATASETS.TEST) != 1:
        raise IONError(f"{configs[0]} names {len(cfg.DATASETS.TEST)} test sets; evaluate on one.")
    settle_data(cfg, train=False)
    outcome = read_outcome(cfg, cfg.DATASETS.TEST[0])
    if outcome.found is None or not outcome.labeled:
        raise IONError(
            f"{folder} has no detections on labels of {outcome.dataset}; evaluate it with "
            "train_net.py --eval-only."
        )
    return outcome


def draws(outcome: Outcome, count: int) -> Iterator[np.ndarray]:
    """AP and AP50 in percent, first of all pictures, then of ``count`` draws of them."""
    evaluation = coco_style_evaluation(outcome.truth, outcome.found or {}, outcome.class_names)
    params = copy.copy(evaluation.params)
    params.areaRng, params.maxDets = params.areaRng[:1], params.maxDets[-1:]  # objects of any size
    entries = np.empty(len(evaluation.evalImgs), dtype=object)
    entries[:] = evaluation.evalImgs
    pictures = len(evaluation.params.imgIds)
    entries = entries.reshape(len(outcome.class_names), -1, pictures)
    random = np.random.default_rng(0)
    whole = _figures(evaluation, params)
    if np.isnan(whole).any():
        raise IONError(f"No picture of {outcome.dataset} has an object to judge by.")
    yield whole

    def drawn() -> Iterator[np.ndarray]:
        while True:
            picked = random.integers(pictures, size=pictures)
            evaluation.evalImgs = entries[:, :, picked].ravel().tolist()
            yield _figures(evaluation, params)

    # A draw of pictures without an object says nothing; it is the same one in all runs.
    telling = (figures for figures in drawn() if not np.isnan(figures).any())
    yield from itertools.islice(telling, count)


def _figures(evaluation: COCOeval, params: object) -> np.ndarray:
    """AP and AP50 in percent; NaN without an object."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate(params)
    precision = evaluation.eval["precision"]  # (IoUs, recalls, classes, 1, 1); -1: no objects
    known = (part[part > -1] for part in (precision, precision[:1]))
    return np.array([100 * part.mean() if len(part) else np.nan for part in known])


def compare(folders: Sequence[Path], count: int) -> str:
    """The table of all runs.

    Raises:
        IONError: there is one run only, it cannot be read, or they were tested on different data.
    """
    if len(folders) < 2:
        raise IONError("Give two runs or more, the first to compare the others with.")
    outcomes = [read_run(folder) for folder in folders]
    names = {outcome.dataset for outcome in outcomes}
    if len(names) > 1:
        raise IONError(f"The runs were tested on different data: {', '.join(sorted(names))}.")
    found = [
        np.array(list(tqdm(draws(outcome, count), str(folder), count + 1)))
        for outcome, folder in zip(outcomes, folders)
    ]
    names = short_names(folders)
    rows = [[name, *_cells(own, found[0])] for name, own in zip(names, found)]
    headers = [x for name in ("AP", "AP50") for x in (name, "difference", "standard error")]
    aligned = ["left", *("right" for _ in headers)]
    # Not parsed: a run may be called 0.001.
    return tabulate(rows, ["run", *headers], "github", disable_numparse=True, colalign=aligned)


def _cells(own: np.ndarray, first: np.ndarray) -> list[str]:
    apart = own - first
    columns = zip(own[0], apart[0], apart[1:].std(axis=0, ddof=1))
    told = [[f"{value:.2f}" for value in each] for each in columns]
    if own is first:  # from which the others differ
        told = [[figure, "", ""] for figure, *_ in told]
    return [cell for each in told for cell in each]


def main(argv: Sequence[str] | None = None) -> None:
    """Compare and print.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    args = build_parser().parse_args(argv)
    print(compare(args.runs, args.draws))


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders of runs (their OUTPUT_DIR), the first to beat")
    add("--draws", type=whole_number(2), default=200, help="how many (200)")
    return parser


if __name__ == "__main__":
    run_cli(main)
