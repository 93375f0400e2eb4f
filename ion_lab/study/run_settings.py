"""What a run is known by: every config value that can change its result."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from ion_d2.config import add_ion_config
from ion_d2.engine.setup import load_config
from ion_lab.study.study_data import Pictures, known_pictures

# Where a run reads, computes, writes and reports: not what it computes.
_IGNORED = {
    *("OUTPUT_DIR", "DATASETS.TRAIN", "DATASETS.TEST", "DATASETS.SEM_SEG_DIRS"),
    *("MODEL.DEVICE", "WANDB_PROJECT"),
    *("DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD", "TEST.NUM_PICTURES", "VIS_PERIOD"),
}


def as_overrides(keys: Mapping[str, Any]) -> list[str]:
    """Config overrides as alternating keys and values of a command line."""
    return [
        word
        for key, value in keys.items()
        for word in (str(key), value if isinstance(value, str) else repr(value))
    ]


def run_settings(
    config: Path,
    overrides: Sequence[str],
    pictures: Pictures,
    start: Mapping[str, Any] | None,
    parts: Sequence[str] | None = None,
    source: str = "the command line",
) -> dict[str, Any]:
    """What a run is known by, as JSON gives it back.

    Args:
        config: config file.
        overrides: alternating keys and values.
        pictures: what it trains and tests on.
        start: settings of the run that it starts from, or None.
        parts: of that run's detector that it takes over, or None for all.
        source: where the overrides come from, for messages.

    Returns:
        "config": full key, such as "MODEL.VGG.DEPTH" -> value; "pictures"; "start"; "parts".

    Raises:
        IONError: the file or an override is wrong.
    """
    cfg = load_config(str(config), list(overrides), source=source)
    # A head that is not built and proposals that are not loaded do not change a result.
    used = {
        "MODEL.SEM_SEG_HEAD.": cfg.MODEL.SEG_REGULARIZER_ON,
        "DATASETS.PRECOMPUTED_PROPOSAL_": cfg.MODEL.LOAD_PROPOSALS,
    }
    absent = tuple(prefix for prefix, is_used in used.items() if not is_used)
    values = {key: value for key, value in _values(cfg).items() if not key.startswith(absent)}
    shown = known_pictures(pictures, cfg)
    known_by = {"config": values, "pictures": shown, "start": start, "parts": parts}
    return json.loads(json.dumps(known_by))


def same_settings(stored: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None) -> bool:
    """Whether a run that was made with some settings is the one that is wanted; None is no run.

    Config keys may have come and gone since: one that is not stored counts as its default.
    """
    if stored is None or wanted is None:
        return stored is wanted
    defaults, values = _default_values(), _as_written_today(stored["config"])
    return (
        stored["pictures"] == wanted["pictures"]
        and all(v == values.get(k, defaults.get(k)) for k, v in wanted["config"].items())
        and same_settings(stored["start"], wanted["start"])
        and stored.get("parts") == wanted["parts"]
    )


def _as_written_today(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stored values in today's keys: FULL_MODEL was once a CLIP_TYPE of its own, "full_model"."""
    clip = "SOLVER.CLIP_GRADIENTS."
    if values.get(f"{clip}CLIP_TYPE") != "full_model":
        return values
    return {**values, f"{clip}CLIP_TYPE": "norm", f"{clip}FULL_MODEL": True}


@functools.cache
def _default_values() -> dict[str, Any]:
    cfg = get_cfg()
    add_ion_config(cfg)
    return _values(cfg)


def _values(cfg: CfgNode) -> dict[str, Any]:
    """The values by their full keys, as JSON gives them back."""
    flat: dict[str, Any] = {}

    def walk(node: CfgNode, prefix: str) -> None:
        for name, value in node.items():
            key = prefix + name
            if isinstance(value, CfgNode):
                walk(value, f"{key}.")
            elif key not in _IGNORED:
                flat[key] = value

    walk(cfg, "")
    return json.loads(json.dumps(flat, default=str))
