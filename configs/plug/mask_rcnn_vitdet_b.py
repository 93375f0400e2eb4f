"""Mask R-CNN on ViTDet-B's feature pyramid, context from p5. Needs Detectron2's main branch.

The model alone: take data, optimizer and schedule from a file of Detectron2's projects/ViTDet.
"""

from detectron2 import model_zoo

from ion_d2.lazy import plug_in_lazy

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
plug_in_lazy(model)
