"""Detectron2's checkpointer with clear errors, class names and saves that cannot do harm."""

from __future__ import annotations

import os
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..errors import IONError
from . import checkpoint_files, class_names
from .averaging import EMA, TRAINED, averaged_weights
from .checkpoint_files import check_state, load_lazily, reading, refuse_code, write_atomically
from .finite import check_weights
from .steps import unwrap_distributed

FINAL = "model_final"
"""Name of the checkpoint that a training ends with; Detectron2's."""


class IONCheckpointer(DetectionCheckpointer):
    """Loads and saves models with their training state; a drop-in for Detectron2's checkpointer.

    - A save that fails or is interrupted leaves every earlier file as it was.
    - Of a file with a moving average of the weights (``SOLVER.EMA_DECAY``), the average is loaded,
      by Detectron2's checkpointer too, unless a training is resumed.
    - The names of the classes are saved with the weights. A file with other classes than those at
      hand may start a training, with a warning, but cannot be resumed or used as a trained model.
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
        """Take what Detectron2's checkpointer takes, and the names of the model's classes.

        Without ``classes``, they are those of the file that is loaded. "" as ``save_dir`` saves
        nothing.
        """
        super().__init__(model, save_dir, **kwargs)
        self._classes = classes
        if classes is not None:
            class_names.name_classes(model, classes)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights and training states from a file or URL; "" loads nothing.

        Of the states, ``checkpointables`` are loaded, or all that the file has. What else it holds,
        e.g. the iteration, is returned.

        Raises:
            IONError: it is missing, damaged or of another model, or cannot be downloaded.
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
        """Load a trained model; unlike :meth:`load`, every parameter must be in the file.

        Raises:
            IONError: a parameter is missing or has another shape, the classes differ, or as load.
        """
        self._complete = True
        try:
            return self.load(path)
        finally:
            self._complete = False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the folder's last checkpoint if asked and possible, else load weights alone.

        Raises:
            IONError: ``last_checkpoint`` names a file that is not there, or as ``load``.
        """
        if resume and self.has_checkpoint():
            last = self.get_checkpoint_file()
            if not os.path.isfile(last):
                note = os.path.join(self.save_dir, "last_checkpoint")
                raise IONError(
                    f"{note} names {os.path.basename(last)!r}, which is not in that folder; put it "
                    "back, name another one there, or start without --resume."
                )
        return super().resume_or_load(path, resume=resume)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save model, training states and ``kwargs`` as ``name``.pth, the last checkpoint.

        Raises:
            IONError: the file cannot be written, e.g. because the disk is full.
            FloatingPointError: a weight is NaN or infinite.
        """
        check_weights(self.model)
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        weights = self.model.state_dict()
        if average := averaged_weights(states.get(EMA)):
            # Whatever reads "model" is to have the average; the file holds its tensors once.
            weights, states[TRAINED] = average, weights
        if self._write(name, {"model": weights, **states, **kwargs}):
            self.tag_last_checkpoint(f"{name}.pth")

    def save_final(self, iteration: int) -> None:
        """Save :data:`FINAL` after the last iteration, unless it is the last checkpoint already."""
        if os.path.basename(self.get_checkpoint_file()) != f"{FINAL}.pth":
            self.save(FINAL, iteration=iteration)

    def save_weights(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        """Save a model's weights and ``kwargs`` as ``name``.pth, which ``--resume`` ignores."""
        self._write(name, {"model": unwrap_distributed(model).state_dict(), **kwargs})

    def _write(self, name: str, data: dict[str, Any]) -> bool:
        """Write a file, unless another process does; returns whether it was written."""
        if not self.save_dir or not self.save_to_disk:
            return False
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        classes = class_names.classes_of(self.model)
        if classes is not None:
            data = {**data, class_names.KEY: classes}
        write_atomically(path, lambda file: torch.save(data, file))
        return True

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note, by its file name, the checkpoint from which ``--resume`` goes on."""
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
                "the network, or fetch the file by other means and give its local path."
            ) from error
        if not found:
            start = "" if self._complete else ", or '' to start from random weights"
            expected = f"give the path or URL of a checkpoint{start}"
            raise IONError(f"MODEL.WEIGHTS {path} is not a file; {expected}.")

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(checkpoint_files.SAFETENSORS):
            checkpoint = load_lazily(filename)
        else:
            refuse_code(filename)
            with reading(filename):
                checkpoint = super()._load_file(filename)
        self._compare_classes(class_names.names_in(checkpoint))
        average = averaged_weights(checkpoint.get(EMA))
        if average:  # of our trainer; in other files the name may stand for anything
            weights = checkpoint.pop(TRAINED, checkpoint["model"])
            if not self._resuming:
                self.logger.info("Loading the moving average of the weights.")
                weights = average
                del checkpoint[EMA]
            checkpoint["model"] = weights
        check_state(checkpoint["model"], filename)
        return checkpoint

    def _compare_classes(self, theirs: list[str] | None) -> None:
        """Report other classes, before the sizes of tensors that follow from their number."""
        if self._complete or self._resuming:
            class_names.check_classes(theirs, self._classes, self._source)
        elif differs := class_names.difference(theirs, self._classes):
            effect = "are taken over by number: class 0 here starts from its class 0, whatever"
            told = f"%s was trained on %s; its class weights {effect} their names."
            self.logger.warning(told, self._source, differs)
        if self._classes is None:
            class_names.name_classes(self.model, theirs)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        keys = list(checkpoint["model"])
        try:
            with reading(self._source):  # by names, it fails in many ways on odd ones
                incompatible = super()._load_model(checkpoint)
        except IONError as error:  # the model refuses weights of another VGG
            raise IONError(f"{self._source}: {error}") from error
        shapes = {k: f"is {a} there and {b} here" for k, a, b in incompatible.incorrect_shapes}
        # Wrong shapes, which count among the missing keys as well, come first: they say more.
        missing = {k: "is not in it" for k in incompatible.missing_keys if k not in shapes}
        faults = {**shapes, **missing}
        parameters = [name for name, _ in self.model.named_parameters()]
        if parameters and faults.keys() >= set(parameters):
            shape = "".join(f"; {key} {text}" for key, text in list(shapes.items())[:1])
            raise IONError(
                f"Nothing in {self._source} fits the model: it holds {_some(keys)}, the model "
                f"has {_some(parameters)}{shape}; choose a checkpoint of this model or its "
                "backbone; tools/convert_vgg.py makes one of torchvision's VGG that does not fit."
            )
        if self._complete or self._resuming:
            self._check_complete(faults, parameters)
        return incompatible

    def _check_complete(self, faults: dict[str, str], parameters: list[str]) -> None:
        buffers = [name for name, _ in self.model.named_buffers()]
        # Those of batch normalization, in all its kinds, are learned as parameters are.
        learned = [name for name in buffers if name.endswith(("running_mean", "running_var"))]
        needed = [*parameters, *learned]
        serious = [key for key in faults if key in needed]
        if serious:
            raise IONError(
                f"{self._source} is not of this model: {len(serious)} of {len(needed)} parameters "
                f"do not fit, e.g. {serious[0]}, which {faults[serious[0]]}; give the config.yaml "
                "of its training, and its classes (MODEL.ROI_HEADS.NUM_CLASSES, classes.txt)."
            )


def _some(keys: list[str]) -> str:
    """Name the first few keys, and how many there are."""
    more = f", ... ({len(keys)} in all)" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more or "no tensors"
