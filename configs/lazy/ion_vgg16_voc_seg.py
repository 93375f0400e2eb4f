"""The same with the segmentation loss: configs/ion_vgg16_voc_seg.yaml as a LazyConfig."""

from detectron2.config import LazyCall as L

from ion_d2.lazy import seg_head

from .ion_vgg16_voc import model

# 21 classes: those of VOC and the background; weight 1 as in the paper (sec. 3.2).
model.sem_seg_head = L(seg_head)(channels=512, stride=16, num_classes=21, loss_weight=1.0)
