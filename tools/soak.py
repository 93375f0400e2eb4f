"""Train and evaluate in turns for a time, and watch the memory and the open files of the process.

    python tools/soak.py --minutes 120 --json soak.json

The training is tools/torture.py's, undisturbed: an evaluation every 50 iterations, two processes
that load pictures. The table tells, for each tenth of the time, the highest resident memory of the
training process, and the most files, threads and child processes that it had.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_arguments import positive
from torture_run import Run
from torture_training import Training, make_scenes

from ion_d2.engine.setup import run_cli
from ion_d2.evaluation.results_file import write_json

OPTIONS = {
    "SOLVER.MAX_ITER": 10**7, "SOLVER.CHECKPOINT_PERIOD": 10**7, "TEST.EVAL_PERIOD": 50,
    "SOLVER.STEPS": "()",
}  # fmt: skip
EVERY = 2.0  # seconds between looks
TENTHS = 10


def look(run: Run) -> dict[str, int]:
    """What the process holds now."""
    place = Path(f"/proc/{run.pid}")
    status = dict(x.split(":", 1) for x in (place / "status").read_text().splitlines())
    return {
        "MiB": int(status["VmRSS"].split()[0]) // 1024,
        "files": len(os.listdir(place / "fd")),
        "threads": int(status["Threads"]),
        "processes": len(run.workers()),
    }


def watch(run: Run, seconds: float) -> list[dict[str, int]]:
    """Look until the time is over, then stop the training in good order."""
    looks, end = [], time.monotonic() + seconds
    while run.running() and time.monotonic() < end:
        looks.append(look(run))
        time.sleep(EVERY)
    if run.running():
        os.kill(run.pid, signal.SIGTERM)
        run.wait(300)
    return looks


def tenths(looks: list[dict[str, int]]) -> list[dict[str, int]]:
    """The most of everything in each tenth of the time."""
    bounds = [i * len(looks) // TENTHS for i in range(TENTHS + 1)]
    parts = [looks[first:end] for first, end in zip(bounds, bounds[1:])]
    return [{name: max(x[name] for x in part) for name in part[0]} for part in parts if part]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if the training went on to the end of the time."""
    parser = argparse.ArgumentParser(description="Train and evaluate for a time.")
    parser.add_argument("--minutes", type=positive, default=120)
    parser.add_argument("--json", help="file for what was seen")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        training = Training(Path(folder, "run"), make_scenes(Path(folder)), workers=2, **OPTIONS)
        (run,) = training.start(marked=False)
        parts = tenths(watch(run, 60 * args.minutes))
        done, errors = training.saved(), run.errors()
    report: dict[str, Any] = {"iterations": done, "status": run.status, "tenths": parts}
    if args.json:
        write_json(args.json, report, indent=1)
    print(f"{done} iterations, an evaluation every {OPTIONS['TEST.EVAL_PERIOD']}; {errors}")
    print("| tenth | " + " | ".join(parts[0]) + " |\n|---|" + "---|" * len(parts[0]))
    for number, part in enumerate(parts, 1):
        print(f"| {number} | " + " | ".join(map(str, part.values())) + " |")
    return int(run.status != 128 + signal.SIGTERM)


if __name__ == "__main__":
    run_cli(main)
