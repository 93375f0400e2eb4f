"""Names of classes: their one spelling, and the text file that lists them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ion_d2.data.folders import read_lines
from ion_d2.errors import IONError

# Unicode's categories of control characters, breaks of lines and paragraphs, and halves of pairs.
_UNPRINTABLE = ("Cc", "Zl", "Zp", "Cs")


def is_unprintable(name: str) -> bool:
    """Whether a text holds a line break, a tab, another control character or half a pair.

    Args:
        name: the text.
    """
    return any(unicodedata.category(character) in _UNPRINTABLE for character in name)


def clean_class_name(name: str) -> str:
    """The one spelling of a class name.

    Args:
        name: as a file has it.

    Returns:
        The name in Unicode's composed form (NFC), each run of white space, line breaks included, as
        one space, and none at the ends.
    """
    return " ".join(unicodedata.normalize("NFC", name).split())


def check_class_names(names: Sequence[object], source: str) -> list[str]:
    """Look at the class names of a registered dataset.

    Args:
        names: in the order of the class ids.
        source: what they belong to, for messages.

    Returns:
        Their clean spellings.

    Raises:
        IONError: one is no text, empty, has a line break or another control character, or two are
            one class.
    """
    cleaned: list[str] = []
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise IONError(f"{source} has the class {name!r}; a class name is text, not empty.")
        if is_unprintable(name):
            raise IONError(
                f"{source} has the class {name!r}, with a line break, tab or control character; "
                "give it a name in one line."
            )
        cleaned.append(clean_class_name(name))
    _check_unique(cleaned, source)
    return cleaned


def read_class_file(path: str) -> list[str]:
    """Read the names of classes, one a line.

    Args:
        path: the file; blank lines, lines starting with ``#`` and a leading ``background`` do not
            count.

    Returns:
        The names in the order of the class ids, as :func:`clean_class_name` spells them.

    Raises:
        IONError: it cannot be read, names no class, or one twice.
    """
    names = [clean_class_name(line) for line in read_lines(path) if not line.startswith("#")]
    if names and names[0] in ("background", "__background__"):
        names = names[1:]
    if not names:
        raise IONError(f"{path} names no class; write one class name a line into it.")
    _check_unique(names, path)
    return names


def _check_unique(names: Sequence[str], source: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise IONError(
            f"{source} names {', '.join(repeated)} more than once (Unicode's composed and "
            "decomposed forms are one name); keep one of each."
        )
