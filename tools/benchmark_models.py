"""Detectors with inputs, to be measured in turns: built from configs, on one set of weights."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage
from plugged import make_input
from shared_arguments import short_names
from torch import Tensor, nn

from ion_d2 import IONError
from ion_d2.data import IONDatasetMapper, ensure_registered
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.config_file import find_config
from ion_d2.engine.setup import build_model, load_config

_CLASSES = 20  # of models whose number would follow from the data
# "default" is what PyTorch does unasked: on a GPU, convolutions in TF32 and products in float32.
PRECISIONS = ("default", "float32", "tf32", "bf16")


class Detector:
    """A model in one precision, and the batches that it gets."""

    def __init__(self, net: nn.Module, batches: Iterator[list[dict]], precision: str) -> None:
        self.net, self.batches, self.precision = net, batches, precision

    def infer(self) -> None:
        """Detect on the next batch."""
        self.net.eval()
        with torch.no_grad(), tf32(self.precision), self._autocast():
            self.net(next(self.batches))

    def step(self) -> None:
        """The losses of the next batch and their gradients, which stay until ``clear``."""
        self.net.train()
        with EventStorage(), tf32(self.precision):
            with self._autocast():
                losses = sum(self.net(next(self.batches)).values())
            losses.backward()

    def clear(self) -> None:
        """Forget the gradients."""
        self.net.zero_grad(set_to_none=True)

    def train(self) -> None:
        """A training step without the optimizer's."""
        self.step()
        self.clear()

    def _autocast(self) -> torch.autocast:
        enabled = self.precision == "bf16"
        return torch.autocast(self.net.device.type, torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def tf32(precision: str) -> Iterator[None]:
    """Let a GPU compute in TF32, or not, as one of ``PRECISIONS`` asks."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    if precision != "default":
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def build_detectors(args: argparse.Namespace) -> dict[str, Detector]:
    """Build every config with every variant and precision that the command line names.

    Weights are random, and those that two models have in common are the same: RPNs that differ
    propose other boxes, of which NMS alone can take twice as long.
    """
    weights: dict[str, Tensor] = {}
    found: dict[str, Detector] = {}
    if args.dataset is None:
        print("A made picture of {} x {} pixels.".format(*args.image_size))
    for name, (config, variant) in _named(args).items():
        torch.manual_seed(0)
        opts = [*args.opts, *variant]
        if config.endswith(".py"):
            net, cfg = _build_lazy(config, opts, args), None
        else:
            cfg = _load(config, opts, args)
            net = build_model(cfg)
        if generator := getattr(net, "proposal_generator", None):
            generator.post_nms_topk[False] = args.proposals
        if cfg is not None and cfg.MODEL.WEIGHTS:
            IONCheckpointer(net).load(cfg.MODEL.WEIGHTS)
        else:
            _share(net, weights)
        if args.dataset:
            records = DatasetCatalog.get(args.dataset)[: args.pictures]
            pictures = list(filter(None, map(IONDatasetMapper(cfg, args.training), records)))
        else:
            pictures = [random_input(net, args.image_size, args.proposals)]
        for precision in args.precision:
            told = name if precision == "default" else f"{name}, {precision}"
            batches = map(list, zip(*[itertools.cycle(pictures)] * args.images))
            found[told] = Detector(net, batches, precision)
    return found


def _named(args: argparse.Namespace) -> dict[str, tuple[str, list[str]]]:
    """Every config with every variant, by the name that tells it apart; IONError for one twice."""
    named: dict[str, tuple[str, list[str]]] = {}
    shorts = [Path(short).with_suffix("") for short in short_names(args.configs)]
    for (short, config), variant in itertools.product(
        zip(shorts, args.configs), [[], *args.variant]
    ):
        name = " ".join([str(short), *variant])
        if name in named:
            raise IONError(f"{name} is given twice; name each config and each --variant once.")
        named[name] = config, variant
    return named


def _load(config: str, opts: list[str], args: argparse.Namespace) -> CfgNode:
    classes = 0
    if args.dataset:
        ensure_registered([args.dataset])
        classes = len(MetadataCatalog.get(args.dataset).thing_classes)

    def adapt(cfg: CfgNode) -> None:
        cfg.MODEL.WEIGHTS = ""
        heads = cfg.MODEL.ROI_HEADS
        if classes or not heads.NUM_CLASSES:  # which would follow from the data
            heads.NUM_CLASSES = classes or _CLASSES
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = heads.NUM_CLASSES + 1

    device = ["MODEL.DEVICE", str(args.device)]
    return load_config(config, [*device, *opts], adapt=adapt)


def _build_lazy(config: str, opts: list[str], args: argparse.Namespace) -> nn.Module:
    if opts or args.dataset:
        raise IONError(f"{config} is a LazyConfig, which takes neither KEY VALUE nor --dataset.")
    return instantiate(LazyConfig.load(find_config(config)).model).to(args.device)


def _share(net: nn.Module, weights: dict[str, Tensor]) -> None:
    for key, own in net.state_dict().items():
        shared = weights.setdefault(key.replace("bottom_up.", ""), own)
        if shared.shape == own.shape:
            own.copy_(shared)


def random_boxes(count: int, size: tuple[int, int]) -> Tensor:
    """(count, 4) boxes with sides of 20 to 320 pixels, cut at the border of (height, width)."""
    generator = torch.Generator().manual_seed(0)
    limits = torch.tensor([size[1], size[0]])
    start = torch.rand(count, 2, generator=generator) * limits * 0.9
    end = start + torch.rand(count, 2, generator=generator) * 300 + 20
    return torch.cat([start, end.minimum(limits - 1)], dim=1)


def random_input(net: nn.Module, size: tuple[int, int], proposals: int) -> dict:
    """A made picture of (height, width) with ten objects, the same for all models."""
    torch.manual_seed(0)
    return make_input(net, tuple(size), random_boxes(10, size), random_boxes(proposals, size))
