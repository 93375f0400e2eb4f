"""configs/plug/mask_rcnn_R_50_FPN.yaml as a LazyConfig: data and schedule are Detectron2's own.

Detectron2's tools/lazyconfig_train_net.py trains it as it is.
"""

from detectron2 import model_zoo

from ion_d2.lazy import plug_in_lazy

zoo = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, optimizer = zoo.model, zoo.dataloader, zoo.optimizer
lr_multiplier, train = zoo.lr_multiplier, zoo.train
plug_in_lazy(model)
