#!/usr/bin/env python
"""Write report.html for a finished run: tables, curves, and what its model looks at.

    python tools/report.py output/ion_tiny

It reads what training and evaluation left in the folder. `train_net.py --eval-only ... TEST.REPORT
True` reports on other weights.
"""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from run_results import evaluation_keys, read_run_config

from ion_d2.engine.checkpoint import FINAL, IONCheckpointer
from ion_d2.engine.class_names import dataset_classes
from ion_d2.engine.fit_config import settle_data
from ion_d2.engine.run_folder import EVALUATED, TRAINED
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError
from ion_lab.report import write_run_report


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run (its OUTPUT_DIR)")
    parser.add_argument("--output", type=Path, help="file to write (RUN/report.html)")
    parser.add_argument(
        "--cell",
        nargs=2,
        type=float,
        metavar=("Y", "X"),
        default=(0.5, 0.5),
        help="cell whose receptive field is shown, as shares of the image (0.5 0.5)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    args = build_parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if not all(0 <= share <= 1 for share in args.cell):
        raise IONError(f"--cell is {args.cell}; give two shares of the image, from 0 to 1.")
    cfg = setup(args.run)
    model = IONTrainer.build_model(cfg)
    classes = dataset_classes(cfg.DATASETS.TEST)
    IONCheckpointer(model, classes=classes).load_complete(cfg.MODEL.WEIGHTS)
    path = write_run_report(cfg, model, args.output, place=tuple(args.cell))
    print(f"Wrote {path} ({Path(path).stat().st_size / 1e6:.1f} MB)")


def setup(run: Path) -> CfgNode:
    """Read the config of a run, and register its datasets.

    Args:
        run: the folder.

    Returns:
        The config, with the run's folder and its weights.

    Raises:
        IONError: there is no such folder, config, weights or dataset.
    """
    config_file = run / TRAINED
    if not config_file.is_file():
        raise IONError(f"There is no {config_file}; give the folder of a run, its OUTPUT_DIR.")
    evaluated = read_run_config(run / EVALUATED)
    # In quotes, or a folder called 2016 would be taken for a number.
    weights = repr(str(find_weights(run, evaluated)))
    opts = ["OUTPUT_DIR", repr(str(run)), "MODEL.WEIGHTS", weights]
    keys = evaluation_keys(evaluated or {})
    theirs = [part for key, value in keys.items() for part in (key, repr(value))]
    adapt = functools.partial(CfgNode.merge_from_list, cfg_list=theirs)
    cfg = load_config(str(config_file), opts, adapt=adapt)
    settle_data(cfg, train=False)
    return cfg


def find_weights(run: Path, evaluated: dict[str, Any] | None) -> Path | str:
    """Find the weights that the results in a run's folder are of.

    Args:
        run: the folder.
        evaluated: the config of an evaluation after the training.

    Returns:
        The weights of that evaluation, or else the last checkpoint of the training.

    Raises:
        IONError: there is none.
    """
    last, final = run / "last_checkpoint", run / f"{FINAL}.pth"
    named = run / last.read_text().strip() if last.is_file() else final
    if evaluated is not None and (weights := evaluated.get("MODEL", {}).get("WEIGHTS")):
        moved = run / Path(weights).name  # as a part of the folder
        return moved if not Path(weights).is_file() and moved.is_file() else weights
    for path in (named, final):
        if path.is_file():
            return path
    raise IONError(
        f"{run} holds no model_final.pth; `train_net.py --eval-only MODEL.WEIGHTS path/to.pth "
        "TEST.REPORT True` reports on other weights."
    )


if __name__ == "__main__":
    run_cli(main)
