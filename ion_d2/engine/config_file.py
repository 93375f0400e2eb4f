"""Config files whose base may be a config that Detectron2 packages."""

from __future__ import annotations

import difflib
import errno
import io
import os
from pathlib import Path
from typing import IO, ClassVar

from detectron2.config import CfgNode

from ..compat import MODEL_ZOO
from ..data.plain_files import parse_yaml
from ..errors import IONError

_PREFIX = "model_zoo:"  # before the name of a file of Detectron2's model zoo


def merge_config_file(cfg: CfgNode, path: str) -> None:
    """Merge a YAML file into a config, in place.

    Its ``_BASE_`` is a path relative to the file, an absolute one, a URL, ``model_zoo:NAME`` (a
    config that Detectron2 packages), or a list of these, of which later ones win.

    Raises:
        IONError: Detectron2 packages no config of that name, or a file is not of plain values.
    """
    reader = _Reader(cfg)
    _Reader.opened = 0
    # The reader itself refuses what would run code, but for Detectron2's own RetinaNet.
    reader.merge_from_file(path, allow_unsafe=True)
    cfg.merge_from_other_cfg(reader)


def find_config(path: str) -> str:
    """Find a config file by path or as ``model_zoo:NAME``; ``IONError`` where there is none."""
    if path.startswith(_PREFIX):
        return _find_packaged(path[len(_PREFIX) :])
    if not os.path.isfile(path):
        raise IONError(f"The config file {path} does not exist; see configs/ for those there are.")
    return path


def packaged_configs() -> list[str]:
    """The configs of Detectron2's model zoo, e.g. "COCO-Detection/...yaml", sorted."""
    files = (path for path in MODEL_ZOO.rglob("*") if path.suffix in (".yaml", ".py"))
    return sorted(path.relative_to(MODEL_ZOO).as_posix() for path in files)


class _Reader(CfgNode):
    """Opens files of plain values, and whatever lies in Detectron2's model zoo."""

    opened: ClassVar[int] = 0

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        # The base of a file in configs/ arrives as "configs/model_zoo:NAME", and that base's own
        # base, which is relative to it, as "configs/model_zoo:COCO-Detection/../Base.yaml".
        before, found, name = filename.rpartition(_PREFIX)
        if found and (not before or before.endswith(("/", os.sep))):
            filename = _find_packaged(os.path.normpath(name))
        _Reader.opened += 1
        if _Reader.opened > 100:
            raise IONError(f"{filename} is a _BASE_ that leads back to itself; correct it.")
        if "://" not in filename and not os.path.isfile(filename):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), filename)
        with super()._open_cfg(filename) as file:
            text = file.read()
        if MODEL_ZOO.resolve() not in Path(filename).resolve().parents:
            parse_yaml(text, filename)
        return io.StringIO(text)


def _find_packaged(name: str) -> str:
    path = MODEL_ZOO / name
    if not MODEL_ZOO.is_dir():
        raise IONError(
            f"{_PREFIX}{name} cannot be found: this Detectron2 came without its configs "
            f"({MODEL_ZOO}); install it anew, or name a file of your own."
        )
    if not path.is_file():
        near = difflib.get_close_matches(name, packaged_configs(), n=1)
        hint = f" Did you mean {_PREFIX}{near[0]}?" if near else ""
        raise IONError(f"{_PREFIX}{name} is not a config that Detectron2 packages.{hint}")
    return str(path)
