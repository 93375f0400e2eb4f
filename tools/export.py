#!/usr/bin/env python
"""Write a trained detector as TorchScript (.ts) or ONNX (.onnx), for programs without ion_d2.

Or its weights alone as safetensors, which MODEL.WEIGHTS takes as it takes a .pth.

    python tools/export.py --config-file output/config.yaml --output model.onnx --check pictures/ \\
        MODEL.WEIGHTS output/model_final.pth

A .json beside the first two tells the classes and how to prepare a picture; see docs/EXPORT.md.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from demo_inputs import is_picture
from shared_arguments import add_model_arguments, read_model_config, whole_number

from ion_d2.data.readable import read_image
from ion_d2.engine.checkpoint_files import SAFETENSORS, write_safetensors
from ion_d2.engine.predictor import IONPredictor, load_trained
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.export import DetectorAdapter, compare, describe, export_detector, load_exported


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--output", required=True, type=Path, help="file to write, .ts, .onnx or .safetensors"
    )
    parser.add_argument(
        "--check", metavar="FOLDER", type=Path, help="compare results and time on its pictures"
    )
    parser.add_argument(
        "--limit",
        type=whole_number(1),
        default=20,
        help="pictures to compare on (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export and, if asked to, compare.

    Args:
        argv: the arguments; None takes them from the command line.

    Returns:
        1 if the exported model differs from the original, else 0.
    """
    args = build_parser().parse_intermixed_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if args.output.suffix not in (".ts", ".onnx", SAFETENSORS):
        told = "must end in .ts, .onnx or .safetensors, which tells the format"
        raise IONError(f"--output {args.output} {told}.")
    if args.check is not None and args.output.suffix == SAFETENSORS:
        raise IONError(f"--check compares detectors, and {args.output} is to hold weights alone.")
    pictures = None if args.check is None else find_pictures(args.check, args.limit)
    further = ["TEST.AUG.ENABLED", "False"]  # which runs a detector several times
    if args.output.suffix == ".onnx":  # ONNX Runtime has devices of its own
        further += ["MODEL.DEVICE", "cpu"]
    cfg, names = read_model_config(args, further=further)
    if args.output.suffix == SAFETENSORS:
        write_safetensors(str(args.output), load_trained(cfg, names), names)
        print(f"Wrote {args.output}")
        return 0
    model = cfg.MODEL
    if model.LOAD_PROPOSALS and model.PROPOSAL_GENERATOR.NAME != "PrecomputedProposals":
        told = "An exported model makes its own proposals and reads no others"
        raise IONError(f"{told}; export it with MODEL.LOAD_PROPOSALS False.")
    predictor = IONPredictor.from_config(cfg, names)
    export_detector(predictor.model, args.output, describe(cfg, names))
    print(f"Wrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB) and its .json")
    return 0 if pictures is None else check(predictor, args.output, pictures)


def find_pictures(folder: Path, limit: int) -> list[Path]:
    """List the first pictures of a folder by name.

    Args:
        folder: where to look; not in its subfolders.
        limit: how many to return at most.

    Raises:
        IONError: there are none.
    """
    pictures = sorted(filter(is_picture, folder.glob("[!.]*")))
    if not pictures:
        raise IONError(f"--check {folder} holds no picture; give a folder of pictures.")
    return pictures[:limit]


def check(predictor: IONPredictor, path: Path, pictures: Sequence[Path]) -> int:
    """Compare an exported model with its original, and print how far apart they are.

    Args:
        predictor: holds the original.
        path: the exported model.
        pictures: files to compare on.

    Returns:
        1 if they differ or a picture cannot be read, else 0.

    Raises:
        IONError: neither finds anything.
    """
    faults: list[str] = []
    images = _prepared(predictor, pictures, faults)
    result = compare(DetectorAdapter(predictor.model), load_exported(path), images)
    for fault in faults:
        sys.stderr.write(f"error: {fault}\n")
    if len(faults) == len(pictures):
        return 1
    print(f"{len(pictures) - len(faults)} pictures, {result.detections} detections")
    print(f"without counterpart: {result.missing} of the original, {result.extra} exported")
    print(f"largest difference: box {result.box_error:.2g} pixels, score {result.score_error:.2g}")
    for name, seconds in (
        ("original", result.original_seconds),
        ("exported", result.exported_seconds),
    ):
        print(f"{name}: median {statistics.median(seconds) * 1000:.1f} ms a picture")
    print(f"time of the exported model relative to the original: {result.time_ratio:.2f}")
    if not result.detections and not result.extra:
        raise IONError(
            f"The models find nothing on these pictures, so that nothing of {path} was compared; "
            "give other pictures, or a lower MODEL.ROI_HEADS.SCORE_THRESH_TEST."
        )
    return 0 if result.agrees and not faults else 1


def _prepared(
    predictor: IONPredictor, pictures: Sequence[Path], faults: list[str]
) -> Iterator[torch.Tensor]:
    """Read pictures for the model; what cannot be is left out, and told in ``faults``."""
    for file in pictures:
        try:
            image = read_image(str(file), "BGR")
        except IONError as error:
            faults.append(str(error))
            continue
        try:
            yield predictor.preprocess(image)
        except IONError as error:
            faults.append(f"{file}: {error}")


if __name__ == "__main__":
    run_cli(main)
