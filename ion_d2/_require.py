"""One clear sentence for users whose Detectron2 is missing or broken."""

from __future__ import annotations

import importlib

_ADVICE = (
    "run `python tools/install_detectron2.py` in the project's folder, or follow the section "
    "'Install' of the README for a GPU build"
)


def require_detectron2() -> None:
    """Import the part of Detectron2 that everything here builds on.

    Raises:
        ImportError: Detectron2 is not installed, or is installed and cannot be imported; the
            message is one sentence that says which, why, and what to run.
    """
    try:
        importlib.import_module("detectron2.modeling")
    except ModuleNotFoundError as error:
        if error.name == "detectron2":
            raise ImportError(
                f"ion_d2 needs Detectron2, which is not installed: {_ADVICE}."
            ) from error
        if (error.name or "detectron2").split(".")[0] == "detectron2":
            raise _broken(error) from error
        raise ImportError(
            f"ion_d2 needs Detectron2, which needs the missing module {error.name}: run "
            "`pip install -e .` in the project's folder."
        ) from error
    # A broken installation raises anything (removed aliases, libraries that do not load).
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> ImportError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return ImportError(
        f"ion_d2 needs Detectron2, which is installed but broken ({reason}): {_ADVICE}."
    )
