"""What stands behind a dataset's name: an open registry of the forms that a name can have."""

from __future__ import annotations

import os

from fvcore.common.registry import Registry

from ..errors import IONError

DATASET_FORMS = Registry("ION_DATASET_FORMS")
DATASET_FORMS.__doc__ = """
Functions that register datasets with Detectron2's catalogs when their name is first used.

The function ``voc`` is called with names that start with "voc:", and so on::

    @DATASET_FORMS.register()
    def my_format(name: str) -> None:  # "my_format:anything/that:tells:it"
        DatasetCatalog.register(name, ...)
        MetadataCatalog.get(name).set(thing_classes=..., evaluator_type="pascal_voc")

It raises :class:`~ion_d2.IONError` where a name is not usable.
"""


def absolute(path: str | os.PathLike[str]) -> str:
    """A path as text, with "~" replaced, from the root on."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def require_path(name: str, path: str) -> None:
    """Raise an :class:`~ion_d2.IONError` if a file or folder of the dataset ``name`` is missing."""
    if os.path.exists(path):
        return
    advice = "correct the path"
    if ":" not in name:
        advice = (
            "put the data there, or set the environment variable DETECTRON2_DATASETS to the folder "
            "that holds Detectron2's datasets"
        )
    raise IONError(f"Dataset '{name}': {path} does not exist; {advice}.")


def path_and_split(name: str, form: str, example: str) -> tuple[str, str]:
    """The absolute path and the split of a name such as ``voc:PATH:SPLIT``, its ``form``.

    Raises:
        IONError: the name has another form, or the path is missing.
    """
    path, _, split = name.partition(":")[2].rpartition(":")
    if not path or not split:
        raise IONError(f"Dataset '{name}' is not of the form {form}, for instance {example}.")
    path = absolute(path)
    require_path(name, path)
    return path, split
