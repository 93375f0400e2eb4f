"""Names of classes: their one spelling, and the text file that lists them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ..errors import IONError
from .folders import composed, read_lines

# Unicode's categories of control characters, breaks of lines and paragraphs, and halves of pairs.
_UNPRINTABLE = ("Cc", "Zl", "Zp", "Cs")
_BACKGROUND = ("background", "__background__")  # as a list's first name, no class


def is_unprintable(name: str) -> bool:
    """Whether a text holds a line break, a tab, another control character or half a pair."""
    return any(unicodedata.category(character) in _UNPRINTABLE for character in name)


def clean_class_name(name: str) -> str:
    """The one spelling of a class name: composed (NFC), single spaces, none at the ends."""
    return " ".join(composed(name).split())


def check_class_names(names: Sequence[object], source: str) -> list[str]:
    """The clean spellings of the class names of a registered dataset, which ``source`` names.

    Raises:
        IONError: a name is no text, empty, or has a control character, or two are one class.
    """
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise IONError(f"{source} has the class {name!r}; a class name is text, not empty.")
        if is_unprintable(name):
            raise IONError(
                f"{source} has the class {name!r}; give it a name without control characters."
            )
    return _unique([clean_class_name(str(name)) for name in names], source)


def read_class_file(path: str) -> list[str]:
    """Read the names of classes, one a line, in the order of their ids.

    Blank lines, lines starting with ``#`` and a leading ``background`` do not count; ``\\#`` starts
    a name with ``#``. Names are spelled by :func:`clean_class_name`.

    Raises:
        IONError: the file cannot be read, names no class, or one twice.
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    names = [clean_class_name(re.sub(r"^\\(\\*#)", r"\1", line)) for line in lines]
    if names and names[0] in _BACKGROUND:
        names = names[1:]
    if not names:
        raise IONError(f"{path} names no class; write one class name a line into it.")
    return _unique(names, path)


def class_file_text(names: Sequence[str]) -> str:
    """The content of a file of class names from which :func:`read_class_file` reads just these."""
    lines = [re.sub(r"^(\\*#)", r"\\\1", name) for name in names]
    if names and names[0] in _BACKGROUND:
        lines.insert(0, "background")  # which does not count, so that the next one does
    return "".join(f"{line}\n" for line in lines)


def _unique(names: list[str], source: str) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise IONError(
            f"{source} names {', '.join(repeated)} more than once (Unicode's composed and "
            "decomposed forms are one name); keep one of each."
        )
    return names
