#!/usr/bin/env python
"""Measure how much each feature says of what is in a box; no detector needs to be trained for it.

    python tools/probe.py --config-file configs/real/ion.yaml \\
        DATASETS.TRAIN "('voc:PATH:train',)" DATASETS.TEST "('voc:PATH:val',)"

Logistic regression reads the mean of a feature over a ground truth box and tells its class; it is
trained on boxes of the training set and judged on those of the test set. Each side of a box is
moved at random by up to 40 % of the box's size, as proposals miss their objects. "the picture" is
the mean of the deepest feature over all its cells: what it brings beside the features in the box is
about what context has to offer. The last columns are of small, medium and large objects, as COCO
has them. MODEL.WEIGHTS may be those of a trained detector.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes
from features import build_seeded, features_of
from pycocotools.cocoeval import Params
from shared_arguments import whole_number
from tabulate import tabulate
from torch import Tensor, nn

from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.engine.fit_config import settle_data
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.errors import IONError
from ion_d2.evaluation.image_boxes import ground_truth_from_dict
from ion_d2.modeling.context import CONTEXT
from ion_d2.modeling.model_values import check_features, deepest_of
from ion_d2.modeling.roi_heads.skip_pooler import make_pooler


class Described(NamedTuple):
    """M boxes."""

    features: dict[str, Tensor]  # descriptors (M, C) by name
    classes: Tensor  # (M,)
    areas: Tensor  # (M,), of the ground truth in pixels of the picture's file


_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
_JITTER = 0.4
_PICTURE = "the picture"
# COCO's, in pixels: from, and below which area; all sizes come first.
_SIZES = dict(list(zip(Params().areaRngLbl, Params().areaRng))[1:])


class Describer:
    """Averages the features of a detector over boxes."""

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        self.names = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
        # Of the backbone itself; heads may read context alone.
        self.inside = [it for it in self.names if not it.startswith(CONTEXT)] or self.names
        shapes = model.backbone.output_shape()
        check_features("MODEL.ROI_HEADS.IN_FEATURES", self.names, shapes)
        self.deepest = deepest_of(self.inside, shapes)
        self._poolers = {
            name: make_pooler(7, shapes[name].stride, 2, "ROIAlignV2") for name in self.names
        }
        self._model, self._mapper = model, IONDatasetMapper(cfg, is_train=False)
        self._random = torch.Generator().manual_seed(0)

    def of_dataset(self, names: Sequence[str], limit: int) -> Described:
        """Describe up to ``limit`` boxes of pictures in a random order.

        Raises:
            IONError: there are fewer than two boxes, from which nothing can be told.
        """
        found: dict[str, list[Tensor]] = defaultdict(list)
        classes: list[int] = []
        areas: list[float] = []
        for record in _shuffled(names):
            truth = ground_truth_from_dict(record)
            boxes = Boxes(truth.boxes[~truth.difficult])
            if len(boxes):
                for name, rows in self._of_picture(record, boxes).items():
                    found[name].append(rows)
                classes += truth.classes[~truth.difficult].tolist()
                areas += boxes.area().tolist()
            if len(classes) >= limit:
                break
        if len(classes) < 2:
            raise IONError(
                f"{len(classes)} boxes in {', '.join(names)}; name sets with more in "
                "DATASETS.TRAIN and TEST."
            )
        features = {name: torch.cat(rows)[:limit] for name, rows in found.items()}
        return Described(features, torch.tensor(classes[:limit]), torch.tensor(areas[:limit]))

    @torch.no_grad()
    def _of_picture(self, record: dict[str, Any], boxes: Boxes) -> dict[str, Tensor]:
        inputs = self._mapper(record)
        images = self._model.preprocess_image([inputs])
        features = features_of(self._model, images)
        height, width = inputs["image"].shape[-2:]
        scale = torch.tensor([width / record["width"], height / record["height"]]).repeat(2)
        boxes = self._moved(boxes.tensor * scale, (height, width)).to(images.tensor.device)
        means = {
            name: pooler([features[name]], [boxes]).mean(dim=(2, 3)).cpu()
            for name, pooler in self._poolers.items()
        }
        picture = features[self.deepest].mean(dim=(2, 3)).cpu()
        return {**means, _PICTURE: picture.expand(len(boxes), -1)}

    def _moved(self, corners: Tensor, size: tuple[int, int]) -> Boxes:
        sides = (corners[:, 2:] - corners[:, :2]).repeat(1, 2)
        by = torch.rand(corners.shape, generator=self._random) * 2 - 1
        boxes = Boxes(corners + _JITTER * sides * by)
        boxes.clip(size)
        return boxes


def _shuffled(names: Sequence[str]) -> list[dict[str, Any]]:
    records = [record for name in names for record in DatasetCatalog.get(name)]
    random.Random(0).shuffle(records)
    return records


def judge(train: Described, test: Described, names: Sequence[str], classes: int) -> list[float]:
    """Train on some descriptors together and judge on others.

    Each is normalized to length 1, as skip pooling does, then each channel to a deviation of 1 in
    training. The weight decay is the best one for a fifth of the training boxes that is left out.

    Returns:
        Percent of the test boxes that are right, its standard error, the mean negative
        log-likelihood of the boxes, and percent of those of each size (NaN where there are none).
    """
    x, x_test = (
        torch.cat([F.normalize(it.features[name]) for name in names], dim=1) for it in (train, test)
    )
    y, y_test = train.classes, test.classes
    mean, deviation = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    part = max(len(x) * 4 // 5, 1)

    def left_out(decay: float) -> float:
        scores = _trained(x[:part], y[:part], classes, decay)(x[part:])
        return F.cross_entropy(scores, y[part:]).item()

    scores = _trained(x, y, classes, min(_DECAYS, key=left_out))(x_test)
    each = 100 * (scores.argmax(dim=1) == y_test).float()
    right = each.mean().item()
    error = (right * (100 - right) / len(y_test)) ** 0.5
    of_sizes = [each[its].mean().item() for its in _by_size(test)]
    return [right, error, F.cross_entropy(scores, y_test).item(), *of_sizes]


def _by_size(boxes: Described) -> list[Tensor]:
    return [(boxes.areas >= low) & (boxes.areas < high) for low, high in _SIZES.values()]


def _trained(x: Tensor, y: Tensor, classes: int, decay: float) -> nn.Linear:
    layer = nn.Linear(x.shape[1], classes)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), y) + decay * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer.requires_grad_(False)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    args = build_parser().parse_args(argv)
    cfg = load_config(args.config_file, args.opts)
    settle_data(cfg, train=True)
    describer = Describer(cfg, build_seeded(cfg))
    train, test = (
        describer.of_dataset(names, args.boxes) for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    )
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    singles = [(name,) for name in (*describer.names, _PICTURE)]
    inside = tuple(describer.inside)
    beside = [(describer.deepest, _PICTURE), inside, (*inside, _PICTURE), tuple(describer.names)]
    rows = dict.fromkeys([*singles, *beside])
    table = [[" + ".join(names), *judge(train, test, names, classes)] for names in rows]
    counts = [f"{int(its.sum())} {size}" for size, its in zip(_SIZES, _by_size(test))]
    judges = f"{len(test.classes)} to judge by ({', '.join(counts)})"
    print(f"{len(train.classes)} boxes to train on, {judges}.")
    headers = ["what is read", "right, %", "standard error", "negative log-likelihood", *_SIZES]
    print(tabulate(table, headers, "github", ("", ".1f", ".1f", ".3f", ".1f", ".1f", ".1f")))


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="of a detector, or model_zoo:NAME")
    add(
        "--boxes",
        type=whole_number(10),
        default=3000,
        help="to train on, and to judge by, at most (3000)",
    )
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")
    return parser


if __name__ == "__main__":
    run_cli(main)
