"""Datasets: VOC-layout folders, COCO files, segmentation labels, and the mapper to the model."""

from .catalog import class_names, ensure_registered
from .dataset_names import DATASET_FORMS
from .instance_masks import decode_mask, draw_label_map
from .mapper import IONDatasetMapper
from .readable import UnreadableImageError, filter_unreadable, read_image
from .sem_seg import add_label_files, read_label_map, transform_label_map
from .voc_layout import find_classes, load_voc_layout
from .voc_split import read_split
from .voc_xml import Annotation, VOCObject, parse_annotation

__all__ = [
    "DATASET_FORMS",
    "Annotation",
    "IONDatasetMapper",
    "UnreadableImageError",
    "VOCObject",
    "add_label_files",
    "class_names",
    "decode_mask",
    "draw_label_map",
    "ensure_registered",
    "filter_unreadable",
    "find_classes",
    "load_voc_layout",
    "parse_annotation",
    "read_image",
    "read_label_map",
    "read_split",
    "transform_label_map",
]
