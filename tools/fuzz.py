#!/usr/bin/env python
"""Feed damaged files to readers for minutes of a core: each is read, or refused in one sentence.

    python tools/fuzz.py coco --minutes 30
    python tools/fuzz.py all --minutes 2

Ends with status 1 at the first other error, at an input that takes more than a second, or where a
reader asks for more than a GiB. The smallest input that does it is left in the current folder.
"""

from __future__ import annotations

import argparse
import logging
import resource
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from fuzz_changes import check, inputs
from fuzz_readers import READERS
from hypothesis import HealthCheck, Phase, given, seed, settings
from shared_arguments import positive

from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError

_GIB = 1 << 30
_AT_ONCE = 500  # inputs between two looks at the clock


def fuzz(name: str, minutes: float, first_seed: int, folder: Path) -> int:
    """Read inputs of one reader until the time is over; returns how many.

    Raises:
        IONError: a reader raised something else, or took too long.
    """
    reader = READERS[name]
    path = reader.write(folder)
    sound = path.read_bytes()
    count = 0
    end = time.process_time() + 60 * minutes
    while time.process_time() < end:

        @seed(first_seed + count)
        @settings(max_examples=_AT_ONCE, deadline=None, database=None, report_multiple_bugs=False,
                  phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
                  )  # fmt: skip
        @given(inputs(reader, sound))
        def run(content: bytes) -> None:
            nonlocal count
            count += 1
            check(reader, path, content)

        try:
            run()
        except Exception as error:
            # Hypothesis ends with the smallest input, which is the one that the file holds.
            kept = Path(f"fuzz_{name}{path.suffix}")
            kept.write_bytes(path.read_bytes())
            places = traceback.extract_tb(error.__traceback__)[-4:]
            told = " > ".join(f"{Path(place.filename).name}:{place.lineno}" for place in places)
            raise IONError(
                f"{name}, input {count}: {type(error).__name__}: {str(error)[:300]} ({told}); the "
                f"input is {kept}."
            ) from error
    return count


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reader", choices=["all", *READERS])
    parser.add_argument(
        "--minutes", type=positive, default=1.0, help="of one core, for each reader (1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other inputs (0)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; ``argv`` is its arguments, None for those of the command line."""
    args = build_parser().parse_args(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    # Of address space, beside what Python and its packages have by now.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _GIB, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for name in READERS if args.reader == "all" else [args.reader]:
        with tempfile.TemporaryDirectory() as folder:
            count = fuzz(name, args.minutes, args.seed, Path(folder))
        print(f"{name}: {count} inputs in {args.minutes:g} minutes of a core, all read or refused")


if __name__ == "__main__":
    run_cli(main)
