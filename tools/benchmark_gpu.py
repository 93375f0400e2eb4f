"""What a step spends on which operation, and all benchmarks one after another for a GPU."""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from benchmark_models import Detector
from benchmark_parts import LEFT, PartMarks
from benchmark_turns import Row
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from ion_d2.engine.config_file import find_config

_MARK = "part: "
_TOP = 20


def profile_steps(detectors: Mapping[str, Detector], training: bool) -> dict[str, dict[str, Row]]:
    """Profile one run of each detector, after one to warm up.

    Returns:
        Two tables each, of "ms" and "calls": the parts, and the operations that took longest in a
        part. On a GPU these are kernels, on a CPU operators without what they call.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    tables = {}
    for name, detector in detectors.items():
        run = detector.train if training else detector.infer
        run()
        with profile(activities=activities) as prof, PartMarks(detector.net, _mark):
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        milliseconds, calls = operations(prof.events(), detector.net.device.type == "cuda")
        parts: Counter = Counter()
        for (part, _), spent in milliseconds.items():
            parts[part] += spent
        tables[f"{name}: parts"] = {part: {"ms": spent} for part, spent in parts.most_common()}
        tables[f"{name}: operations"] = {
            f"{part}: {kernel[:70]}": {"ms": spent, "calls": calls[part, kernel]}
            for (part, kernel), spent in milliseconds.most_common(_TOP)
        }
    return tables


def _mark(part: str, way: str) -> None:
    with record_function(f"{_MARK}{part}, {way}"):
        pass


def operations(events: Iterable[Any], on_gpu: bool) -> tuple[Counter, Counter]:
    """Milliseconds and calls by part and operation; a mark holds for what its thread does next."""
    milliseconds: Counter = Counter()
    calls: Counter = Counter()
    alone: Counter = Counter()  # kernels that no operator of the host is known to have launched
    parts: dict[int, str] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.name.startswith(_MARK):
            parts[event.thread] = event.name[len(_MARK) :]
            continue
        if event.device_type != DeviceType.CPU:
            alone[event.name] += event.time_range.elapsed_us() / 1e3
            continue
        spent = [(event.name, event.self_cpu_time_total)]
        if on_gpu:
            spent = [(kernel.name, kernel.duration) for kernel in event.kernels]
        for name, microseconds in spent:
            key = parts.get(event.thread, LEFT), name
            milliseconds[key] += microseconds / 1e3
            calls[key] += 1
            alone[name] -= microseconds / 1e3
    for name, left in alone.items():
        if left > 1e-3:
            milliseconds["of no part", name] = left
    return milliseconds, calls


def run_all(args: argparse.Namespace, main: Callable[[list[str]], Any]) -> int:
    """Run every benchmark, and on a GPU the tests of what runs there; 1 if one of them failed.

    Each writes its JSON file and chart into ``args.output`` when it is done, so that what was
    measured before a failure or the end of the time stays.
    """
    for config in args.configs:
        find_config(config)  # or none of it makes sense
    on_gpu = args.device.type == "cuda"
    runs = {name: functools.partial(main, words) for name, words in _commands(args, on_gpu).items()}
    if on_gpu:
        runs = {"tests": _test, **runs}
    else:
        print("No GPU: this shows that all of it runs, not what a GPU would do.")
    failed = []
    for name, run in runs.items():
        start = time.perf_counter()
        try:
            run()
        except Exception:  # the others are wanted all the same
            traceback.print_exc()
            failed.append(name)
        print(f"\n== {name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"Failed: {', '.join(failed)}" if failed else f"Written to {args.output}")
    return int(bool(failed))


def _commands(args: argparse.Namespace, on_gpu: bool) -> dict[str, list[str]]:
    same = ["--device", str(args.device), "--repeats", str(args.repeats)]
    size = ["--image-size", *map(str, args.image_size)]
    models = [*args.configs, "--proposals", str(args.proposals), *same, *size]
    every = ["--precision", "float32", *(["tf32"] if on_gpu else []), "bf16"]
    batch = ["--images", "4" if on_gpu else "1"]
    commands = {
        "infer": ["infer", *models, *every],
        "train": ["train", *models, *every, *batch],
        "parts": ["parts", *models],
        "parts_of_a_step": ["parts", "--training", *models, *batch],
        "profile": ["profile", "--training", *models, *every, *batch],
        "curves": ["curves", *models, *([] if on_gpu else ["--factors", "1", "2"])],
    }
    if args.opts:
        commands = {name: [*words, "--opts", *args.opts] for name, words in commands.items()}
    # Large maps are left to a GPU.
    commands["pooler"] = ["pooler", *same, *size, *([] if on_gpu else ["--rois", "4"])]
    commands["irnn"] = ["irnn", *same, *([] if on_gpu else ["--sizes", "1x4x8x8"])]
    for name, words in commands.items():
        path = str(args.output / name)
        words += ["--json", f"{path}.json", "--chart", f"{path}.png"]
    return commands


def _test() -> None:
    files = ["tests/test_gpu.py", "tests/layers/test_irnn_triton.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "gpu", *files]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True, timeout=240)
