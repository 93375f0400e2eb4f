"""Kill trainings at bad moments, resume them, and compare with one that nothing disturbed.

    python tools/torture.py --kills 40                 # a training, killed 40 times (SIGKILL)
    python tools/torture.py --kills 10 --processes 2   # one of its two processes is killed
    python tools/torture.py --kills 10 --workers 2     # a process that loads its pictures is killed

The training is train_net.py's, small, on generated scenes and on a CPU. Most kills come while it
evaluates, or while a checkpoint or a result is being written, which a slow disk draws out. After
each kill, every checkpoint in the folder is loaded, and the training goes on with --resume; after a
few, it may end. The exit status is 0 if nothing was lost, as docs/RELIABILITY.md tells.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torture_run import PHASES, WRITES, Run, wait_until

from ion_d2.evaluation.results_file import write_json
from ion_lab.scenes import generate_scenes

STEPS, PERIOD = 24, 5  # iterations of a training, and between its checkpoints
KILLS_A_TRAINING = 5
MOMENTS = ("checkpoint", "results", "checkpoint", "evaluation", "any")
SECONDS = 60  # after which the others have noticed that a process is lost
LONGEST = 600  # seconds that a run may take
RESULTS = ("voc_results.json", "detections.json", "evaluations.json", "pictures/*.jpg")

OPTIONS = {
    "MODEL.VGG.WIDTH_MULTIPLIER": 0.125, "MODEL.CONTEXT.HIDDEN_DIM": 16,
    "MODEL.CONTEXT.OUT_DIM": 16,
    "MODEL.SKIP_POOLER.OUT_CHANNELS": 64, "MODEL.ROI_BOX_HEAD.FC_DIM": 32, "MODEL.DEVICE": "cpu",
    "INPUT.MIN_SIZE_TRAIN": "(96,)", "INPUT.MIN_SIZE_TEST": 96, "SEED": 7, "SOLVER.EMA_DECAY": 0.9,
    "SOLVER.MAX_ITER": STEPS, "SOLVER.CHECKPOINT_PERIOD": PERIOD, "SOLVER.IMS_PER_BATCH": 2,
    "TEST.EVAL_PERIOD": 8, "TEST.LOSS": True, "TEST.BEST_METRIC": "validation/total_loss",
    "TEST.NUM_PICTURES": 2, "TEST.REPORT": True, "DISTRIBUTED.TIMEOUT": 30,
}  # fmt: skip


class Training:
    """A folder in which a training is started, killed and resumed."""

    def __init__(self, folder: Path, scenes: Path, processes: int, workers: int) -> None:
        self.folder, self._processes = folder, processes
        options = {
            **OPTIONS,
            "DATASETS.TRAIN": f"('voc:{scenes}:trainval',)",
            "DATASETS.TEST": f"('voc:{scenes}:test',)",
            "DATALOADER.NUM_WORKERS": workers,
            "OUTPUT_DIR": folder,
        }
        pairs = [str(x) for pair in options.items() for x in pair]
        self._argv = ["--config-file", "configs/ion_tiny.yaml", "--resume", *pairs]
        folder.mkdir(parents=True)

    def start(self) -> list[Run]:
        """Start all of its processes; the first writes."""
        logs = [
            self.folder.with_name(f"{self.folder.name}_{i}.log") for i in range(self._processes)
        ]
        if self._processes == 1:
            return [Run(self._argv, logs[0])]
        meeting = {"WORLD_SIZE": str(self._processes), "MASTER_ADDR": "127.0.0.1"}
        meeting["MASTER_PORT"] = _free_port()
        ranks = map(str, range(self._processes))
        return [Run(self._argv, x, RANK=r, LOCAL_RANK=r, **meeting) for x, r in zip(logs, ranks)]

    def finish(self) -> list[Run]:
        """Start, and wait for the end."""
        runs = self.start()
        for run in runs:
            run.wait(LONGEST)
        return runs

    def saved(self) -> int:
        """Iterations that the checkpoint has done from which it goes on; every one must load."""
        for path in self.folder.glob("*.pth"):
            torch.load(path, map_location="cpu", weights_only=False)
        note = self.folder / "last_checkpoint"
        if not note.exists():
            return 0
        return _load(self.folder / note.read_text())["iteration"] + 1

    def differences(self, other: Training) -> list[str]:
        """What differs from another training that has ended, and what should not be there."""
        wrong = [path.name for path in self.folder.rglob("*.tmp")]
        for name in ("model_final.pth", "model_best.pth"):
            if not _same(_load(self.folder / name), _load(other.folder / name)):
                wrong.append(name)
        for pattern in RESULTS:
            files = [
                {x.name: x.read_bytes() for x in y.folder.glob(pattern)} for y in (self, other)
            ]
            if files[0] != files[1] or not files[0]:
                wrong.append(pattern)
        for line in (self.folder / "metrics.json").read_text().splitlines():
            json.loads(line)
        return wrong


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=False)


def _same(one: Any, other: Any) -> bool:
    """Whether two parts of checkpoints are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Torment:
    """Kills trainings one after the other, and keeps the account."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args, self._folder = args, folder
        self._draw = random.Random(args.seed)
        self._scenes = generate_scenes(
            folder / "VOC", num_train=12, num_test=4, families=("ordinary",), size=128
        ).root
        self.kills: list[dict[str, Any]] = []
        self.trainings: list[dict[str, Any]] = []
        self._whole = self._training("undisturbed")
        self._reference = self._whole.finish()[0]
        if self._reference.status:
            raise RuntimeError(f"The undisturbed training failed: {self._reference.errors()}")

    def _training(self, name: str) -> Training:
        args = self._args
        return Training(self._folder / name, self._scenes, args.processes, args.workers)

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
            wrong = [] if any(status) else training.differences(self._whole)
            said = [line for run in ended for line in run.errors()]
            found = {"training": name, "status": status, "differs": wrong, "said": said}
            self.trainings.append({**found, "ok": not any(status) and not wrong})
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
        told = len(said) == ended.count(1) and all(line.startswith("error: ") for line in said)
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
        steps = self._draw.randint(1, STEPS // 4)
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
            "trainings": len(self.trainings),
            "equal to the undisturbed one": sum(entry["ok"] for entry in self.trainings),
        }


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description="Kill trainings at bad moments, resume them, compare.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=40, help="how often to kill")
    parser.add_argument("--processes", type=int, default=1, help="of the training, on this CPU")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that load pictures; kill one of these"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of moments")
    parser.add_argument("--folder", help="where to train; by default the system's place for it")
    parser.add_argument("--json", help="file for what was done")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if nothing was lost."""
    args = build_parser().parse_args(argv)
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
    sys.exit(main())
