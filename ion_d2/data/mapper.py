"""Dataset dict -> model input, augmentations included."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

from ..errors import IONError
from ..value_rules import changed
from .instance_masks import draw_label_map
from .outlines import corners_of
from .readable import UnreadableImageError, or_skip, read_image_of, too_thin, warn_skipped
from .sem_seg import read_label_map, transform_label_map

_MAX_IDS = 254  # moved by one on the way, they leave 0 and 255 for fills, see transform_label_map


def is_learned(annotation: dict[str, Any], use_difficult: bool) -> bool:
    """Whether a training takes an object: no crowd, nor, unless asked for, one marked difficult."""
    difficult = annotation.get("difficult", 0) and not use_difficult
    return not (annotation.get("iscrowd", 0) or difficult)


class IONDatasetMapper(DatasetMapper):
    """Detectron2's mapper with raw segmentation labels, difficult objects and clear errors.

    Everything that Detectron2's config says about augmentation, masks, keypoints and proposals is
    honored. Label maps are read as raw ids, or drawn from the masks of the objects where there is
    no file, and follow the image's geometry.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        use_difficult: bool = False,
        filter_empty: bool = True,
        skip_unreadable: bool = False,
        num_label_ids: int | None = None,
        ignore_label: int = 255,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            is_train: whether augmentations for training, objects and labels are wanted.
            use_difficult: keep objects marked difficult in training.
            filter_empty: in training, return None for a picture that has objects, but none to train
                on, in which these would be background. Detectron2 leaves out crowds alone.
            skip_unreadable: in training, return None for a picture that cannot be decoded.
            num_label_ids: number of ids in the label maps, the background included; None if the
                model takes no label maps, which are then never opened.
            ignore_label: the id of label pixels that belong to no class.
            **kwargs: the arguments of Detectron2's DatasetMapper.

        Raises:
            IONError: there are more ids than an 8-bit label map has beside the ignored one, or that
                one is none.
        """
        super().__init__(is_train, **kwargs)
        if num_label_ids is not None and num_label_ids > _MAX_IDS:
            raise IONError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_label_ids}, but a label map has at most "
                f"{_MAX_IDS} ids; use fewer classes or MODEL.SEG_REGULARIZER_ON False."
            )
        if num_label_ids is not None and not 0 <= ignore_label <= 255:
            raise IONError(
                f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {ignore_label}, but label maps have 8 bits; "
                "give a number from 0 to 255."
            )
        self.use_difficult = use_difficult
        self.filter_empty = filter_empty
        self.skip_unreadable = skip_unreadable
        self.num_label_ids = num_label_ids
        self.ignore_label = ignore_label

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """The constructor's arguments from a config with ION's keys."""
        if not is_train and cfg.MODEL.KEYPOINT_ON:
            # Detectron2 asks the training data for names of keypoints, which need not be there.
            cfg = changed(cfg, {"MODEL.KEYPOINT_ON": False})
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            **super().from_config(cfg, is_train),
            "use_difficult": cfg.DATASETS.USE_DIFFICULT,
            "filter_empty": cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            "skip_unreadable": cfg.INPUT.SKIP_UNREADABLE,
            "num_label_ids": head.NUM_CLASSES if cfg.MODEL.SEG_REGULARIZER_ON else None,
            "ignore_label": head.IGNORE_VALUE,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """Read the image of a dataset dict and prepare it for the model.

        Returns:
            A new dict with "image", a (C, H, W) tensor, and in training "instances" and, where
            there is a label map (or a mask to draw it from) and the model wants it, "sem_seg", an
            (H, W) int64 tensor of ids. None for a picture that is to be skipped.

        Raises:
            IONError: the picture, label map or mask is missing, broken or of another size.
        """
        found = dataset_dict.get("annotations") if self.is_train and self.filter_empty else None
        if found and not any(is_learned(annotation, self.use_difficult) for annotation in found):
            return None
        try:
            return self._map(copy.deepcopy(dataset_dict))
        except UnreadableImageError as error:
            # At test time, leaving the image out would falsify the result.
            if not (self.skip_unreadable and self.is_train):
                raise or_skip(error) from error
            warn_skipped(error)
            return None

    def _map(self, record: dict[str, Any]) -> dict[str, Any]:
        image = read_image_of(record, self.image_format)
        annotations = record.pop("annotations", None)
        labels = self._labels(record, annotations, image)
        annotations = self._wanted(annotations)
        boxes = None if annotations is None else _xyxy(annotations)
        inputs = T.AugInput(image, boxes=boxes, sem_seg=labels)
        transforms = self._augment(inputs, record["file_name"])
        size = inputs.image.shape[:2]
        record["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        if self.proposal_topk is not None:
            topk = self.proposal_topk
            detection_utils.transform_proposals(record, size, transforms, proposal_topk=topk)
        if annotations is not None:
            record["instances"] = self._instances(annotations, transforms, size)
        if labels is not None and self.num_label_ids is not None:
            moved = transform_label_map(labels, transforms, self.num_label_ids, self.ignore_label)
            record["sem_seg"] = torch.as_tensor(moved)
        return record

    def _augment(self, inputs: T.AugInput, file_name: str) -> T.Transform:
        size = inputs.image.shape[:2]
        try:
            return self.augmentations(inputs)
        except ValueError as error:
            if "height and width must be > 0" not in str(error):  # Pillow's words
                raise
            raise too_thin(file_name, size) from error

    def _wanted(self, annotations: list[dict] | None) -> list[dict] | None:
        """The objects to train on, without the fields that the model does not take."""
        if not self.is_train or annotations is None:
            return None
        unwanted = set() if self.use_instance_mask else {"segmentation"}
        unwanted |= set() if self.use_keypoint else {"keypoints"}
        return [
            {key: value for key, value in annotation.items() if key not in unwanted}
            for annotation in annotations
            if is_learned(annotation, self.use_difficult)
        ]

    def _labels(
        self, record: dict[str, Any], annotations: list[dict] | None, image: np.ndarray
    ) -> np.ndarray | None:
        """The image's label map, from its file or else from the masks of its objects."""
        if not self.is_train:
            return None
        file_name = record.pop("sem_seg_file_name", None)
        if self.num_label_ids is None:
            return None
        ids, (height, width) = (self.num_label_ids, self.ignore_label), image.shape[:2]
        if file_name is None:
            return draw_label_map(annotations or (), height, width, *ids, image=record["file_name"])
        labels = read_label_map(file_name, *ids)
        if labels.shape != (height, width):
            raise IONError(
                f"Segmentation label {file_name} is {labels.shape[1]}x{labels.shape[0]} pixels, "
                f"but its image {record['file_name']} is {width}x{height}; make them of one size."
            )
        return labels

    def _instances(
        self, annotations: list[dict], transforms: T.Transform, size: tuple[int, int]
    ) -> Instances:
        flip = {"keypoint_hflip_indices": self.keypoint_hflip_indices}
        move = detection_utils.transform_instance_annotations
        moved = [move(annotation, transforms, size, **flip) for annotation in annotations]
        for annotation in moved:
            # As an array each, the boxes become a tensor slowly, and torch warns about it.
            annotation["bbox"] = annotation["bbox"].tolist()
        mask_format = self.instance_mask_format
        instances = detection_utils.annotations_to_instances(moved, size, mask_format=mask_format)
        # A cropped mask can be smaller than its cropped box.
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)


def _xyxy(annotations: list[dict]) -> np.ndarray:
    """(N, 4) float32 boxes in absolute corner coordinates."""
    return np.asarray([*map(corners_of, annotations)], dtype=np.float32).reshape(-1, 4)
