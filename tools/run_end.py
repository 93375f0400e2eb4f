"""The last words of train_net.py: where everything is, and which commands may come next."""

from __future__ import annotations

import os
import sys

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ion_d2.engine.augmented_test import FOLDER as AUGMENTED
from ion_d2.engine.best import BEST
from ion_d2.engine.checkpoint import FINAL
from ion_d2.engine.run_folder import EVALUATED, TRAINED
from ion_d2.evaluation import evaluation_folder, result_files
from ion_d2.shell import program, python_command
from ion_lab.report.run_report import FILE_NAME as REPORT
from ion_lab.report.training_files import LOSSES, VALIDATION


def describe_end(cfg: CfgNode, *, trained: bool) -> str:
    """Tell what a finished run has left, and what may come next.

    Args:
        cfg: the run's config; its datasets are registered.
        trained: whether it was a training, not an evaluation.

    Returns:
        A few lines; their commands can be run where the program was.
    """
    out = os.path.normpath(cfg.OUTPUT_DIR)
    files = left_files(cfg, out, trained)
    commands = next_commands(cfg, out, trained)
    lines = [f"The run is in {out}"]
    lines += [f"  {kind:<10}{', '.join(names)}" for kind, names in files.items()]
    lines += ["What may come next:"] if commands else []
    lines += [f"  {what:<10}{python_command(*it)}" for what, it in commands.items()]
    return "\n".join(lines)


def left_files(cfg: CfgNode, out: str, trained: bool) -> dict[str, list[str]]:
    """The files that a run has written, by their kind, relative to its folder ``out``."""
    tested = [(evaluation_folder(cfg, name), name) for name in cfg.DATASETS.TEST]
    results = [os.path.join(to, file) for to, name in tested for file in result_files(cfg, name)]
    if cfg.TEST.AUG.ENABLED:
        results += [os.path.join(out, AUGMENTED, os.path.relpath(path, out)) for path in results]
    curves = [os.path.join(out, name) for name in (LOSSES, VALIDATION, "metrics.json")]
    kinds = [  # name, whether this run wrote it, files
        ("weights", trained, [os.path.join(out, f"{FINAL}.pth")]),
        ("best", trained and cfg.TEST.BEST_METRIC, [os.path.join(out, f"{BEST}.pth")]),
        ("results", True, results),
        ("pictures", cfg.TEST.NUM_PICTURES, [os.path.join(to, "pictures") for to, _ in tested]),
        ("curves", trained, curves),
        ("report", cfg.TEST.REPORT, [os.path.join(out, REPORT)]),
    ]
    left = {}
    for kind, wrote, paths in kinds:
        if not wrote:
            continue
        if there := [os.path.relpath(path, out) for path in paths if os.path.exists(path)]:
            left[kind] = there
    return left


def next_commands(cfg: CfgNode, out: str, trained: bool) -> dict[str, list[str]]:
    """The words of the commands that may come next, by what they do."""
    written = os.path.join(out, EVALUATED)
    # Beside a training, an evaluation may have written its own there.
    beside = trained or not os.path.isfile(written)
    config = ["--config-file", os.path.join(out, TRAINED) if beside else written]
    weights = ["MODEL.WEIGHTS", _trained_weights(cfg, out) if trained else cfg.MODEL.WEIGHTS]
    commands = {}
    if trained and cfg.DATASETS.TEST:
        evaluate = [_trainer(), *config, "--eval-only", *weights]
        commands["evaluate"] = evaluate
        # The results in the folder are of the last weights, and a user's own program alone may
        # know the data.
        last = weights[1] == os.path.join(out, f"{FINAL}.pth")
        known = last and _trainer() == program("train_net.py")
        report = [program("tools/report.py"), out] if known else [*evaluate, "TEST.REPORT", "True"]
        commands["report"] = report
    if trained and not cfg.SOLVER.STAGES and not cfg.TEST.PATIENCE:
        longer = ["--resume", "SOLVER.MAX_ITER", str(2 * cfg.SOLVER.MAX_ITER)]
        commands["train on"] = [_trainer(), *config, *longer]
    if cfg.DATASETS.TEST and not cfg.MODEL.LOAD_PROPOSALS:
        picture = DatasetCatalog.get(cfg.DATASETS.TEST[0])[0]["file_name"]
        files = ["--input", picture, "--output", os.path.join(out, "found")]
        commands["detect"] = [program("demo.py"), *config, *files, *weights]
        commands["page"] = [program("tools/try_model.py"), *config, *weights]
    return commands


def _trained_weights(cfg: CfgNode, out: str) -> str:
    best = os.path.join(out, f"{BEST}.pth")
    kept = cfg.TEST.BEST_METRIC and os.path.isfile(best)
    return best if kept else os.path.join(out, f"{FINAL}.pth")


def _trainer() -> str:
    """The program that was started: train_net.py, or a user's own that runs it (docs/DATA.md)."""
    own = os.path.basename(sys.argv[0]) != "train_net.py"
    return os.path.relpath(sys.argv[0]) if own else program("train_net.py")
