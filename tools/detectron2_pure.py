"""Turn Detectron2's 0.5 source archive into a wheel that holds its Python files only.

The archive has no C++ sources, so nothing in it can be compiled. Rotated boxes, deformable
convolution and the C++ COCO accumulator are therefore absent: a stand-in for ``detectron2._C``
raises a clear error when one of them is used. Names that NumPy, Pillow, setuptools and PyTorch have
removed since 2021 are replaced, so that their current releases can stay.

Needs the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NAME = "detectron2"
VERSION = "0.5+pure"
DIST_INFO = f"{NAME}-{VERSION}.dist-info"

# What the installed Python files import (the archive's own list is longer, and pins old releases).
REQUIRES = (
    "cloudpickle",
    "fvcore>=0.1.5",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "Pillow>=7.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch>=2.0",
    "torchvision",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

# (pattern, replacement)
REPLACEMENTS = (
    # NumPy 1.24 removed its aliases of the builtins.
    (r"\bnp\.(bool|int|float|object|str)\b", r"\1"),
    # Pillow 10 removed the second name of the same filter.
    (r"\bImage\.LINEAR\b", "Image.BILINEAR"),
    # PyTorch warns of every model that does not say what it takes by default.
    (r"\bmeshgrid\(shifts_y, shifts_x\)", 'meshgrid(shifts_y, shifts_x, indexing="ij")'),
    # setuptools 82 removed pkg_resources; the files lie beside the module that asks for them.
    (r"(?m)^import pkg_resources\n", ""),
    (
        r'pkg_resources\.resource_filename\(\s*"detectron2\.model_zoo",\s*',
        "os.path.join(os.path.dirname(__file__), ",
    ),
    # PyTorch 2 has no caffe2: without it the exporter is gone, tracing and scripting still work.
    (
        r"(?m)^from \.api import \*$",
        "try:\n    from .api import *\nexcept ImportError:\n    pass",
    ),
)

# Projects that Detectron2's own build puts under detectron2.projects.
PROJECTS = {
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}

STAND_IN = '''\
"""Stand-in for Detectron2's compiled operators, which this pure Python build does not have."""

import torch


def _missing(name):
    def raise_error(*args, **kwargs):
        raise RuntimeError(
            f"{name} is a compiled operator, which this pure Python build of Detectron2 does not "
            "have: build Detectron2 from its repository, or avoid rotated boxes, deformable "
            "convolution and COCOEvaluator without use_fast_impl=False."
        )

    return raise_error


def __getattr__(name):
    # Python's import machinery and inspection look these up and expect AttributeError.
    if name.startswith("__"):
        raise AttributeError(name)
    return _missing(name)


def get_compiler_version():
    return "none (pure Python build)"


def get_cuda_version():
    return "none (pure Python build)"


def has_cuda():
    return False


# The one operator that Detectron2 reaches through the dispatcher and not through this module.
torch.ops.detectron2.nms_rotated = _missing("nms_rotated")
'''


def sha256_of(path: Path) -> str:
    """Return the SHA-256 digest of a file as lower case hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def modernize(source: str) -> str:
    """Return Python source with every removed name replaced (see ``REPLACEMENTS``)."""
    for pattern, replacement in REPLACEMENTS:
        source = re.sub(pattern, replacement, source)
    return source


def build_wheel(archive: Path, folder: Path) -> Path:
    """Write the wheel of an archive's Python files, model zoo configurations and license.

    Args:
        archive: the source archive, a ``.tar.gz`` with one top folder.
        folder: existing folder that receives the wheel.

    Returns:
        Path of the wheel.

    Raises:
        ValueError: the archive cannot be read, or has no ``detectron2/__init__.py``.
    """
    try:
        contents = dict(_installed_files(archive))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive} is not a readable .tar.gz archive: {error}") from error
    if f"{NAME}/__init__.py" not in contents:
        raise ValueError(f"{archive} holds no {NAME}/__init__.py, so it is no Detectron2 archive.")
    contents[f"{NAME}/_C.py"] = STAND_IN.encode()
    # Metadata first: pip unpacks in this order, so an unpacking cut short is recognizable as ours.
    ordered = {**_metadata_files(), **contents}
    wheel = folder / f"{NAME}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in ordered.items():
            target.writestr(name, data)
        target.writestr(f"{DIST_INFO}/RECORD", _record(ordered))
    return wheel


def _installed_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive, "r:gz") as source:
        for member in source:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            target = _destination(path)
            if not member.isfile() or target is None:
                continue
            data = source.extractfile(member).read()
            yield target, modernize(data.decode()).encode() if path.suffix == ".py" else data


def _destination(path: PurePosixPath) -> str | None:
    """Place of an archive's file in the wheel; None for files that are not installed."""
    if str(path) == "LICENSE":
        return f"{DIST_INFO}/licenses/LICENSE"
    if ".." in path.parts or path.suffix not in (".py", ".yaml"):
        return None
    for folder, package in PROJECTS.items():
        if str(path).startswith(folder + "/"):
            return package + str(path)[len(folder) :]
    # The archive's top-level package "tools" stays out: it would shadow other folders called so.
    return str(path) if path.parts[:1] == (NAME,) else None


def _metadata_files() -> dict[str, bytes]:
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {NAME}",
        f"Version: {VERSION}",
        "Summary: Detectron2 0.5 for object detection and segmentation, Python files only",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "License: Apache-2.0",
        "Requires-Python: >=3.9",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIRES),
    ]
    wheel = [
        "Wheel-Version: 1.0",
        "Generator: ion_d2",
        "Root-Is-Purelib: true",
        "Tag: py3-none-any",
    ]
    return {
        f"{DIST_INFO}/METADATA": ("\n".join(metadata) + "\n").encode(),
        f"{DIST_INFO}/WHEEL": ("\n".join(wheel) + "\n").encode(),
        f"{DIST_INFO}/top_level.txt": f"{NAME}\n".encode(),
    }


def _record(contents: dict[str, bytes]) -> str:
    lines = []
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    lines.append(f"{DIST_INFO}/RECORD,,")
    return "\n".join(lines) + "\n"
