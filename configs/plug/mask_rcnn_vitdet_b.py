"""Mask R-CNN on ViTDet-B's feature pyramid, context from p5. Needs Detectron2's main branch.

COCO for 3x with Detectron2's usual pictures. The authors' recipe (100 epochs, 64 pictures a step,
large-scale jitter) is in Detectron2's projects/ViTDet: its dataloader and schedule can take the
place of these.
"""

from functools import partial

from detectron2 import model_zoo
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

from ion_d2.lazy import plug_in_lazy

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
plug_in_lazy(model)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "RGB"
lr_multiplier = model_zoo.get_config("common/coco_schedule.py").lr_multiplier_3x
optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, num_layers=12, lr_decay_rate=0.7)
optimizer.params.overrides = {"pos_embed": {"weight_decay": 0.0}}
train = model_zoo.get_config("common/train.py").train
train.max_iter = 270000
train.init_checkpoint = (
    "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth?matching_heuristics=True"
)
