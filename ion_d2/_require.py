"""One clear sentence for users whose Detectron2 is missing or broken, or whose NumPy misfits."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder

_ADVICE = (
    "run `python tools/install_detectron2.py` in the project's folder, or follow the section "
    "'Install' of the README for a GPU build"
)

# The modules of this package that work without it.
_ALONE = ("_require", "errors", "layers")


def is_installed() -> bool:
    """Whether there is a Detectron2, working or broken."""
    return importlib.util.find_spec("detectron2") is not None


def refuse_all_but_layers() -> None:
    """Make every module that needs Detectron2 say so when it is imported."""
    sys.meta_path.insert(0, _Refusal())


class _Refusal(MetaPathFinder):
    """Stops the import of modules that need Detectron2, and finds none."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        package, _, module = fullname.partition(".")
        if package == __package__ and module.split(".")[0] not in ("", *_ALONE):
            require_detectron2()


def require_detectron2() -> None:
    """Raise an ImportError that says why and what to run, unless Detectron2 can be used."""
    if not is_installed():
        raise ImportError(f"ion_d2 needs Detectron2, which is not installed: {_ADVICE}.")
    if fault := numpy_fault():
        raise ImportError(fault)
    try:
        importlib.import_module("detectron2.modeling")
    except ModuleNotFoundError as error:
        if (error.name or "detectron2").split(".")[0] == "detectron2":
            raise _broken(error) from error
        raise ImportError(
            f"ion_d2 needs Detectron2, which needs the missing module {error.name}: run "
            "`pip install -e .` in the project's folder."
        ) from error
    # A broken installation raises anything (removed aliases, libraries that do not load).
    except Exception as error:
        raise _broken(error) from error


def numpy_fault() -> str:
    """Why the installed PyTorch cannot use the installed NumPy, and what to run; "" if it can.

    tools/install_detectron2.py runs this file alone.
    """
    try:
        numpy, torch = (importlib.import_module(name) for name in ("numpy", "torch"))
    except Exception:  # missing or broken, which others tell
        return ""
    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        return (
            f"PyTorch {torch.__version__} cannot use the installed NumPy {numpy.__version__} "
            f"({error}): run `pip install 'numpy<2' -e .` in the project's folder, as PyTorch "
            "before 2.3 knows NumPy 1 alone, or install a newer PyTorch."
        )
    return ""


def _broken(error: Exception) -> ImportError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return ImportError(
        f"ion_d2 needs Detectron2, which is installed but broken ({reason}): {_ADVICE}."
    )
