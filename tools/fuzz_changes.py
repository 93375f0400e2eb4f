"""Inputs of tools/fuzz.py: sound files, changed in the values of their format or in their bytes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fuzz_formats import Format
from hypothesis import strategies as st

from ion_d2.errors import IONError

Draw = Callable[[Any], Any]
SECONDS = 1.0
_ODD = [
    None, True, 0, -1, 1, 2**31, 2**63, -(10**400), 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", " ", "0", "nan", "1e999", "\0", "a\nb", "\ud800", "\u202e", "é", "e\u0301", "../../x",
    "/dev/zero", "<b>", "x" * 5000, [], {}, [[]], [None], {"": None}, [0] * 4, [0] * 5, [1e300] * 6,
]  # fmt: skip
_TOKENS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b"-", b"9" * 400, b"[" * 3000, b"<a>", b"nan", b"../",
]  # fmt: skip
_ACTIONS = ["odd", "odd", "any", "remove", "repeat", "wrap", "deep", "number"]


class Reader(NamedTuple):
    """A reader, and how its input is made."""

    write: Callable[[Path], Path]  # a sound dataset into a folder; returns the file to change
    read: Callable[[Path], Any]
    format: Format


@st.composite
def inputs(draw: Draw, reader: Reader, sound: bytes) -> bytes:
    """Contents of a file, one to four changes away from a sound one."""
    content = sound
    if draw(st.integers(0, 2)):
        tree = [reader.format.values(sound)]
        for _ in range(draw(st.integers(1, 3))):
            _change(tree, draw)
        try:
            content = reader.format.content(tree[0])
        except Exception:  # what the format cannot say; its bytes can still be wrong
            content = sound
    if content == sound or not draw(st.integers(0, 3)):
        content = _damaged(content, draw)
    return content


def check(reader: Reader, path: Path, content: bytes) -> None:
    """Read a content, which must succeed or raise an IONError of one line, in a second of CPU."""
    path.write_bytes(content)
    start = time.process_time()
    try:
        reader.read(path)
    except IONError as error:
        assert "\n" not in str(error), f"more than a line: {error}"
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"it took {seconds:.1f} s"


def _change(tree: Any, draw: Draw) -> None:
    """Replace, remove, repeat or wrap one of the values of a tree of lists and dicts."""
    places = list(_places(tree))
    parent, key = draw(st.sampled_from(places))
    action = draw(st.sampled_from(_ACTIONS))
    if action == "remove" and parent is not tree:
        del parent[key]
    elif action == "repeat" and isinstance(parent, list) and parent is not tree:
        parent.insert(key, copy.deepcopy(parent[key]))
    elif action == "wrap":
        parent[key] = [parent[key]]
    elif action == "deep":
        for _ in range(draw(st.sampled_from([3, 40, 200]))):
            parent[key] = [parent[key]]
    elif action == "number":
        parent[key] = draw(st.integers() | st.floats())
    elif action == "any":
        plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
        parent[key] = draw(
            st.recursive(plain, lambda part: st.lists(part, max_size=5), max_leaves=6)
        )
    else:
        parent[key] = copy.deepcopy(draw(st.sampled_from(_ODD)))


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, (dict, list)) and value:
            yield from _places(value)


def _damaged(content: bytes, draw: Draw) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        action = draw(st.sampled_from(["flip", "flip", "cut", "drop", "token", "double", "utf-16"]))
        if action == "flip" and changed:
            changed[place] = draw(st.integers(0, 255))
        elif action == "cut":
            del changed[place:]
        elif action == "drop":
            del changed[place : place + draw(st.integers(1, 40))]
        elif action == "token":
            changed[place:place] = draw(st.sampled_from(_TOKENS))
        elif action == "double":
            changed[place:place] = changed[place : place + 200]
        elif action == "utf-16":
            changed = bytearray(changed.decode("latin1").encode("utf-16"))
    return bytes(changed)
