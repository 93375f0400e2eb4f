"""What every program does first: read the config, choose the device, report bad input."""

from __future__ import annotations

import difflib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NoReturn

import torch
import yaml
from detectron2 import modeling
from detectron2.config import CfgNode, get_cfg
from torch import nn

from ..clipping import settle_clipping
from ..config import add_ion_config
from ..errors import LOST_DISK, NO_SPACE, IONError
from ..modeling.unread_settings import check_model, check_read_features, tell_unread
from ..value_rules import changed, value_of
from .best import PatienceExhausted
from .config_file import find_config, merge_config_file
from .distributed import tell_lost
from .hooks import TrainingInterrupted
from .log_files import logs_end_quietly
from .ranges import check_ranges
from .stages import check_overrides, follow_stages

# What yacs says of a value of another type than the key's.
_MISMATCH = re.compile(
    r"Type mismatch \(<class '(.+)'> vs\. <class '(.+)'>\) "
    r"with values \((.*) vs\. (.*)\) for config key: (\S+)"
)

# What building a model of unfit settings raises.
_BUILDING = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

logger = logging.getLogger(__name__)


def load_config(
    config_file: str,
    opts: Sequence[Any] = (),
    *,
    adapt: Callable[[CfgNode], Any] | None = None,
    source: str = "the command line",
) -> CfgNode:
    """Read a config file, apply overrides, choose the device (see :func:`choose_device`), freeze.

    Args:
        config_file: a YAML file with Detectron2's and ION's keys, or ``model_zoo:NAME``; see
            :func:`ion_d2.engine.config_file.merge_config_file`.
        opts: overrides, alternating keys and values, as on the command line.
        adapt: changes the file's config before the overrides.
        source: where the overrides come from, for messages.

    Raises:
        IONError: the file is missing or not valid YAML, or a key is unknown or its value wrong.
    """
    cfg = get_cfg()
    add_ion_config(cfg)
    path = find_config(config_file)
    _merge(cfg, lambda: merge_config_file(cfg, path), config_file)
    if adapt is not None:
        adapt(cfg)
    if flags := [key for key in opts[::2] if key.startswith("-")]:
        raise IONError(f"Put {flags[0]} before the first KEY VALUE; after one it has no effect.")
    if len(opts) % 2:
        raise IONError(f"Overrides come as pairs KEY VALUE, but {opts[-1]!r} has no value.")
    _check_keys(cfg, opts[::2])
    _merge(cfg, lambda: cfg.merge_from_list(list(opts)), source)
    _check_given(cfg)
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = map(os.path.expanduser, (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS))
    settle_clipping(cfg)
    follow_stages(cfg)
    check_overrides(cfg, opts[::2])
    tell_unread(cfg, map(str, opts[::2]))
    check_ranges(cfg)
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE)
    cfg.freeze()
    return cfg


def _check_keys(cfg: CfgNode, keys: Sequence[Any]) -> None:
    """Refuse a group of keys, which has no value, and what would be a key of a value."""
    for key in map(str, keys):
        above = key.rpartition(".")[0]
        if isinstance(value := value_of(cfg, key), CfgNode):
            first = next(iter(value), "NAME")
            raise IONError(f"{key} is a group of config keys; give one, such as {key}.{first}.")
        if not isinstance(value_of(cfg, above), (CfgNode, type(None))):
            raise IONError(f"There is no config key {key}: {above} is a key itself, not a group.")


def _check_given(cfg: CfgNode) -> None:
    """Refuse None, which yacs takes for a value of any key, where there must be text or a list."""
    add_ion_config(defaults := get_cfg())
    for key in _keys(defaults):
        default = value_of(defaults, key)
        if isinstance(default, (str, list, tuple)) and value_of(cfg, key) is None:
            raise IONError(f"{key} has no value; give one, such as {default!r}, or leave it out.")


def _merge(cfg: CfgNode, merge: Callable[[], None], source: str) -> None:
    """Merge values into ``cfg`` and turn what yacs and fvcore raise into one sentence."""
    try:
        merge()
    except IONError:
        raise
    except (AttributeError, TypeError) as error:
        raise IONError(f"{source} is not a valid config: it must hold KEY: VALUE lines.") from error
    except (AssertionError, KeyError, ValueError, OSError, yaml.YAMLError) as error:
        raise IONError(f"{source} is not a valid config: {_reason(error, cfg)}") from error


