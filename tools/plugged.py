"""Models of Detectron2's zoo with ION switched on: building one, and putting one through a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from ion_d2.engine.config_file import find_config
from ion_d2.engine.setup import build_model, load_config
from ion_d2.errors import IONError
from ion_d2.lazy import plug_in_lazy
from ion_d2.modeling import SkipPooler
from ion_d2.plugging import plug_in

# Besides the switches: what makes a step small enough for a CPU.
FAST = {
    "MODEL.WEIGHTS": "",
    "MODEL.DEVICE": "cpu",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    # Random weights are not sure of anything; a few detections are wanted.
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 5,
}
HEIGHT, WIDTH = 96, 128
BOXES = torch.tensor([[8.0, 8, 60, 80], [30, 20, 110, 90]])


class Excluded(Exception):
    """A config that is not to be checked, and why."""


def build_plugged(name: str, opts: Sequence[Any] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """Build e.g. "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml" with ION switched on.

    ``opts`` are further overrides of a YAML config. With the model come the overrides that switched
    ION on (none for a LazyConfig).

    Raises:
        Excluded: it is not a model with ROI heads.
    """
    if name.rsplit("/", 1)[-1].startswith("Base-"):
        raise Excluded("a base for other files, not a model")
    if name.endswith(".py"):
        return _build_lazy(name), {}
    overrides: dict[str, Any] = {}

    def switch_on(cfg: CfgNode) -> None:
        if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
            raise Excluded(f"{cfg.MODEL.META_ARCHITECTURE} has no ROI heads")
        overrides.update(plug_in(cfg))

    fast = [item for pair in FAST.items() for item in pair]
    cfg = load_config(f"model_zoo:{name}", [*fast, *opts], adapt=switch_on)
    return build_model(cfg), overrides


def _build_lazy(name: str) -> nn.Module:
    model = LazyConfig.load(find_config(f"model_zoo:{name}")).model
    if "roi_heads" not in model:
        raise Excluded(f"{model._target_.__name__} has no ROI heads")
    plug_in_lazy(model)
    model.proposal_generator.post_nms_topk = (50, 20)
    model.roi_heads.batch_size_per_image = 16
    model.roi_heads.box_predictor.update(test_score_thresh=0.0, test_topk_per_image=5)
    return instantiate(model)


def make_input(
    model: nn.Module,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    boxes: torch.Tensor = BOXES,
    proposals: torch.Tensor = BOXES + 3,
) -> dict[str, Any]:
    """Make a random image, as Detectron2's mapper does, with what a model asks for.

    All objects, ``boxes`` (N, 4), are of the first class. ``proposals`` (M, 4) are for a model that
    makes none itself.
    """
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    heads = getattr(model, "roi_heads", None)
    instances = Instances(size, gt_boxes=Boxes(boxes), gt_classes=torch.zeros(len(boxes)).long())
    if getattr(heads, "mask_on", False):
        instances.gt_masks = PolygonMasks([[_outline(box)] for box in boxes.tolist()])
    if getattr(heads, "keypoint_on", False):
        where = torch.rand(len(boxes), 17, 2) * (boxes[:, None, 2:] - boxes[:, None, :2])
        where = torch.cat([where + boxes[:, None, :2], torch.full((len(boxes), 17, 1), 2.0)], dim=2)
        instances.gt_keypoints = Keypoints(where)
    inputs = {"image": image, "instances": instances, "height": size[0], "width": size[1]}
    if getattr(model, "sem_seg_head", None) is not None:
        inputs["sem_seg"] = torch.zeros(size).long()
    if getattr(model, "proposal_generator", None) is None:
        inputs["proposals"] = Instances(
            size, proposal_boxes=Boxes(proposals), objectness_logits=torch.zeros(len(proposals))
        )
    return inputs


def _outline(box: list[float]) -> Any:
    x0, y0, x1, y1 = box
    return torch.tensor([x0, y0, x1, y0, x1, y1, x0, y1]).double().numpy()


def exercise(model: nn.Module) -> tuple[dict[str, torch.Tensor], int]:
    """Take a training step and run an inference.

    Returns:
        The losses, and the number of parameter tensors that received a gradient.

    Raises:
        IONError: a loss is not finite, a gradient missing, not finite or zero, or nothing detected.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    open_gates(model)
    optimizer = torch.optim.SGD(trainable.values(), lr=1e-6)
    with EventStorage(), _settling(model):
        losses = model.train()([make_input(model)])
    sum(losses.values()).backward()
    bad = [name for name, loss in losses.items() if not torch.isfinite(loss)]
    if bad:
        raise IONError(f"not finite: {', '.join(bad)}")
    without = [name for name, p in trainable.items() if not _has_gradient(p)]
    if without:
        raise IONError(f"{len(without)} parameters without a gradient: {', '.join(without[:3])}")
    optimizer.step()
    with torch.no_grad():
        found = model.eval()([make_input(model)])[0]["instances"]
    heads = model.roi_heads
    wanted = {
        "pred_boxes": True,
        "pred_masks": heads.mask_on,
        "pred_keypoints": getattr(heads, "keypoint_on", False),
    }
    missing = [field for field, on in wanted.items() if on and not found.has(field)]
    if missing or not len(found):
        raise IONError(f"{len(found)} detections, without {', '.join(missing) or 'any box'}")
    return losses, len(trainable)


@torch.no_grad()
def open_gates(model: nn.Module) -> None:
    """Let context in from the start; no gradient passes a gate that is still 0."""
    for module in model.modules():
        if isinstance(module, SkipPooler) and module.gate is not None:
            module.gate.fill_(0.25)


@contextmanager
def _settling(model: nn.Module) -> Iterator[None]:
    """Give each frozen normalization the statistics of what it gets, as training would have."""
    frozen = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    hooks = [module.register_forward_pre_hook(_settle) for module in frozen]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _settle(module: FrozenBatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
    module.running_var.copy_(variance)
    module.running_mean.copy_(mean)


def _has_gradient(parameter: nn.Parameter) -> bool:
    gradient = parameter.grad
    return gradient is not None and bool(torch.isfinite(gradient).all() and gradient.any())
