"""Skip pooling against its steps one by one, and what one process loads for a training."""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmark_models import random_boxes
from benchmark_turns import Work
from detectron2.data import DatasetCatalog
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from ion_d2.data import IONDatasetMapper, ensure_registered
from ion_d2.engine.setup import load_config
from ion_d2.layers import l2_normalize
from ion_d2.modeling import SkipPooler

# Channels and strides of VGG16's conv3, conv4 and conv5, and of the context.
FEATURES = ((256, 4), (512, 8), (512, 16), (512, 16))


def pooler_works(args: argparse.Namespace, device: torch.device) -> dict[str, Work]:
    """Forward and backward of the paper's steps one by one, and of :class:`SkipPooler`."""
    torch.manual_seed(0)
    height, width = args.image_size
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in FEATURES]
    features = [
        torch.rand(1, c, height // s, width // s, device=device).requires_grad_()
        for c, s in FEATURES
    ]
    boxes = Boxes(random_boxes(args.rois, args.image_size).to(device))
    pooler = SkipPooler(shapes, pooler_type=args.kind).to(device)
    inputs = [*features, *pooler.parameters()]

    def run(pool: Callable[[list[Tensor], list[Boxes]], Tensor]) -> None:
        out = pool(features, [boxes])
        torch.autograd.grad(out, inputs, torch.ones_like(out))

    literal = functools.partial(literal_pooler, pooler, args.kind)
    pools = {"step by step": literal, "SkipPooler": pooler}
    return {name: functools.partial(run, pool) for name, pool in pools.items()}


def literal_pooler(
    pooler: nn.Module, kind: str, features: list[Tensor], boxes: list[Boxes]
) -> Tensor:
    """Pool, normalize, concatenate, scale and merge, each by an operator of its own."""
    rois = [each.tensor for each in boxes]
    pool = roi_pool if kind == "ROIPool" else functools.partial(roi_align, aligned=True)
    pooled = [pool(x, rois, 7, 1 / s) for x, (_, s) in zip(features, FEATURES)]
    normalized = torch.cat([l2_normalize(x, "roi") for x in pooled], dim=1)
    return pooler.reduce(normalized * pooler.scale.factor[:, None, None])


def data_works(args: argparse.Namespace, folder: Path) -> dict[str, Work]:
    """Loading one picture after another in one thread, as each worker of a training does."""
    cfg = load_config(args.config, args.opts)
    if args.dataset is None:
        print("No dataset given: 20 made pictures of 500 x 375 pixels, without objects.")
        records = _made_pictures(folder)
    else:
        ensure_registered([args.dataset])
        records = DatasetCatalog.get(args.dataset)
    mapper = IONDatasetMapper(cfg, True)
    pictures = itertools.cycle(records)
    torch.set_num_threads(args.threads or 1)
    return {"one picture": lambda: mapper(next(pictures))}


def _made_pictures(folder: Path) -> list[dict]:
    """JPEG files as smooth as photographs, since noise takes longer to decode."""
    generator = np.random.default_rng(0)
    records = []
    for index in range(20):
        colors = generator.integers(0, 256, (38, 50, 3), dtype=np.uint8)
        path = folder / f"{index}.jpg"
        Image.fromarray(colors).resize((500, 375), Image.BICUBIC).save(path)
        records.append(
            {"file_name": str(path), "image_id": index, "height": 375, "width": 500,
             "annotations": []}
        )  # fmt: skip
    return records
