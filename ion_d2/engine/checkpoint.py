"""Checkpointer: Detectron2's, with clear errors and harmless failures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..errors import IONError
from . import class_names
from .averaging import EMA, averaged_weights
from .checkpoint_files import reading, write_atomically
from .finite import check_weights
from .steps import unwrap_distributed

# Buffers of batch normalization, in all its kinds, that are learned as parameters are.
_STATISTICS = ("running_mean", "running_var")


class IONCheckpointer(DetectionCheckpointer):
    """Loads and saves models with their training state; a drop-in for Detectron2's checkpointer.

    Bad files raise ``IONError``, and so does one of which nothing fits the model. A save that fails
    or is interrupted leaves every earlier file as it was.

    Where a file holds a moving average of the weights (``SOLVER.EMA_DECAY``), the average is what
    is loaded, unless a training is resumed from it.

    The names of the classes travel with the weights: a file whose classes are not those at hand may
    start a training, with a warning, but is neither resumed from nor loaded as a trained model.
    """

    _source = ""  # what is being loaded, as the user named it
    _resuming = False
    _complete = False  # whether every parameter must be there

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        classes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            model: whose weights are loaded and saved.
            save_dir: folder of the checkpoints; "" saves none.
            classes: names of the model's classes, by id; None takes those of the file, if it tells.
            kwargs: training states to load and save, and options of Detectron2's checkpointer.
        """
        super().__init__(model, save_dir, **kwargs)
        self._classes = classes
        if classes is not None:
            class_names.name_classes(model, classes)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights, and training state where the file has it.

        Args:
            path: a file or URL; "" loads nothing.
            checkpointables: names of the training states to load; None loads all there are.

        Returns:
            What else the file holds, e.g. the iteration.

        Raises:
            IONError: the file is missing, damaged, of another kind or for another model, or the
                download failed.
        """
        if path:
            self._check_available(path)
        self._source = path
        self._resuming = checkpointables is None and "trainer" in self.checkpointables
        try:
            return super().load(path, checkpointables)
        finally:
            # Detectron2 main would refuse every later load after one that failed.
            if hasattr(self, "_parsed_url_during_load"):
                self._parsed_url_during_load = None

    def load_complete(self, path: str) -> dict[str, Any]:
        """Load a trained model, none of whose parameters may stay as they were drawn.

        Args:
            path: a file or URL.

        Returns:
            As ``load``.

        Raises:
            IONError: the classes in the file are not the model's, a parameter of the model is not
                in the file or has another shape there, or as ``load``.
        """
        self._complete = True
        try:
            return self.load(path)
        finally:
            self._complete = False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the folder's last checkpoint if asked and possible, else load weights alone.

        Args:
            path: weights to start from, as in ``load``.
            resume: whether to prefer the last checkpoint.

        Returns:
            As ``load``.

        Raises:
            IONError: ``last_checkpoint`` names a file that is not there, or as in ``load``.
        """
        if resume and self.has_checkpoint():
            last = self.get_checkpoint_file()
            if not os.path.isfile(last):
                raise IONError(
                    f"{os.path.join(self.save_dir, 'last_checkpoint')} names "
                    f"{os.path.basename(last)!r}, which is not in that folder; put the file back, "
                    "name another checkpoint of the folder there, or start without --resume."
                )
        return super().resume_or_load(path, resume=resume)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the model and its training state, and note the file as the last checkpoint.

        Args:
            name: file name without its folder and ``.pth``.
            kwargs: further values to save, e.g. the iteration.

        Raises:
            IONError: the file cannot be written, e.g. for want of disk space.
            FloatingPointError: a weight is NaN or infinite.
        """
        check_weights(self.model)
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(kwargs)
        path = self._write(name, data)
        self.tag_last_checkpoint(os.path.basename(path))

    def save_weights(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        """Save weights alone, from which ``--resume`` does not go on.

        Args:
            name: file name without its folder and ``.pth``.
            model: whose weights; it may be wrapped for distributed training.
            kwargs: further values to save, e.g. the iteration.

        Raises:
            IONError: the file cannot be written.
        """
        if self.save_dir and self.save_to_disk:
            self._write(name, {"model": unwrap_distributed(model).state_dict(), **kwargs})

    def _write(self, name: str, data: dict[str, Any]) -> str:
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        classes = class_names.classes_of(self.model)
        if classes is not None:
            data[class_names.KEY] = classes
        write_atomically(path, lambda file: torch.save(data, file))
        return path

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note the checkpoint from which ``--resume`` goes on.

        Args:
            last_filename_basename: its file name, without folder.

        Raises:
            IONError: the note cannot be written.
        """
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_atomically(path, lambda file: file.write(last_filename_basename.encode()))

    def _check_available(self, path: str) -> None:
        # Detectron2 main, known by this attribute, reads options such as ?matching_heuristics=True.
        if hasattr(self, "_parsed_url_during_load"):
            path = urlparse(path)._replace(query="").geturl()
        try:
            found = os.path.isfile(path) or os.path.isfile(self.path_manager.get_local_path(path))
        except (OSError, HTTPException, ValueError) as error:
            raise IONError(
                f"MODEL.WEIGHTS {path} could not be downloaded ({error}); check the address and "
                "the network, or fetch the file by other means and give its local path as "
                "MODEL.WEIGHTS."
            ) from error
        if not found:
            raise IONError(
                f"MODEL.WEIGHTS {path} is not a file; give the path or URL of a checkpoint, or '' "
                "to start from random weights."
            )

    def _load_file(self, filename: str) -> dict[str, Any]:
        with reading(filename):
            checkpoint = super()._load_file(filename)
        self._compare_classes(class_names.names_in(checkpoint))
        if EMA in checkpoint and not self._resuming:
            self.logger.info("The moving average of the weights in it is what is loaded.")
            checkpoint["model"] = averaged_weights(checkpoint.pop(EMA))
        _check_state(checkpoint["model"], filename)
        return checkpoint

    def _compare_classes(self, theirs: list[str] | None) -> None:
        """Tell of classes that differ from those at hand, before what follows from it is told."""
        if self._complete or self._resuming:
            class_names.check_classes(theirs, self._classes, self._source)
        elif theirs and self._classes and class_names.difference(theirs, self._classes):
            self.logger.warning(
                "%s was trained on %s; what it knows of its classes is a start by their number, "
                "not by their name.",
                self._source,
                class_names.difference(theirs, self._classes),
            )
        if self._classes is None:
            class_names.name_classes(self.model, theirs)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        keys = list(checkpoint["model"])
        try:
            incompatible = super()._load_model(checkpoint)
        except IONError as error:  # the model refuses weights of another VGG
            raise IONError(f"{self._source}: {error}") from error
        parameters = [name for name, _ in self.model.named_parameters()]
        statistics = [k for k, _ in self.model.named_buffers() if k.endswith(_STATISTICS)]
        if parameters and set(parameters) <= set(incompatible.missing_keys):
            shapes = "".join(
                f"; {key} is {theirs} there and {ours} here"
                for key, theirs, ours in incompatible.incorrect_shapes[:1]
            )
            raise IONError(
                f"Nothing in {self._source} fits the model: it holds {_some(keys)}, the model "
                f"has {_some(parameters)}{shapes}; choose a checkpoint of this model or of its "
                "backbone (of torchvision's VGG for another meta-architecture than ION: "
                "tools/convert_vgg.py makes one)."
            )
        if self._complete or self._resuming:
            _check_complete(incompatible, [*parameters, *statistics], self._source)
        return incompatible


