"""What every program does first: read the config, choose the device, report bad input."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Sequence
from typing import Any, Callable, NoReturn

import torch
import yaml
from detectron2 import modeling
from detectron2.config import CfgNode, get_cfg
from torch import nn

from ..clipping import settle_clipping
from ..config import add_ion_config
from ..errors import NO_SPACE, IONError
from ..modeling.unread_settings import check_model, check_read_features
from .best import PatienceExhausted
from .config_file import find_config, merge_config_file
from .distributed import is_lost_peer, tell_lost_peer
from .hooks import TrainingInterrupted
from .ranges import check_ranges
from .stages import check_overrides, follow_stages

# What a shell reports for a program that Ctrl-C stopped.
_EXIT_INTERRUPTED = 130

logger = logging.getLogger(__name__)


def load_config(
    config_file: str,
    opts: Sequence[Any] = (),
    *,
    weights: str | None = None,
    adapt: Callable[[CfgNode], Any] | None = None,
) -> CfgNode:
    """Read a config file, apply overrides and choose the device.

    Args:
        config_file: path of a YAML file with Detectron2's and ION's keys, or ``model_zoo:NAME``;
            see :func:`ion_d2.engine.config_file.merge_config_file`.
        opts: overrides, alternating keys and values, as on the command line.
        weights: overrides ``MODEL.WEIGHTS``.
        adapt: changes the file's config before the overrides.

    Returns:
        The config, frozen. ``MODEL.DEVICE`` "cuda" has become "cpu" where there is no GPU.

    Raises:
        IONError: the file is missing or not valid YAML, a key is unknown, or a value has the wrong
        type or is out of its range; or bad ``SOLVER.STAGES``.
    """
    cfg = get_cfg()
    add_ion_config(cfg)
    path = find_config(config_file)
    _merge(cfg, lambda: merge_config_file(cfg, path), config_file)
    if adapt is not None:
        adapt(cfg)
    _check_overrides(opts)
    _merge(cfg, lambda: cfg.merge_from_list(list(opts)), "the command line")
    settle_clipping(cfg)
    follow_stages(cfg)
    check_overrides(cfg, list(opts[::2]))
    check_ranges(cfg)
    if weights is not None:
        cfg.MODEL.WEIGHTS = weights
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE)
    cfg.freeze()
    return cfg


def choose_device(wanted: str) -> str:
    """Fall back to the CPU where a GPU of CUDA is asked for and there is none.

    Args:
        wanted: a torch device name, such as "cuda" (Detectron2's default) or "cpu".

    Returns:
        ``wanted``, or "cpu".

    Raises:
        IONError: it is not the name of a device, or this machine has no such device.
    """
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError) as error:
        raise IONError(
            f"MODEL.DEVICE is {wanted!r}; give cpu, cuda or another device of PyTorch."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        logger.info("No GPU is available: running on the CPU.")
        return "cpu"
    if not _works(device):
        raise IONError(
            f"MODEL.DEVICE is {wanted!r}, but PyTorch finds no such device here; give cpu, or cuda "
            f"({torch.cuda.device_count()} GPUs are here)."
        )
    return wanted


def _works(device: torch.device) -> bool:
    """Whether a device can compute; "meta" can not, though it is always there."""
    if device.type == "cuda":  # asked without a start of CUDA, which takes memory in each process
        return (device.index or 0) < torch.cuda.device_count()
    try:
        torch.zeros(1, device=device).item()
    except Exception:  # of many kinds, by what PyTorch lacks
        return False
    return True


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model that a config describes.

    Args:
        cfg: the full config.

    Returns:
        The model, on its device; see :func:`choose_device`.

    Raises:
        IONError: the config names a part that is not registered, or a part refuses its settings; or
            there is no such device.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE)
    check_model(cfg)
    try:
        model = modeling.build_model(cfg)
    except (AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, KeyError) and "registry" in str(error.args[0]):
            told = f"The config names an unknown part of the model: {error.args[0]}"
            raise IONError(told) from error
        if not isinstance(error, IONError):
            check_read_features(cfg)  # which may be why, and tells it by the key
        raise
    check_read_features(cfg, getattr(model, "backbone", None))
    return model


def _merge(cfg: CfgNode, merge: Callable[[], None], source: str) -> None:
    """Merge values into ``cfg`` and turn what yacs and fvcore raise into one sentence."""
    try:
        merge()
    except (AttributeError, TypeError) as error:
        raise IONError(f"{source} is not a valid config: it must hold KEY: VALUE lines.") from error
    except (AssertionError, KeyError, ValueError, OSError, yaml.YAMLError) as error:
        reason = " ".join(_reason(error).split())
        if "key: DATASETS." in reason:
            reason += "; give datasets as \"('NAME',)\"."
        if reason.startswith("Non-existent"):
            # yacs: "Non-existent config key: A.B.C", or "Non-existent key: A.B.C".
            key = reason.rsplit(" ", 1)[-1]
            reason = f"there is no config key {key}.{_suggest(cfg, key)}"
        raise IONError(f"{source} is not a valid config: {reason}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {error.filename}, which a _BASE_ names; correct its path"
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _check_overrides(opts: Sequence[Any]) -> None:
    flags = [o for o in opts[::2] if o.startswith("-")]
    if flags:
        raise IONError(
            f"Put {flags[0]} before the first KEY VALUE override; after one it has no effect."
        )
    if len(opts) % 2:
        raise IONError(f"Overrides come as pairs KEY VALUE, but {opts[-1]!r} has no value.")


def _suggest(cfg: CfgNode, key: str) -> str:
    close = difflib.get_close_matches(key, list(_leaf_keys(cfg)), n=1, cutoff=0.7)
    return f" Did you mean {close[0]}?" if close else ""


def _leaf_keys(node: CfgNode, prefix: str = "") -> Sequence[str]:
    keys = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, CfgNode):
            keys.extend(_leaf_keys(value, f"{prefix}{name}."))
    return keys


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's main function and exit with its status.

    For bad input (:class:`IONError`), a full disk or the loss of another process of the training,
    it writes one sentence to standard error and exits with status 1; for Ctrl-C one word, with
    status 130. Any other error keeps its traceback.

    Args:
        main: returns the exit status, or None for 0.
    """
    try:
        status = main() or 0
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        status = _EXIT_INTERRUPTED
    except (IONError, OSError, RuntimeError) as error:
        if not _is_expected(error):
            raise
        sys.stderr.write(f"error: {_sentence(error)}\n")
        status = 1
    sys.exit(status)


def _sentence(error: BaseException) -> str:
    if is_lost_peer(error):
        return tell_lost_peer(error)
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else " the output"
        return (
            f"Writing{place} failed ({error.strerror}); checkpoints saved earlier are intact: free "
            "space, then go on with --resume."
        )
    return str(error)


def _is_expected(error: BaseException | None) -> bool:
    """Whether one sentence is enough: bad input, a full disk, a lost process, a requested stop."""
    no_space = isinstance(error, OSError) and error.errno in NO_SPACE
    # The trainer turns the FloatingPointError of a training that diverged into an IONError.
    told = (IONError, TrainingInterrupted, PatienceExhausted, FloatingPointError)
    return no_space or isinstance(error, told) or is_lost_peer(error)


def hide_expected_tracebacks() -> None:
    """Keep Detectron2's training loop from logging a traceback where one sentence says it all."""
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    return not (record.exc_info and _is_expected(record.exc_info[1]))
