"""Mask R-CNN, RegNetX-4GF FPN, context from p5. Detectron2 has RegNet in LazyConfig only."""

from detectron2 import model_zoo

from ion_d2.lazy import plug_in_lazy

zoo = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_regnetx_4gf_dds_fpn_1x.py")
model, dataloader, optimizer = zoo.model, zoo.dataloader, zoo.optimizer
lr_multiplier, train = zoo.lr_multiplier, zoo.train
plug_in_lazy(model)
