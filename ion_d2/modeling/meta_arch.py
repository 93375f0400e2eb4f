"""The ION detector: Detectron2's GeneralizedRCNN with context and a segmentation loss."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    GeneralizedRCNN,
    build_sem_seg_head,
)
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..errors import IONError
from .backbone.vgg_weights import take_torchvision_names
from .context import ContextBackbone
from .roi_heads.ion_roi_heads import IONROIHeads
from .seg_head import IONSegHead
from .trainer_settings import BuiltFromConfig

Inputs = list[dict[str, Any]]  # a dict per image
Features = dict[str, Tensor]

_AWAITED = 20  # first batches, of which one should have label maps

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class ION(BuiltFromConfig, GeneralizedRCNN):
    """Inside-Outside Net (Fig. 1) on top of Detectron2's two-stage detector.

    It tells a :class:`ContextBackbone` the size of each image, so that the recurrence stops where
    the image ends (the convolutions below it still read padding), adds the segmentation loss, and
    may average with the mirrored image.
    """

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: IONSegHead | None = None,
        predict_sem_seg: bool = False,
        flip_averaging: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sem_seg_head: the segmentation regularizer, or None.
            predict_sem_seg: whether inference returns the head's predictions as well.
            flip_averaging: whether inference averages its results with the mirrored image's.
            kwargs: the arguments of Detectron2's ``GeneralizedRCNN``.

        Raises:
            IONError: ``flip_averaging`` with ROI heads that cannot.
        """
        super().__init__(**kwargs)
        # Known now: torch.compile or a checkpointing wrapper may be put around the backbone later.
        self._tells_sizes = isinstance(self.backbone, ContextBackbone)
        self.sem_seg_head = sem_seg_head
        self.predict_sem_seg = predict_sem_seg and sem_seg_head is not None
        self.flip_averaging = flip_averaging
        self._awaited = _AWAITED
        if flip_averaging and not isinstance(self.roi_heads, IONROIHeads):
            raise IONError(
                "TEST.FLIP_AVERAGING needs MODEL.ROI_HEADS.NAME IONROIHeads, but the ROI heads are "
                f"{type(self.roi_heads).__name__}."
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the config; IONError if ``MODEL.SEM_SEG_HEAD.NAME`` is no :class:`IONSegHead`."""
        ret = super().from_config(cfg)
        if cfg.MODEL.SEG_REGULARIZER_ON:
            _check_seg_head(cfg)
            ret["sem_seg_head"] = build_sem_seg_head(cfg, ret["backbone"].output_shape())
        ret["predict_sem_seg"] = cfg.TEST.SEM_SEG
        ret["flip_averaging"] = cfg.TEST.FLIP_AVERAGING
        return ret

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Accept a torchvision VGG under torchvision's names, whoever loads it."""
        take_torchvision_names(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, batched_inputs: Inputs) -> Any:
        """Compute losses in training, or else detect.

        Args:
            batched_inputs: Detectron2's input dicts: "image" (3, H, W), maybe "proposals"; in
                training "instances" and, if there are labels, "sem_seg" (H, W) class indices;
                otherwise "height" and "width" of the result in pixels.

        Returns:
            In training, the dict of losses. Otherwise a dict per image with "instances" and, if
            asked for, "sem_seg" (num_classes, height, width) logits.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        targets = None
        if "instances" in batched_inputs[0]:
            targets = [x["instances"].to(self.device) for x in batched_inputs]
        features = self._features(images)
        proposals, losses = self._propose(batched_inputs, images, features, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        losses.update(detector_losses)
        if self.sem_seg_head is not None:
            self._look_for_labels(batched_inputs)
            labels = self._label_maps(batched_inputs, images)
            losses.update(self.sem_seg_head(features, labels)[1])
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return losses

    def inference(
        self,
        batched_inputs: Inputs,
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """Detect, with arguments and results as of ``GeneralizedRCNN.inference``."""
        images = self.preprocess_image(batched_inputs)
        features = self._features(images)
        if detected_instances is None:
            proposals, _ = self._propose(batched_inputs, images, features, None)
            results = self._detect(batched_inputs, images, features, proposals)
        else:
            known = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, known)
        if not do_postprocess:
            return results
        outputs = GeneralizedRCNN._postprocess(results, batched_inputs, images.image_sizes)
        if self.predict_sem_seg:
            self._add_sem_seg(outputs, batched_inputs, images, features)
        return outputs

    def _detect(
        self, inputs: Inputs, images: ImageList, features: Features, proposals: list[Instances]
    ) -> list[Instances]:
        if not self.flip_averaging:
            return self.roi_heads(images, features, proposals, None)[0]
        # Each image is mirrored before it is padded, so that the padding stays where it was.
        flipped = [{**x, "image": x["image"].flip(-1)} for x in inputs]
        mirrored = self._features(self.preprocess_image(flipped))
        return self.roi_heads(images, features, proposals, None, mirrored=mirrored)[0]

    def _features(self, images: ImageList) -> Features:
        if self._tells_sizes:
            return self.backbone(images.tensor, images.image_sizes)
        return self.backbone(images.tensor)

    def _propose(
        self, inputs: Inputs, images: ImageList, features: Features, targets: list[Instances] | None
    ) -> tuple:
        """Proposals and their losses: from the RPN, as they came with the images, or both."""
        given = [x["proposals"].to(self.device) for x in inputs if "proposals" in x]
        if (given or self.proposal_generator is None) and len(given) < len(inputs):
            raise IONError(
                "An image came without proposals, though MODEL.PROPOSAL_GENERATOR.NAME is "
                "PrecomputedProposals or the other images of its batch have some; give proposal "
                "files for all datasets: MODEL.LOAD_PROPOSALS True, DATASETS.PROPOSAL_FILES_TRAIN "
                "and PROPOSAL_FILES_TEST."
            )
        if self.proposal_generator is None:
            return given, {}
        proposals, losses = self.proposal_generator(images, features, targets)
        if given:
            # As in the competition, which mixed MCG's boxes with the RPN's (Table 3).
            proposals = [Instances.cat(pair) for pair in zip(proposals, given)]
        return proposals, dict(losses)

    def _look_for_labels(self, inputs: Inputs) -> None:
        """Warn once if none of the first batches had label maps: the loss would stay 0."""
        if any("sem_seg" in x for x in inputs):
            self._awaited = 0
        elif self._awaited:
            self._awaited -= 1
            if not self._awaited:
                logger.warning(
                    "MODEL.SEG_REGULARIZER_ON is True, but in the first %d passes no image had a "
                    "label map: the segmentation loss trains nothing. Train on data that has some; "
                    "under Detectron2's trainers, which draw none from masks, build the loader "
                    "with ion_d2.data.IONDatasetMapper.",
                    _AWAITED,
                )

    def _label_maps(self, inputs: Inputs, images: ImageList) -> Tensor:
        """Batch the label maps; images without one and padding get the ignored label."""
        shape = (len(inputs), *images.tensor.shape[-2:])
        assert self.sem_seg_head is not None
        ignore = self.sem_seg_head.ignore_value
        labels = torch.full(shape, ignore, dtype=torch.long, device=self.device)
        for target, x in zip(labels, inputs):
            if "sem_seg" in x:
                height, width = x["sem_seg"].shape
                if self.device.type != "cpu":  # where the head does not look at them
                    self.sem_seg_head.check_labels(x["sem_seg"])
                target[:height, :width] = x["sem_seg"].to(self.device)
        return labels

    def _add_sem_seg(
        self, outputs: list[dict], inputs: Inputs, images: ImageList, features: Features
    ) -> None:
        assert self.sem_seg_head is not None
        logits, _ = self.sem_seg_head(features)
        for output, scores, x, size in zip(outputs, logits, inputs, images.image_sizes):
            height, width = x.get("height", size[0]), x.get("width", size[1])
            output["sem_seg"] = sem_seg_postprocess(scores, size, height, width)


def _check_seg_head(cfg: CfgNode) -> None:
    """Refuse heads that cannot be called as the regularizer is."""
    name = cfg.MODEL.SEM_SEG_HEAD.NAME
    found = SEM_SEG_HEADS_REGISTRY.get(name) if name in SEM_SEG_HEADS_REGISTRY else None
    if not (isinstance(found, type) and issubclass(found, IONSegHead)):
        raise IONError(
            f"MODEL.SEG_REGULARIZER_ON is True, but MODEL.SEM_SEG_HEAD.NAME is {name!r}; set it to "
            "'IONSegHead', with MODEL.SEM_SEG_HEAD.IN_FEATURES ['context'] and NUM_CLASSES the "
            "number of object classes plus 1."
        )
