"""The same with the segmentation loss: configs/ion_vgg16_voc_seg.yaml as a LazyConfig."""

from detectron2.config import LazyCall as L

from ion_d2.lazy import seg_head

from .ion_vgg16_voc import (
    dataloader,
    lr_multiplier,  # noqa: F401
    model,
    optimizer,  # noqa: F401
    train,
)

# 21 classes: those of VOC and the background; weight 1 as in the paper (sec. 3.2).
model.sem_seg_head = L(seg_head)(channels=512, stride=16, num_classes=21, loss_weight=1.0)

dataloader.train.dataset.names = ["voc_2007_trainval_0712S", "voc_2012_trainval_0712S"]
# Where an image has no label map of VOC's own, SBD's.
dataloader.train.dataset.sem_seg_dirs = ["SegmentationSBD"]
dataloader.train.mapper.num_label_ids = 21
train.output_dir = "./output/ion_vgg16_voc_seg_lazy"