def _check_complete(incompatible: Any, needed: list[str], source: str) -> None:
    shapes = {key: f"is {a} there and {b} here" for key, a, b in incompatible.incorrect_shapes}
    # Wrong shapes first, which tell more; they count among the missing keys as well.
    found = (*shapes, *incompatible.missing_keys)
    faults = {key: shapes.get(key, "is not in it") for key in found if key in needed}
    if faults:
        key, text = next(iter(faults.items()))
        raise IONError(
            f"{source} is not of this model: {len(faults)} of {len(needed)} parameters do not "
            f"fit, for instance {key}, which {text}; give the config.yaml of its training, and as "
            "many classes as it was trained on (MODEL.ROI_HEADS.NUM_CLASSES, classes.txt)."
        )


def _check_state(state: Any, filename: str) -> None:
    if not isinstance(state, dict):
        raise IONError(
            f"{filename} holds a {type(state).__name__} where a dict of tensors (a state dict) is "
            "expected; save model.state_dict() instead."
        )
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, (torch.Tensor, np.ndarray)):
            raise IONError(
                f"{filename} holds a {type(value).__name__} under {key!r} where a dict of tensors "
                "(a state dict) is expected; save model.state_dict() instead."
            )


def _some(keys: list[str]) -> str:
    """Name a few keys and the number of all."""
    if not keys:
        return "no tensors"
    return ", ".join(keys[:3]) + (f", ... ({len(keys)} in all)" if len(keys) > 3 else "")
