#!/usr/bin/env python
"""Check datasets before a training: labels, pictures, and how the config's anchors fit them.

    python tools/check_dataset.py voc:data/VOC2007:trainval voc:data/VOC2007:test
    python tools/check_dataset.py coco:train.json:images --config-file configs/ion_tiny.yaml \\
        --html output/check.html --json output/check.json INPUT.MIN_SIZE_TRAIN "(480,)"

A dataset is any name that DATASETS.TRAIN takes; several are compared with each other. The exit
status is 1 if there is a finding of the weight "error", which stops a training or falsifies its
figures, and 0 with warnings and notes alone. docs/DATA.md has more.
"""

from __future__ import annotations

import argparse
import logging
import textwrap
from collections.abc import Sequence
from typing import Any

from dataset_anchors import Anchors, anchor_sentences, find_anchor_faults, find_strides, fit_anchors
from dataset_counts import count_tables
from dataset_labels import (
    Dataset,
    find_class_faults,
    find_label_faults,
    find_unlabeled,
    read_dataset,
)
from dataset_page import page_sections
from dataset_pictures import (
    find_copies,
    find_label_map_faults,
    find_picture_faults,
    look_at_all,
)
from dataset_rules import RULES, WEIGHTS, Finding
from detectron2.config import CfgNode, get_cfg
from tabulate import tabulate

from ion_d2.config import add_ion_config
from ion_d2.data.label_faults import anchor_shapes
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.errors import IONError
from ion_d2.evaluation.results_file import write_json
from ion_lab.report import Table, write_report

_EXAMPLES, _WIDTH = 3, 100

Groups = dict[tuple[str, str], list[Finding]]


def check(
    datasets: Sequence[Dataset], cfg: CfgNode | None, *, with_hash: bool = False
) -> tuple[Groups, list[Anchors]]:
    """Find all faults.

    Returns:
        Findings by rule and dataset, the gravest first; and how the anchors fit, if there is a
        config with some: now, and after it better ones if there are any.
    """
    names = [record["file_name"] for dataset in datasets for record in dataset.records]
    looks = look_at_all(names, with_hash=with_hash)
    found = [*find_unlabeled(datasets), *find_class_faults(datasets)]
    for dataset in datasets:
        found += find_label_faults(dataset)
        found += find_picture_faults(dataset, looks)
        found += find_label_map_faults(dataset, cfg, looks)
    found += find_copies(datasets, looks)
    anchors: list[Anchors] = []
    if cfg is not None and anchor_shapes(cfg):
        strides = find_strides(cfg)
        anchors = fit_anchors(datasets, cfg, strides)
        for dataset in datasets:
            found += find_anchor_faults(dataset, cfg, strides)
    return _grouped(found), anchors


def _grouped(found: Sequence[Finding]) -> Groups:
    groups: Groups = {}
    for finding in found:
        groups.setdefault((finding.rule, finding.dataset), []).append(finding)
    gravest = sorted(groups, key=lambda key: WEIGHTS.index(RULES[key[0]].weight))
    return {key: groups[key] for key in gravest}


def print_summary(groups: Groups, tables: Sequence[Table], sentences: Sequence[str]) -> None:
    """Write tables, sentences and findings for a reader."""
    for table in tables:
        print(f"{table.caption}\n{tabulate(table.rows, table.headers, disable_numparse=True)}\n")
    for sentence in sentences:
        print(f"{sentence}\n")
    for (rule, dataset), found in groups.items():
        print(f"{RULES[rule].weight}: {rule}, {len(found):,} in {dataset}")
        _print(f"{RULES[rule].sentence} {RULES[rule].advice}", "  ")
        for finding in found[:_EXAMPLES]:
            _print(finding.place, "  - ")
        if len(found) > _EXAMPLES:
            print(f"  - and {len(found) - _EXAMPLES:,} more")
        print()
    counts = dict.fromkeys(WEIGHTS, 0)
    for (rule, _), found in groups.items():
        counts[RULES[rule].weight] += len(found)
    told = (f"{count:,} {weight}{'' if count == 1 else 's'}" for weight, count in counts.items())
    print(", ".join(told))


def _print(text: str, start: str) -> None:
    # Names of files stay whole, to be copied.
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    indents = {"initial_indent": start, "subsequent_indent": " " * len(start)}
    print(textwrap.fill(text, _WIDTH, **indents, **options))


def as_json(
    datasets: Sequence[Dataset], groups: Groups, anchors: Sequence[Anchors]
) -> dict[str, Any]:
    """All that was found, as data."""
    return {
        "datasets": [
            {
                "name": dataset.name,
                "pictures": len(dataset.records),
                "pictures_without_boxes": len(dataset.empty),
                "classes": dict(dataset.counts),
            }
            for dataset in datasets
        ],
        "anchors": [each._asdict() for each in anchors],
        "findings": [
            {
                "rule": rule,
                "dataset": dataset,
                **RULES[rule]._asdict(),
                "places": [
                    {"place": f.place, "pictures": f.pictures, "annotations": f.boxes}
                    for f in found
                ],
            }
            for (rule, dataset), found in groups.items()
        ],
    }


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="voc:PATH:SPLIT, ...")
    parser.add_argument("--config-file", help="compare with its anchors and label maps")
    parser.add_argument("--json", metavar="FILE", help="write all findings as data")
    parser.add_argument("--html", metavar="FILE", help="write a page with the faulty pictures")
    parser.add_argument(
        "--hash",
        action="store_true",
        help="decode every picture, and look for copies that were scaled or compressed anew",
    )
    return parser


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Datasets, and the KEY VALUE pairs after them."""
    known = get_cfg()
    add_ion_config(known)
    are_keys = [text.partition(".")[0] in known for text in arguments]
    first = [*are_keys, True].index(True)
    return list(arguments[:first]), list(arguments[first:])


def main(argv: Sequence[str] | None = None) -> int:
    """Check, report, and return the exit status.

    Args:
        argv: the arguments; None takes them from the command line.

    Raises:
        IONError: an argument or the config is wrong, or a file cannot be written.
    """
    args = build_parser().parse_intermixed_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    names, opts = split_overrides(args.datasets)
    if not names or (opts and not args.config_file):
        raise IONError("Name one or more datasets, and KEY VALUE only after --config-file FILE.")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise IONError(f"The dataset '{repeated[0]}' is named more than once; keep one of it.")
    cfg = load_config(args.config_file, opts) if args.config_file else None
    datasets = [read_dataset(name, cfg) for name in names]
    groups, anchors = check(datasets, cfg, with_hash=args.hash)
    tables, sentences = count_tables(datasets, cfg), anchor_sentences(anchors, cfg)
    print_summary(groups, tables, sentences)
    if args.json:
        write_json(args.json, as_json(datasets, groups, anchors), indent=1)
    if args.html:
        sections = page_sections(datasets, groups, tables, sentences)
        write_report(args.html, "Dataset check", sections, lead=", ".join(names))
        print(f"Wrote {args.html}")
    return int(any(RULES[rule].weight == "error" for rule, _ in groups))


if __name__ == "__main__":
    run_cli(main)
