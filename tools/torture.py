"""Kill trainings at bad moments, resume them, and compare with one that nothing disturbed.

    python tools/torture.py --kills 40                 # a training, killed 40 times (SIGKILL)
    python tools/torture.py --kills 10 --processes 2   # one of its two processes is killed
    python tools/torture.py --kills 10 --workers 2     # a process that loads its pictures is killed

The training is train_net.py's, small, on generated scenes and on a CPU. Most kills come while it
evaluates, or while a checkpoint or a result is being written, which a slow disk draws out. After
each kill, every checkpoint in the folder is loaded, and the training goes on with --resume; after
at most five kills it is left to run to its end. The exit status is 0 if nothing was lost, as
docs/RELIABILITY.md tells.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_arguments import whole_number
from torture_run import PHASES, WRITES, Run, wait_until
from torture_training import LONGEST, PERIOD, STEPS, Training, make_scenes

from ion_d2.engine.setup import run_cli
from ion_d2.evaluation.results_file import write_json
from ion_d2.files import make_folder

KILLS_A_TRAINING = 5
MOMENTS = ("checkpoint", "results", "checkpoint", "evaluation", "any")
SECONDS = 60  # after which the others have noticed that a process is lost


class Torment:
    """Kills trainings one after the other, and keeps the account."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args, self._folder = args, folder
        self._draw = random.Random(args.seed)
        self._scenes = make_scenes(folder)
        self.kills: list[dict[str, Any]] = []
        self.trainings: list[dict[str, Any]] = []
        self._whole = self._training("undisturbed")
        self._reference = self._whole.finish()[0]
        if self._reference.status != 0:
            raise RuntimeError(f"The undisturbed training failed: {self._reference.errors()}")

    def _training(self, name: str) -> Training:
        processes, workers = self._args.processes, self._args.workers
        return Training(self._folder / name, self._scenes, processes=processes, workers=workers)

    def run(self) -> None:
        """Kill as often as asked."""
        while len(self.kills) < self._args.kills:
            name = f"training_{len(self.trainings)}"
            training = self._training(name)
            for _ in range(min(KILLS_A_TRAINING, self._args.kills - len(self.kills))):
                if not self._kill_once(training, name):
                    break
            ended = training.finish()
            status = [run.status for run in ended]
            failed = any(each != 0 for each in status)  # None where it hangs
            wrong = [] if failed else training.differences(self._whole)
            said = [line for run in ended for line in run.errors()]
            found = {"training": name, "status": status, "differs": wrong, "said": said}
            self.trainings.append({**found, "ok": not failed and not wrong})
            print(self.trainings[-1], flush=True)

    def _kill_once(self, training: Training, name: str) -> bool:
        moment = MOMENTS[len(self.kills) % len(MOMENTS)]
        started = training.saved()
        runs = training.start()
        hit = self._strike_worker(runs[0]) if self._args.workers else self._strike(runs, moment)
        if not hit:
            for run in runs:
                run.wait(LONGEST)
            return False
        killed_at, phase = time.monotonic(), runs[0].phase
        ended = [run.wait(SECONDS) for run in runs]
        said = [line for run in runs for line in run.errors()]
        done, saved = max(runs[0].marks.done, started), training.saved()
        entry = {
            "training": name, "moment": moment, "phase": phase, "started": started, "done": done,
            "saved": saved, "lost": done - saved, "status": ended, "said": said,
            "seconds": round(time.monotonic() - killed_at, 1),
        }  # fmt: skip
        told = sum(line.startswith("error: ") for line in said) == ended.count(1)
        entry["ok"] = None not in ended and started <= saved and done - saved <= PERIOD and told
        for run in runs:
            run.kill()
        self.kills.append(entry)
        print(entry, flush=True)
        return True

    def _strike(self, runs: list[Run], moment: str) -> bool:
        """Kill one of the processes; False if the training ended before the moment came."""
        first, victim, whole = runs[0], self._draw.choice(runs), self._reference
        if moment == "any":
            wait_until(lambda: not first.running(), self._draw.uniform(0, whole.seconds))
            return victim.kill()
        place = PHASES.index(moment)
        count = whole.marks.counts[place]
        nth = self._draw.randint(1, max(1, count // 2))
        wait_until(lambda: first.marks.counts[place] >= nth or not first.running(), LONGEST)
        time.sleep(self._draw.uniform(0, whole.marks.seconds[place] / count))
        return victim.kill()

    def _strike_worker(self, run: Run) -> bool:
        """Kill one of the processes that load pictures, in a step that is drawn."""
        steps = self._draw.randint(1, STEPS // 2)
        wait_until(lambda: run.marks.steps >= steps or not run.running(), LONGEST)
        workers = run.workers() if run.running() else []
        if workers:
            os.kill(self._draw.choice(workers), signal.SIGKILL)
        return bool(workers)

    def report(self) -> dict[str, Any]:
        """The account in figures."""
        kills, phases = self.kills, Counter(entry["phase"] for entry in self.kills)
        return {
            "kills": len(kills),
            "survived": sum(entry["ok"] for entry in kills),
            "during a write": sum(phases[phase] for phase in WRITES),
            "by phase": dict(phases),
            "most iterations lost": max(entry["lost"] for entry in kills),
            "longest until all had ended, seconds": max(entry["seconds"] for entry in kills),
            "that left a traceback": sum("Traceback" in str(entry["said"]) for entry in kills),
            "trainings": len(self.trainings),
            "equal to the undisturbed one": sum(entry["ok"] for entry in self.trainings),
        }


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description="Kill trainings at bad moments, resume them, compare.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    count, add = whole_number(1), parser.add_argument
    add("--kills", type=count, default=40, help="how often to kill")
    add("--processes", type=count, default=1, help="of the training, on this CPU")
    workers = "processes that load pictures; kill one of these"
    add("--workers", type=whole_number(0), default=0, help=workers)
    add("--seed", type=int, default=0, help="of the choice of moments")
    add("--folder", help="where to train; by default the system's place for it")
    add("--json", help="file for what was done")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if nothing was lost."""
    args = build_parser().parse_args(argv)
    if args.folder is not None:
        make_folder(args.folder, "choose another --folder")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        torment = Torment(args, Path(folder))
        torment.run()
    report = torment.report()
    if args.json:
        write_json(
            args.json, {**report, "each": torment.kills, "ends": torment.trainings}, indent=1
        )
    for name, value in report.items():
        print(f"| {name} | {value} |")
    return int(not all(entry["ok"] for entry in (*torment.kills, *torment.trainings)))


if __name__ == "__main__":
    run_cli(main)
