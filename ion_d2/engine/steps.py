"""One optimizer step from several forward and backward passes, and distributed wrapping."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Callable

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..compat import write_losses
from .finite import (
    NotFiniteError,
    check_gradients,
    check_losses,
    check_scale,
    describe,
    tell_divergence,
)

logger = logging.getLogger(__name__)

Losses = dict[str, Tensor]


def wrap_distributed(model: nn.Module) -> nn.Module:
    """Wrap a model so that processes average their gradients, if there are several.

    Which of its parameters are trained may not change while it is wrapped.
    """
    if comm.get_world_size() == 1:
        return model
    return DistributedDataParallel(model, broadcast_buffers=False)


def unwrap_distributed(model: nn.Module) -> nn.Module:
    """Take the model out of what :func:`wrap_distributed` returned."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def share_buffers(model: nn.Module) -> None:
    """Give the main process's buffers, which checkpoints hold, to all processes.

    Each has statistics of its own where batches are normalized. An evaluation, of which each does a
    share, would otherwise be of no model that is saved.
    """
    if comm.get_world_size() > 1:
        for buffer in unwrap_distributed(model).buffers():
            torch.distributed.broadcast(buffer, 0)


def accumulate_gradients(
    model: nn.Module,
    images: list[dict[str, Any]],
    images_per_pass: int,
    forward: Callable[[list[dict[str, Any]]], Losses] | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Losses:
    """Add to the parameters' gradients those of the mean loss over images, in several passes.

    The losses of the RPN, of IONROIHeads' boxes and of the segmentation head are means over images,
    so that the result is that of one pass over all, if the model treats each image alike in both.
    It does so up to rounding where nothing is random (sampling of boxes, dropout), no batch
    statistics are used or measured (batch normalization; ``MODEL.SKIP_POOLER.SCALE_INIT`` 0) and
    all images have one size, so that none is padded. Detectron2's losses of masks, keypoints,
    cascades and C4 heads are means over the ROIs of a pass. Processes exchange gradients once, in
    the last pass, which may have fewer images.

    Args:
        model: maps a list of input dicts to its losses; may be wrapped for distributed training.
        images: input dicts, one per image.
        images_per_pass: images of one pass; 0 for all.
        forward: calls the model; None to call it plainly.
        backward: adds the gradients of a scalar.

    Returns:
        The losses of all images, detached.
    """
    size = images_per_pass or len(images)
    total: Losses = {}
    for start in range(0, len(images), size):
        part, last = images[start : start + size], start + size >= len(images)
        apart = not last and isinstance(model, DistributedDataParallel)
        with model.no_sync() if apart else contextlib.nullcontext():
            weight = len(part) / len(images)
            losses = {k: v * weight for k, v in (forward or model)(part).items()}
            loss: Any = sum(losses.values())
            backward(loss)
        for name, value in losses.items():
            total[name] = total.get(name, 0) + value.detach()
    return total


class PassTrainer(SimpleTrainer):
    """Detectron2's training step, in passes over ``images_per_pass`` images each (0: all)."""

    images_per_pass = 0
    most_skipped = 0  # steps that may be left out, since a loss or a gradient is not finite
    skipped = 0  # those so far
    honored_settings = ("SOLVER.IMS_PER_PASS", "SOLVER.SKIP_NON_FINITE")

    def run_step(self) -> None:
        """Draw a batch, accumulate the gradients of its passes, and step the optimizer.

        Raises:
            IONError: a loss or a gradient is NaN or infinite, once too often.
        """
        start = time.perf_counter()
        images = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        kept = unwrap_distributed(self.model).state_dict() if self.most_skipped else {}
        before = {name: value.clone() for name, value in kept.items()}
        try:
            losses = accumulate_gradients(
                self.model, images, self.images_per_pass, self._forward, self._backward
            )
            check_losses(losses)
            self.after_backward()
            write_losses(self, losses, data_time)
            self._update()
        except FloatingPointError as error:
            if not self._may_skip(error):
                rate = self.optimizer.param_groups[0]["lr"]
                raise tell_divergence(error, self.iter, images, rate, self.skipped) from error
            # A forward pass may have measured statistics that are not finite either.
            unwrap_distributed(self.model).load_state_dict(before)
            self.skipped += 1
            told = "Skipped iteration %d (%d of at most %d, SOLVER.SKIP_NON_FINITE): %s."
            fault = describe(error, images)
            logger.warning(told, self.iter, self.skipped, self.most_skipped, fault)
        if self.most_skipped:
            get_event_storage().put_scalar("skipped_steps", self.skipped, smoothing_hint=False)

    def _may_skip(self, error: FloatingPointError) -> bool:
        # What one process alone has met has left the others waiting for its gradients.
        common = isinstance(error, NotFiniteError) or comm.get_world_size() == 1
        return common and self.skipped < self.most_skipped

    def state_dict(self) -> dict[str, Any]:
        """A step's state; the number of skipped steps is in it once there are any."""
        state = super().state_dict()
        return {**state, "skipped": self.skipped} if self.skipped else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict.get("skipped", 0)
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "skipped"})

    def after_backward(self) -> None:
        """Call the hooks that want to see the gradients; Detectron2 0.5 has no such call."""
        for hook in self._hooks:
            if hasattr(hook, "after_backward"):
                hook.after_backward()

    def _forward(self, images: list[dict[str, Any]]) -> Losses:
        return self.model(images)

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        check_gradients(self.optimizer)
        self.optimizer.step()


class AMPPassTrainer(PassTrainer, AMPTrainer):
    """The same in mixed precision; gradients are scaled in float16 only, as bfloat16 needs none."""

    def __init__(self, *args: Any, precision: torch.dtype = torch.float16, **kwargs: Any) -> None:
        """Take Detectron2's arguments, and what autocast computes in, float16 or bfloat16."""
        if kwargs.get("grad_scaler") is None:
            scaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)
            kwargs["grad_scaler"] = scaler(enabled=precision == torch.float16)
        super().__init__(*args, **kwargs)
        # Detectron2's AMPTrainer takes this one, but does not pass it on to its base.
        self.async_write_metrics = kwargs.get("async_write_metrics", False)
        self.precision = precision
        self._device_type = next(self.model.parameters()).device.type

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a step's state, of a training in another precision as well."""
        scale = state_dict.get("grad_scaler") or self.grad_scaler.state_dict()
        super().load_state_dict({**state_dict, "grad_scaler": scale})

    def _forward(self, images: list[dict[str, Any]]) -> Losses:
        with torch.autocast(self._device_type, dtype=self.precision):
            return self.model(images)

    def _backward(self, loss: Tensor) -> None:
        self.grad_scaler.scale(loss).backward()

    def _update(self) -> None:
        if not self.grad_scaler.is_enabled():  # which skips steps that are not finite
            check_gradients(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        check_scale(self.grad_scaler.get_scale())
