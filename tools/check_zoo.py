"""Plug ION into every model of Detectron2's zoo that has ROI heads, and see each one work.

    python tools/check_zoo.py
    python tools/check_zoo.py --only FPN --markdown

Each config of COCO-Detection, COCO-InstanceSegmentation and COCO-Keypoints is built with ION
switched on, takes one training step on a small random image, and runs one inference. Every
trainable parameter must have received a gradient that is finite and not zero. Weights are random;
frozen normalizations take the statistics of the image, without which activations would explode.
Configs left out are listed with the reason. The exit status is 1 if any config failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from plugged import Excluded, build_plugged, exercise
from tabulate import tabulate

from ion_d2.engine.config_file import packaged_configs

FOLDERS = ("COCO-Detection/", "COCO-InstanceSegmentation/", "COCO-Keypoints/")
HEADER = ("config", "ROI heads", "pooled features", "parameters", "trained tensors", "losses")


class Outcome(NamedTuple):
    """What was seen of one config.

    ``trained`` counts the parameter tensors that received a gradient; ``overrides`` are the keys
    that switched ION on, none for a LazyConfig.
    """

    name: str
    heads: str
    features: list[str]
    parameters: int
    trained: int
    losses: int
    overrides: dict[str, Any]


def check(name: str, opts: Sequence[Any] = ()) -> Outcome:
    """Build a config of the zoo with ION, see :func:`build_plugged`, and exercise it."""
    torch.manual_seed(0)
    model, overrides = build_plugged(name, opts)
    losses, trained = exercise(model)
    heads = model.roi_heads
    return Outcome(
        name=name,
        heads=type(heads).__name__,
        features=list(heads.in_features),
        parameters=sum(p.numel() for p in model.parameters()),
        trained=trained,
        losses=len(losses),
        overrides=overrides,
    )


def check_all(names: Sequence[str]) -> Iterator[tuple[str, Outcome | Exception]]:
    """Check config after config; an exception stands for one that was excluded or failed."""
    for name in names:
        try:
            yield name, check(name)
        # Whatever a model raises, the others are to be checked too.
        except Exception as error:
            yield name, error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="check configs with this in their name")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    args = parser.parse_args(argv)
    names = [n for n in packaged_configs() if n.startswith(FOLDERS) and args.only in n]
    if not names:
        print(f"error: --only {args.only} fits no config of the model zoo", file=sys.stderr)
        return 1
    results = []
    for name, result in check_all(names):
        print(
            f"{'ok      ' if isinstance(result, Outcome) else _verdict(result)} {name}", flush=True
        )
        results.append((name, result))
    return report(results, "github" if args.markdown else "simple")


def _verdict(error: Exception) -> str:
    return "excluded" if isinstance(error, Excluded) else "FAILED  "


def report(results: Sequence[tuple[str, Outcome | Exception]], style: str) -> int:
    """Print the table, in a format of ``tabulate``, and what failed; 1 if any failed."""
    good = [r for _, r in results if isinstance(r, Outcome)]
    rows = [
        (r.name, r.heads, ", ".join(r.features), f"{r.parameters / 1e6:.1f} M", r.trained, r.losses)
        for r in good
    ]
    print("\n" + tabulate(rows, HEADER, tablefmt=style) + "\n")
    for text, count in Counter(_switches(r.overrides) for r in good if r.overrides).items():
        print(f"{count} configs with {text}")
    print()
    excluded = [(name, e) for name, e in results if isinstance(e, Excluded)]
    failed = [(n, e) for n, e in results if not isinstance(e, (Outcome, Excluded))]
    for title, problems in (("Excluded", excluded), ("Failed", failed)):
        for name, error in problems:
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"{title}: {name}: {reason}")
    total = len(good) + len(failed)
    print(f"\n{len(good)} of {total} configs with ROI heads built, trained a step and inferred.")
    return int(bool(failed))


def _switches(overrides: dict[str, Any]) -> str:
    return " ".join(f'{key} "{value}"' for key, value in overrides.items())


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(main())
