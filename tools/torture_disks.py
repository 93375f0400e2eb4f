"""Train on disks that are too small, free space on them, and go on.

    unshare -rm python tools/torture_disks.py   # whoever may mount needs no unshare

Each disk is a tmpfs (Linux) a little larger than the one before, from none to what the training of
tools/torture.py needs. The training must end with one sentence and status 1, and leave no half of a
file; once the disk is large enough, it must go on with --resume to its end. The last disk is
read-only. The exit status is 0 if all did.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from shared_arguments import whole_number
from torture_run import Run
from torture_training import Training, make_scenes

from ion_d2.engine.setup import run_cli

ENOUGH = 2**26  # bytes
OPTIONS = {"SOLVER.MAX_ITER": 8, "SOLVER.CHECKPOINT_PERIOD": 4, "TEST.EVAL_PERIOD": 3}


def mount(folder: Path, options: str) -> None:
    """Put a tmpfs in the place of a folder, or change the one that is there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def faults(training: Training, run: Run) -> list[str]:
    """What should not be where a training met a full disk."""
    found = [path.name for path in training.folder.rglob("*.tmp")]
    lines = [line for line in run.errors() if not line.startswith("error: ")]
    if run.status != 1 or lines or len(run.errors()) != 1:
        found.append(f"status {run.status}, {run.errors()}")
    config = training.folder / "config.yaml"
    if config.exists() and not isinstance(yaml.safe_load(config.read_text()), dict):
        found.append("half a config.yaml")
    training.saved()  # all checkpoints must load
    return found


def fill(folder: Path, scenes: Path, size: int) -> tuple[str, list[str]]:
    """Train on a disk of so many bytes; what it said, and what is wrong."""
    training = Training(folder, scenes, **OPTIONS)
    mount(folder, f"size={size}")
    try:
        (run,) = training.finish()
        if run.status == 0:  # None where it hangs
            return "", []
        said, wrong = " ".join(run.errors()), faults(training, run)
        mount(folder, f"remount,size={ENOUGH}")
        (again,) = training.finish()
        if again.status or training.saved() != OPTIONS["SOLVER.MAX_ITER"]:
            wrong.append(f"resumed: status {again.status}, {again.errors()}")
        return said, wrong
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def read_only(folder: Path, scenes: Path) -> list[str]:
    """Train on a disk that takes nothing; what is wrong."""
    training = Training(folder, scenes, **OPTIONS)
    mount(folder, "ro")
    try:
        (run,) = training.finish()
        return faults(training, run)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every disk was survived."""
    parser = argparse.ArgumentParser(description="Train on disks that are too small.")
    parser.add_argument("--disks", type=whole_number(0), default=8, help="how many sizes")
    args = parser.parse_args(argv)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        scenes = make_scenes(Path(name))
        for i in range(args.disks):
            size = 4096 + int(23e6 * i / args.disks)
            said, wrong = fill(Path(name, f"disk_{i}"), scenes, size)
            bad += bool(wrong)
            print(f"{size // 1024} KiB: {said or 'enough'} {wrong or ''}", flush=True)
        wrong = read_only(Path(name, "read_only"), scenes)
        print(f"read-only: {wrong or 'as it should'}")
    print(f"{args.disks + 1 - bad - bool(wrong)} of {args.disks + 1} disks were survived.")
    return int(bool(bad or wrong))


if __name__ == "__main__":
    run_cli(main)
