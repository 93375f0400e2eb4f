"""Values of config keys, and rules by which a wrong one is refused by the name of its key."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, Callable

from detectron2.config import CfgNode

from .errors import IONError

# Whether a value is right, and in words what is right.
Rule = tuple[Callable[[Any], bool], str]


def number(words: str, fits: Callable[[Any], bool], *, whole: bool = False) -> Rule:
    """Finite numbers of some range, which ``words`` describes."""
    # NumPy's as well, which arguments may be.
    kinds = numbers.Integral if whole else numbers.Real

    def is_right(value: Any) -> bool:
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and fits(value)

    return is_right, f"a {'whole ' if whole else ''}number {words}".rstrip()


def one_of(*names: str) -> Rule:
    """One of some names."""
    return names.__contains__, f"one of {', '.join(map(repr, names))}"


def several(rule: Rule, count: int | None = None) -> Rule:
    """A list of ``count`` values, or of one or more, that all keep a rule."""

    def is_right(values: Any) -> bool:
        return len(values) == (count or max(len(values), 1)) and all(map(rule[0], values))

    return is_right, f"a list of {count or 'one or more'}, each {rule[1]}"


NUMBER = number("", lambda value: True)
POSITIVE = number("above 0", lambda value: value > 0)
NOT_NEGATIVE = number("of at least 0", lambda value: value >= 0)
SHARE = number("from 0 to 1", lambda value: 0 <= value <= 1)
BELOW_1 = number("from 0 to below 1", lambda value: 0 <= value < 1)
COUNT = number("above 0", lambda value: value > 0, whole=True)
COUNT_OR_0 = number("of at least 0", lambda value: value >= 0, whole=True)


def value_of(cfg: CfgNode, key: str, missing: Any = None) -> Any:
    """A config's value by its full key; ``missing`` where this Detectron2 lacks the key."""
    node: Any = cfg
    for name in key.split("."):
        node = node.get(name, missing) if isinstance(node, CfgNode) else missing
    return node


def changed(cfg: CfgNode, values: Mapping[str, Any]) -> CfgNode:
    """A frozen copy of a config with other values, by full key."""
    copy = cfg.clone()
    copy.defrost()
    for key, value in values.items():
        parent, _, name = key.rpartition(".")
        (value_of(copy, parent) if parent else copy)[name] = value
    copy.freeze()
    return copy


def check_rules(cfg: CfgNode, rules: Mapping[str, Rule]) -> None:
    """Refuse values of a config that break a rule of their key.

    Keys that this version of Detectron2 lacks are passed over.

    Raises:
        IONError: one does; the message has the key, the value and what it must be.
    """
    missing = object()
    for key, rule in rules.items():
        value = value_of(cfg, key, missing)
        if value is not missing:
            check_value(key, value, rule)


def check_value(key: str, value: Any, rule: Rule) -> None:
    """Refuse the value of a key, whose full name is told, if it breaks the rule."""
    is_right, wanted = rule
    try:
        right = is_right(value)
    except (TypeError, OverflowError):  # text, which is not compared with numbers, and 10**400
        right = False
    if not right:
        raise IONError(f"{key} is {value!r}; it must be {wanted}.")
