"""Time and peak memory of works that take turns, so that what else a machine does falls on all."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ion_d2 import IONError

Work = Callable[[], object]
Row = dict[str, Any]  # figures by their names

# Writing 5 into it resets a process's peak of resident memory; Linux alone has it.
_CLEAR_PEAK = Path("/proc/self/clear_refs")


def find_device(name: str | None) -> torch.device:
    """The device to measure on, "cpu" or "cuda"; None is a GPU if there is one.

    Raises:
        IONError: there is none of that name here.
    """
    here = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
    if (name or here[0]) not in here:
        raise IONError(f"--device is {name!r}; give what is here: {' or '.join(here)}.")
    return torch.device(name or here[0])


def moment(device: torch.device) -> Any:
    """Now by the CPU's clock; on a GPU, when all that was launched so far is done."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(start: Any, end: Any) -> float:
    """The time from one moment of a device to another."""
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def in_turns(works: Mapping[Any, Work], turns: int, device: torch.device) -> dict[Any, Row]:
    """Run each work once to warm up, then all of them one after another, ``turns`` times.

    Returns:
        For each work "seconds", the median; "turns", all of them in order; and "megabytes", the
        peak of memory beyond what was in use before: of the GPU or (on Linux) the process.
    """
    rows: dict[Any, Row] = {it: {"seconds": 0.0, "turns": [], "megabytes": 0.0} for it in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            before = _reset_peak(device)
            start = moment(device)
            work()
            seconds = seconds_between(start, moment(device))
            if turn:
                row, extra = rows[name], _memory(device, peak=True) - before
                row["turns"].append(seconds)
                row["megabytes"] = max(row["megabytes"], extra)
    for row in rows.values():
        row["seconds"] = statistics.median(row["turns"])
    return rows


def _reset_peak(device: torch.device) -> float:
    """Begin to look for a new peak; what is in use now, in megabytes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR_PEAK.exists():
        _CLEAR_PEAK.write_text("5")
    return _memory(device, peak=False)


def _memory(device: torch.device, peak: bool) -> float:
    if device.type == "cuda":
        return (torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated)(
            device
        ) / 1e6
    if not _CLEAR_PEAK.exists():
        return 0.0
    key = "VmHWM" if peak else "VmRSS"
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3
