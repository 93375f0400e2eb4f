"""How tests look at the errors that users meet."""

from __future__ import annotations

import contextlib

import pytest

from ion_d2.errors import IONError


@contextlib.contextmanager
def refused(*words):
    """What runs inside raises an :class:`IONError` that holds the words."""
    with pytest.raises(IONError) as caught:
        yield caught
    message = str(caught.value)
    assert all(str(word) in message for word in words), message
