"""Backbones: VGG, as in the paper, and the classifiers of timm."""

from .batch_renorm import BatchRenorm2d
from .timm_backbone import TimmBackbone, build_timm_backbone
from .timm_pyramid import build_timm_fpn_backbone
from .vgg import VGG, build_ion_vgg_backbone

__all__ = [
    "BatchRenorm2d",
    "TimmBackbone",
    "VGG",
    "build_ion_vgg_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
]
