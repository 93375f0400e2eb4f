"""Small models and inputs for the tests."""

import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import proposal_utils
from detectron2.modeling.roi_heads import fast_rcnn
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from ion_d2.engine.setup import load_config

# Keeps every test's model a few hundred thousand parameters large.
SMALL = [
    "MODEL.VGG.WIDTH_MULTIPLIER", "0.125", "MODEL.CONTEXT.HIDDEN_DIM", "16",
    "MODEL.CONTEXT.OUT_DIM", "16", "MODEL.SKIP_POOLER.OUT_CHANNELS", "64",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_HEADS.NUM_CLASSES", "3",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4", "MODEL.DEVICE", "cpu",
]  # fmt: skip

# Nothing random: every candidate is sampled, nothing is dropped, no batch statistics.
EXACT = (
    "MODEL.DROPOUT_ON", False, "MODEL.SKIP_POOLER.SCALE_INIT", 10.0, "MODEL.SEG_REGULARIZER_ON",
    True, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 2000, "MODEL.RPN.POSITIVE_FRACTION", 1.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 100000, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", 20, "MODEL.RPN.NMS_THRESH", 0.3,
)  # fmt: skip


def suppress_in_float64(monkeypatch):
    """Detectron2's suppression takes scores of float32 only: all else may run in float64."""
    for module in (proposal_utils, fast_rcnn):
        nms = module.batched_nms
        monkeypatch.setattr(
            module,
            "batched_nms",
            lambda boxes, scores, *args, nms=nms: nms(boxes, scores.float(), *args),
        )


def small_config(*opts, config_file="configs/ion_tiny.yaml"):
    return load_config(config_file, [*SMALL, *map(str, opts)])


def small_model(*opts, config_file="configs/ion_tiny.yaml", seed=0):
    torch.manual_seed(seed)
    return build_model(small_config(*opts, config_file=config_file))


def losses_of(model, *inputs):
    """The losses of a batch in training."""
    with EventStorage():
        return model.train()(list(inputs))


def train_step(model, *inputs):
    """The losses of a batch: finite, as the gradients of all that trains; no other gets any."""
    losses = losses_of(model, *inputs)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.isfinite().all())
        assert reached == parameter.requires_grad, name
    return losses


def make_input(height=96, width=128, *, labels=False, boxes=2, seed=0, proposals=False):
    """An input dict as the mapper makes it."""
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((height, width))
    corners = torch.tensor([[8.0, 8, 40, 48], [30, 20, 90, 80]])[:boxes]
    instances.gt_boxes = Boxes(corners.reshape(-1, 4))
    instances.gt_classes = torch.arange(boxes)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    result = {"image": image, "instances": instances, "height": height, "width": width}
    if labels:
        result["sem_seg"] = torch.randint(0, 4, (height, width), generator=generator)
    if proposals:
        result["proposals"] = make_proposals(height, width, seed=seed)
    return result


def make_proposals(height=96, width=128, *, number=20, seed=0):
    """Precomputed proposals as the mapper makes them."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 4, generator=generator) * torch.tensor([width, height] * 2)
    first, second = corners.split(2, dim=1)
    corners = torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=1)
    scores = -torch.arange(number, dtype=torch.float32)
    return Instances((height, width), proposal_boxes=Boxes(corners), objectness_logits=scores)
