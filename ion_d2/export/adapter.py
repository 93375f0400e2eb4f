"""A detector as a function of tensors, which is what can be traced."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from unittest import mock

import torch
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

from ..errors import IONError

_ROI_HEADS = "detectron2.modeling.roi_heads"


class DetectorAdapter(nn.Module):
    """Maps one image to its detections: boxes, scores and classes, the surest first.

    Detectron2's ``TracingAdapter`` does the like for any input, but version 0.5 cannot import its
    own without Caffe2.
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        """Wrap a detector, and put it into evaluation mode.

        Raises:
            IONError: it does more at test time than one pass from an image to boxes.
        """
        super().__init__()
        _check_exportable(model)
        self.model = model
        self.eval()  # the adapter too: PyTorch's exporter gives the model its mode back

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            image: (C, H, W) uint8, resized, with its channels in the order of INPUT.FORMAT.

        Returns:
            Boxes (M, 4), x0 y0 x1 y1 in pixels of ``image``, scores (M,) and classes (M,) int64.
        """
        (found,) = self.model.inference([{"image": image}], do_postprocess=False)
        return found.pred_boxes.tensor, found.scores, found.pred_classes

    def example(self) -> Tensor:
        """An image to trace with, of odd sides so that padding becomes part of the trace."""
        side = torch.arange(251, device=self.model.device)
        image = (side[:, None] * side[None, :227]) % 256
        return image.to(torch.uint8).expand(len(self.model.pixel_mean), -1, -1).contiguous()


def _check_exportable(model: nn.Module) -> None:
    if not isinstance(model, GeneralizedRCNN):
        raise IONError(
            f"MODEL.META_ARCHITECTURE is {type(model).__name__!r}, which cannot be exported; use "
            "'ION' or 'GeneralizedRCNN'."
        )
    heads = model.roi_heads
    reads_proposals = model.proposal_generator is None
    runs_twice = getattr(model, "flip_averaging", False)
    masks, keypoints = (getattr(heads, name, False) for name in ("mask_on", "keypoint_on"))
    for found, setting, wanted in (
        (reads_proposals, "MODEL.PROPOSAL_GENERATOR.NAME RPN", "makes its own proposals"),
        (runs_twice, "TEST.FLIP_AVERAGING False", "runs once on an image"),
        (masks, "MODEL.MASK_ON False", "gives boxes, no masks"),
        (keypoints, "MODEL.KEYPOINT_ON False", "gives boxes, no keypoints"),
    ):
        if found:
            raise IONError(f"An exported model {wanted}; export it with {setting}.")


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Inside the ``with`` block, Detectron2's parts can be traced for any number of boxes."""
    with contextlib.ExitStack() as stack:
        for name in ("cascade_rcnn", "fast_rcnn"):
            # They split predictions by the number of boxes of each image, which the built-in len
            # would turn into a constant of the trace.
            counting = mock.patch(f"{_ROI_HEADS}.{name}.len", lambda x: x.__len__(), create=True)
            stack.enter_context(counting)
        # It scales gradients, which there are none of, and TorchScript cannot call Python.
        scaling = f"{_ROI_HEADS}.cascade_rcnn._ScaleGradient.apply"
        stack.enter_context(mock.patch(scaling, lambda x, scale: x))
        stack.enter_context(torch.no_grad())
        stack.enter_context(warnings.catch_warnings())
        # Checks of shapes, which a trace leaves out, and the exporters' own notes.
        warnings.simplefilter("ignore")
        yield
