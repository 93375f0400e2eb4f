"""Convert, merge and judge files of object proposals.

    python tools/proposals.py convert voc_2007_trainval.mat trainval.pkl --from fast-rcnn
    python tools/proposals.py merge both.pkl selective_search.pkl edge_boxes.pkl
    python tools/proposals.py recall trainval.pkl voc:data/VOC2007:trainval

Proposal files are Detectron2's (DATASETS.PROPOSAL_FILES_TRAIN and PROPOSAL_FILES_TEST).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog
from proposals_convert import BY_FILE, FORMATS, for_dataset, merge_proposals, read_any
from shared_arguments import refuse_existing

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.proposals import Proposals, add_proposals, read_proposals, write_proposals
from ion_d2.engine.setup import run_cli
from ion_d2.evaluation import evaluate_proposals
from ion_d2.evaluation.tables import recall_table

_FORMATS_HELP = """\
--from:
  csv         header image_id,x0,y0,x1,y1[,score]; pixels from 0, right and bottom exclusive
  json        COCO results [{"image_id", "bbox": [x, y, width, height], "score"}, ...],
              or {"ID": [[x0, y0, x1, y1(, score)], ...], ...}
  detectron   a proposal file of Detectron or Detectron2
  fast-rcnn   .mat of an image set: cells boxes [y1 x1 y2 x2] and images, from 1
  mcg         folder of ID.mat: boxes [y1 x1 y2 x2] and scores, from 1
  xyxy        folder of ID.mat: boxes [x1 y1 x2 y2] (and scores), from 1 (Hosang et al.)
  edge-boxes  folder of ID.mat, or one .mat: bbs [x y width height score], from 1
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser(
        "convert", help="from another format", epilog=_FORMATS_HELP, formatter_class=form
    )
    convert.add_argument("source", help="file or folder to read")
    convert.add_argument("out", help="proposal file to write")
    convert.add_argument("--from", dest="format", choices=FORMATS, required=True, help="see below")
    convert.add_argument("--dataset", help="keep its images, called as it calls them; check all")
    convert.add_argument(
        "--fill", action="store_true", help="with --dataset: images that are missing have no boxes"
    )
    merge = commands.add_parser("merge", help="several files of the same images into one")
    merge.add_argument("out", help="proposal file to write")
    merge.add_argument("sources", nargs="+", help="proposal files; their boxes alternate by rank")
    recall = commands.add_parser("recall", help="share of a dataset's objects that are covered")
    recall.add_argument("file", help="proposal file")
    recall.add_argument("dataset", help="voc:PATH:SPLIT, coco:JSON:IMAGE_DIR or a registered name")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its arguments; None takes them from the command line.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command == "convert" and args.fill and not args.dataset:
        parser.error("--fill needs --dataset")
    if args.command == "merge" and len(args.sources) < 2:
        parser.error("merge needs the file to write and two or more files to read")
    if args.command != "recall":
        refuse_existing(args.out)
    if args.command == "convert":
        _convert(args)
    elif args.command == "merge":
        merged = merge_proposals([read_proposals(path) for path in args.sources])
        _write(args.out, merged)
    else:
        _recall(args.file, args.dataset)


def _convert(args: argparse.Namespace) -> None:
    dicts = _dicts(args.dataset) if args.dataset else None
    ids = [record["image_id"] for record in dicts] if dicts else None
    proposals = read_any(args.source, args.format, ids)
    if dicts is not None:
        by_file = args.format in BY_FILE and Path(args.source).is_dir()
        proposals = for_dataset(proposals, dicts, args.dataset, fill=args.fill, by_file=by_file)
    _write(args.out, proposals)


def _recall(path: str, dataset: str) -> None:
    result = evaluate_proposals(add_proposals(_dicts(dataset), read_proposals(path), dataset))
    print(f"{result.num_objects} objects in {result.num_images} images of {dataset}")
    print(recall_table(result))


def _dicts(dataset: str) -> list:
    ensure_registered([dataset])
    return DatasetCatalog.get(dataset)


def _write(path: str, proposals: Proposals) -> None:
    write_proposals(path, proposals)
    total = sum(map(len, proposals.boxes))
    print(f"Wrote {total} boxes of {len(proposals.ids)} images to {path}")


if __name__ == "__main__":
    run_cli(main)