def _reason(error: Exception, cfg: CfgNode) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {error.filename}, which a _BASE_ names; correct its path"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split())
    if text.startswith("Non-existent"):  # yacs: "Non-existent (config) key: A.B.C"
        key = text.rsplit(" ", 1)[-1]
        close = difflib.get_close_matches(key, list(_keys(cfg)), n=1, cutoff=0.7)
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"there is no config key {key}.{hint}"
    if found := _MISMATCH.fullmatch(text):
        wanted, given, old, new, key = found.groups()
        example = "\"('NAME',)\"" if key.startswith("DATASETS.") else old
        return f"{key} is {new}, of type {given}; give one of type {wanted}, such as {example}."
    return text


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{name}.")


def choose_device(wanted: str) -> str:
    """The torch device of this name, or "cpu" where CUDA (Detectron2's default) is not available.

    Raises:
        IONError: it is not the name of a device, or this machine has no such device.
    """
    refusal = IONError(
        f"MODEL.DEVICE is {wanted!r}, but PyTorch finds no such device here; give cpu, or cuda "
        f"({torch.cuda.device_count()} GPUs are here)."
    )
    try:
        device = torch.device(wanted)
        if device.type != "cuda":
            torch.zeros(1, device=device).item()  # which "meta" cannot, though it is always there
            return wanted
    except Exception as error:  # of many kinds, by what PyTorch lacks
        raise refusal from error
    if not torch.cuda.is_available():
        return "cpu"
    # Asked without a tensor, which would start CUDA and take memory in each process.
    if (device.index or 0) >= torch.cuda.device_count():
        raise refusal
    return wanted


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model that a config describes, on its device (see :func:`choose_device`).

    Raises:
        IONError: a part is not registered or refuses its settings, or there is no such device.
    """
    cfg = changed(cfg, {"MODEL.DEVICE": choose_device(cfg.MODEL.DEVICE)})
    check_model(cfg)
    if precision := cfg.get("FLOAT32_PRECISION"):  # of Detectron2 main, as its default_setup does
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        model = modeling.build_model(cfg)
    except _BUILDING as error:
        if isinstance(error, KeyError) and "registry" in str(error.args[0]):
            raise IONError(f"The config names an unknown part: {error.args[0]}") from error
        if not isinstance(error, IONError):
            check_read_features(cfg)  # they may be the cause, and this names their key
        text = " ".join(str(error).split())
        # What Detectron2 asks of a config, or of what is known of its data.
        if (isinstance(error, AssertionError) and text) or "metadata of dataset" in text:
            raise IONError(f"The model of this config cannot be built: {text}") from error
        raise
    check_read_features(cfg, getattr(model, "backbone", None))
    return model


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's main function and exit with the status that it returns (None: 0).

    Bad input (:class:`IONError`), a full disk and the loss of another process of the training, or
    of one that loads pictures, end in one sentence on standard error and status 1; Ctrl-C in one
    word and status 130. Any other error keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
    try:
        with logs_end_quietly():
            status = main() or 0
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        status = 130  # what a shell reports for a program that Ctrl-C stopped
    except (IONError, OSError, RuntimeError) as error:
        if not _is_expected(error):
            raise
        sys.stderr.write(f"error: {_sentence(error)}\n")
        status = 1
    sys.exit(status)


def _sentence(error: BaseException) -> str:
    if not isinstance(error, OSError):
        return tell_lost(error) or str(error)
    place = error.filename or "the output"
    tried, cure = "read or written", "mend the disk or choose another"
    if error.errno in NO_SPACE:
        tried, cure = "written", "free space"
    return (
        f"{place} could not be {tried} ({error.strerror}): {cure}, then run the command again. A "
        "training's saved checkpoints are intact, and it goes on with --resume."
    )


def _is_expected(error: BaseException) -> bool:
    """Whether one sentence is enough: bad input, a full disk, a lost process, a requested stop."""
    disk = isinstance(error, OSError) and error.errno in (*NO_SPACE, *LOST_DISK)
    # The trainer turns the FloatingPointError of a training that diverged into an IONError.
    told = (IONError, TrainingInterrupted, PatienceExhausted, FloatingPointError)
    return disk or isinstance(error, told) or bool(tell_lost(error))


def hide_expected_tracebacks() -> None:
    """Keep Detectron2's training loop from logging a traceback where one sentence is enough."""
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    error = record.exc_info and record.exc_info[1]
    if isinstance(error, FileNotFoundError):
        folder = os.path.dirname(error.filename or "") or os.curdir
        if not os.path.isdir(folder):  # the trainer says so if it is that of the run
            return False
    return not (error and _is_expected(error))
