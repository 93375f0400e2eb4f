"""Cascade Mask R-CNN, Swin-T FPN, context from p5. Needs Detectron2's main branch.

COCO for 3x from random weights; train.init_checkpoint takes others (Swin-T's own as NAME.pth with
?matching_heuristics=True behind it).
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall
from detectron2.modeling import SwinTransformer

from ion_d2.lazy import plug_in_lazy

constants = model_zoo.get_config("common/data/constants.py").constants
model = model_zoo.get_config("common/models/cascade_rcnn.py").model
model.pixel_mean, model.pixel_std = constants.imagenet_rgb256_mean, constants.imagenet_rgb256_std
model.input_format = "RGB"
model.backbone.bottom_up = LazyCall(SwinTransformer)(
    depths=[2, 2, 6, 2], embed_dim=96, num_heads=[3, 6, 12, 24], drop_path_rate=0.2
)
model.backbone.in_features = ("p0", "p1", "p2", "p3")
plug_in_lazy(model)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "RGB"
lr_multiplier = model_zoo.get_config("common/coco_schedule.py").lr_multiplier_3x
optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.weight_decay = 0.05
optimizer.params.overrides = {"relative_position_bias_table": {"weight_decay": 0.0}}
train = model_zoo.get_config("common/train.py").train
train.max_iter = 270000
train.init_checkpoint = ""
