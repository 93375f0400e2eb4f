#!/usr/bin/env python
"""Train the models of a comparison with several seeds each, and write the table and its plot.

    python tools/study.py --list
    python tools/study.py outside-inside --quick
    python tools/study.py outside-inside --out output/study
    python tools/study.py photographs --data bccd=PATH coco=PATH

Ctrl-C stops the trainings; the same command goes on with them, and repeats none that is finished.
docs/STUDY.md tells what each table asks, how long it takes and how to write another.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shared_arguments import whole_number

from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_lab.study import Interrupted, Study, Table, read_table, run_study

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "configs" / "study"
_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", help="a name of --list, or the path of a YAML file")
    parser.add_argument("--list", action="store_true", help="tell the tables there are")
    parser.add_argument("--quick", action="store_true", help="the table's short cut")
    parser.add_argument("--out", type=Path, default=Path("output/study"), help="folder to write")
    parser.add_argument(
        "--seeds", nargs="+", type=whole_number(0), metavar="N", help="instead of the table's"
    )
    parser.add_argument(
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help="trainings at a time; default by cores and memory",
    )
    parser.add_argument(
        "--data",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="folders in VOC layout",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; None takes them from the command line.

    Returns:
        Exit status: 0, 1 after a run that failed, or 130 after Ctrl-C.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    args = build_parser().parse_args(words)
    if args.list or not args.table:
        print_tables()
        return 0
    study = Study(
        table=find_table(args.table),
        out=args.out,
        command=(sys.executable, str(ROOT / "train_net.py")),
        cut="quick" if args.quick else "full",
        seeds=tuple(dict.fromkeys(args.seeds)) if args.seeds else None,
        jobs=args.jobs,
        given=_given(args.data),
        told_command=shlex.join(["python", "tools/study.py", *words]),
        tell=_tell,
    )
    # A kill stops the trainings as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _run(study)


def _run(study: Study) -> int:
    try:
        failures = run_study(study)
    except Interrupted:
        sys.stderr.write("Interrupted. Run the same command to go on.\n")
        return _INTERRUPTED
    print((study.folder / "table.md").read_text(encoding="utf-8"))
    print(f"Written to {study.folder}")
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    return 1 if failures else 0


def print_tables() -> None:
    """Tell every table's name, number of trainings and question."""
    for path in sorted(TABLES.glob("*.yaml")):
        table = read_table(path)
        counts = [
            sum(not row.weights_of for row in table.rows_of(cut))
            * len(table.data)
            * len(table.cuts[cut].seeds)
            for cut in ("full", "quick")
        ]
        print(f"{table.name}: {table.title}")
        print(f"    {table.question}")
        further = ", and what they start from" if table.starts else ""
        print(f"    {counts[0]} trainings, --quick {counts[1]}{further}")


def find_table(name: str) -> Table:
    """A table by its name or path.

    Args:
        name: name of a file in configs/study without its suffix, or the path of a file.

    Returns:
        The table.

    Raises:
        IONError: there is none, or it is wrong.
    """
    path = TABLES / f"{name}.yaml"
    if path.is_file():
        return read_table(path)
    if not name.endswith((".yaml", ".yml")):
        known = ", ".join(sorted(path.stem for path in TABLES.glob("*.yaml")))
        raise IONError(f"There is no table {name!r}; choose from {known}, or give a YAML file.")
    return read_table(Path(name).absolute())


def _given(words: Sequence[str]) -> dict[str, Path]:
    given = {}
    for word in words:
        name, separator, path = word.partition("=")
        if not separator or not name or not path:
            raise IONError(f"--data {word!r} is not NAME=PATH, for instance bccd=datasets/bccd.")
        given[name] = Path(path).expanduser()
    return given


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run_cli(main)
