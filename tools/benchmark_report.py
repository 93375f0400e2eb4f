"""What tools/benchmark.py found: tables on the screen, a JSON file, a chart."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping
from typing import Any

import torch
from benchmark_turns import Row
from tabulate import tabulate

from ion_d2.evaluation.results_file import write_json
from ion_d2.files import write_result
from ion_lab.report.charts import Bar, Plot, bars_plot, save_png

Tables = Mapping[str, Mapping[str, Row]]  # rows of figures by title and name


def tell(tables: Tables, plots: Mapping[str, Plot], args: argparse.Namespace) -> None:
    """Print the tables, and write what ``--json`` and ``--chart`` ask for.

    Raises:
        IONError: a file cannot be written.
    """
    machine = describe(args.device)
    told = ", ".join(f"{key} {value}" for key, value in machine.items())
    for title, rows in tables.items():
        print(f"\n{title} ({told})\n{_table(rows)}", flush=True)
    if args.json:
        content = {"command": args.words, "machine": machine, "figures": tables}
        write_json(str(args.json), content, indent=1)
    if args.chart and not plots:
        print(f"There is nothing to draw: {args.chart} is not written.")
    elif args.chart:
        advice = "make room or choose another --chart"
        title = f"{args.command}: {machine['device']}"
        write_result(str(args.chart), lambda file: save_png(file, title, plots), advice)


def describe(device: torch.device) -> dict[str, Any]:
    """What the figures hold for."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"CPU {platform.machine()}"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def plot_bars(tables: Tables) -> dict[str, Plot]:
    """For each table a bar of the seconds of each row."""
    return {
        title: bars_plot(
            [Bar(f"{name}: {it['seconds']:.3g} s", it["seconds"]) for name, it in rows.items()], "s"
        )
        for title, rows in tables.items()
    }


def _table(rows: Mapping[str, Row]) -> str:
    first = next(iter(rows.values()))
    lines = []
    for name, row in rows.items():
        line = {"": name}
        for key, value in row.items():
            if key != "turns":
                line[key] = _text(value)
            if key in ("seconds", "megabytes") and "turns" in row and first[key]:
                line[f"{key}, ratio"] = _text(value / first[key])
        lines.append(line)
    return tabulate(lines, headers="keys", disable_numparse=True, stralign="right")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
