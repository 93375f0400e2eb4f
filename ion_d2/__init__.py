"""ION (Inside-Outside Net, CVPR 2016) for Detectron2.

Importing this package registers ION's parts with Detectron2: the meta-architecture ``ION``,
backbones, ROI heads and the segmentation head. :func:`add_ion_config` adds their config keys,
:func:`plug_in` switches them on in another config. Notebooks use :func:`get_config`,
:func:`build_model`, :func:`build_trainer` and :func:`build_predictor`.

All but the parts loads when it is first used. Without Detectron2, ``ion_d2.layers`` works alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._require import is_installed, refuse_all_but_layers, require_detectron2
from .errors import IONError

if TYPE_CHECKING:
    from . import config, data, engine, evaluation, export, layers, lazy, modeling, plugging
    from .api import build_model, build_predictor, build_trainer, get_config
    from .config import add_ion_config
    from .plugging import plug_in

# Functions that load when they are used, and their modules; other names of __all__ are modules.
_FUNCTIONS = {
    "add_ion_config": "config",
    "plug_in": "plugging",
    **dict.fromkeys(("build_model", "build_predictor", "build_trainer", "get_config"), "api"),
}

__all__ = [
    "IONError",
    "add_ion_config",
    "build_model",
    "build_predictor",
    "build_trainer",
    "config",
    "data",
    "engine",
    "evaluation",
    "export",
    "get_config",
    "layers",
    "lazy",
    "modeling",
    "plug_in",
    "plugging",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load a function or a module of the package when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_FUNCTIONS.get(name, name)}", __name__)
    value = getattr(module, name) if name in _FUNCTIONS else module
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if is_installed():
    require_detectron2()
    importlib.import_module(".modeling", __name__)  # registers ION's parts
else:
    refuse_all_but_layers()
