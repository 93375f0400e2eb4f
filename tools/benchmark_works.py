"""What tools/benchmark.py measures."""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from ion_d2.data import IONDatasetMapper, ensure_registered
from ion_d2.engine.setup import build_model, load_config
from ion_d2.layers import l2_normalize
from ion_d2.modeling import SkipPooler

# Channels and strides of VGG16's conv3, conv4 and conv5, and of the context.
FEATURES = ((256, 4), (512, 8), (512, 16), (512, 16))

Work = Callable[[], None]


def model_works(
    config: str, args: argparse.Namespace, weights: dict[str, Tensor]
) -> dict[str, Work]:
    """An inference and a training step of a config with random weights.

    Args:
        config: its path.
        args: of the command.
        weights: of the models so far, by name. What this one has as well it takes from them: RPNs
            that differ propose other boxes, of which NMS alone can take twice as long.
    """
    own = ["MODEL.ROI_HEADS.NUM_CLASSES", "20", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "21"]
    own += ["MODEL.RPN.POST_NMS_TOPK_TEST", str(args.proposals), "MODEL.WEIGHTS", ""]
    cfg = load_config(config, [*own, *args.opts])
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, own_weights in model.state_dict().items():
        shared = weights.setdefault(name.replace("bottom_up.", ""), own_weights)
        if shared.shape == own_weights.shape:
            own_weights.copy_(shared)
    x = _input(args.image_size)

    def infer() -> None:
        model.eval()
        with torch.no_grad():
            model([x])

    def train() -> None:
        model.train()
        with EventStorage():
            sum(model([x] * args.images).values()).backward()
        model.zero_grad()

    return {"inference": infer, "training step": train}


def _input(size: tuple[int, int]) -> dict:
    """A random picture of (height, width) with ten boxes."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(10, 2, generator=generator) * torch.tensor([width, height]) * 0.6
    extent = torch.rand(10, 2, generator=generator) * torch.tensor([width, height]) * 0.3 + 16
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.cat([start, start + extent], dim=1))
    instances.gt_classes = torch.arange(10)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances}


def pooler_works(args: argparse.Namespace) -> dict[str, Work]:
    """Forward and backward of the paper's steps one by one, and of :class:`SkipPooler`."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    height, width = args.image_size
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in FEATURES]
    features = [
        torch.rand(1, c, height // s, width // s, device=device).requires_grad_()
        for c, s in FEATURES
    ]
    start = torch.rand(args.rois, 2) * torch.tensor([width, height]) * 0.9
    end = start + torch.rand(args.rois, 2) * 300 + 20
    boxes = Boxes(torch.cat([start, end.clamp(max=max(args.image_size) - 1)], 1).to(device))
    pooler = SkipPooler(shapes, pooler_type=args.kind).to(device)
    inputs = [*features, *pooler.parameters()]

    def run(pool: Callable[[list[Tensor], list[Boxes]], Tensor]) -> Work:
        def work() -> None:
            out = pool(features, [boxes])
            torch.autograd.grad(out, inputs, torch.ones_like(out))

        return work

    literal = lambda *given: literal_pooler(pooler, args.kind, *given)  # noqa: E731
    return {"step by step": run(literal), "SkipPooler": run(pooler)}


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
    torch.set_num_threads(1)

    def load() -> None:
        mapper(next(pictures))

    return {"one picture": load}


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
