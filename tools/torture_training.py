"""The training that tools/torture.py and tools/soak.py start, and what its folder holds."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import torch
from torture_run import ROOT, Run

from ion_lab.scenes import generate_scenes

STEPS, PERIOD = 25, 5  # iterations of a training, and between its checkpoints
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

    def __init__(
        self, folder: Path, scenes: Path, *, processes: int = 1, workers: int = 0, **further: Any
    ) -> None:
        """Take further options, and processes of the training and of the loading of pictures."""
        self.folder, self._processes = folder, processes
        options = {
            **OPTIONS,
            "DATASETS.TRAIN": f"('voc:{scenes}:trainval',)",
            "DATASETS.TEST": f"('voc:{scenes}:test',)",
            "DATALOADER.NUM_WORKERS": workers,
            "OUTPUT_DIR": folder,
            **further,
        }
        pairs = [str(x) for pair in options.items() for x in pair]
        self._argv = ["--config-file", str(ROOT / "configs/ion_tiny.yaml"), "--resume", *pairs]
        folder.mkdir(parents=True)

    def start(self, *, marked: bool = True) -> list[Run]:
        """Start all of its processes; the first writes."""
        name = self.folder.name
        logs = [self.folder.with_name(f"{name}_{i}.log") for i in range(self._processes)]
        if self._processes == 1:
            return [Run(self._argv, logs[0], marked=marked)]
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
            _load(path)
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


def make_scenes(folder: Path) -> Path:
    """A few small pictures to train and evaluate on."""
    return generate_scenes(
        folder / "VOC", num_train=12, num_test=4, families=("ordinary",), size=128
    ).root


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
