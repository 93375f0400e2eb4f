"""JSON and YAML files from anywhere: plain values, or one sentence."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import yaml
from detectron2.utils.file_io import PathManager

from ..errors import IONError

# Of values, each counted as often as aliases repeat it; configs and data files have hundreds.
_MOST_VALUES = 1_000_000
# PyYAML takes seconds for these.
_DEEP = re.compile(r"(?:[\[{]\s*){100}")


def read_json(path: str | os.PathLike[str], advice: str = "replace it") -> Any:
    """Read a JSON file, local or of a URL.

    Raises:
        IONError: it is missing or no JSON; the message ends with the advice.
    """
    try:
        with PathManager.open(os.fspath(path), "r", encoding="utf-8-sig") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise IONError(f"{path} cannot be read as JSON ({_first(error)}); {advice}.") from error


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a YAML file; see :func:`parse_yaml`, also for errors."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise IONError(f"{path} cannot be read ({_first(error)}); correct it.") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, source: str | os.PathLike[str]) -> Any:
    """The plain values of a YAML text, of which ``source`` is the file.

    Raises:
        IONError: it is no YAML, has a key twice, asks for objects of Python, or repeats itself
            without end.
    """
    if _DEEP.search(text):
        raise IONError(f"{source} has lists in lists, too deep to be read; correct it.")
    try:
        if _count(yaml.compose(text, Loader=yaml.SafeLoader), {}) <= _MOST_VALUES:
            return yaml.safe_load(text)
    except yaml.constructor.ConstructorError as error:
        raise IONError(
            f"{source} asks for more than plain values, which may run code ({_first(error)}); "
            "write numbers, text, lists and KEY: VALUE lines."
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise IONError(f"{source} cannot be read as YAML ({_first(error)}); correct it.") from error
    raise IONError(f"{source} holds more than {_MOST_VALUES:,} values by its aliases; correct it.")


def _count(node: yaml.Node | None, known: dict[int, int]) -> int:
    """The values below a node of YAML, which may hold itself: that counts as too many."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1  # until it is counted
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        pairs = [entry if isinstance(entry, tuple) else (entry,) for entry in node.value]
        known[id(node)] = 1 + sum(_count(part, known) for pair in pairs for part in pair)
    return known[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    """PyYAML would take the last of two equal keys, and forget the first."""
    found = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in found:
            raise yaml.MarkedYAMLError(None, None, f"{key.value} is there twice", key.start_mark)
        found.add(key.value if isinstance(key, yaml.ScalarNode) else None)


def _first(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
