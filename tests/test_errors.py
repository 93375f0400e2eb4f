"""Messages are one line of text, whatever they quote."""

from ion_d2.errors import IONError


def test_what_a_terminal_would_obey_is_shown():
    quoted = "a\nb\r\x1b[2J\x9b\u2028\u202e"
    assert str(IONError(f"The name is {quoted}.")) == (
        r"The name is a\nb\r\x1b[2J\x9b\u2028\u202e."
    )
    assert IONError("", rule="x").rule == "x"


def test_other_text_stays_as_it_is():
    text = "日本語 é \u200c \U0001f600 C:\\new\\table"
    assert str(IONError(text)) == text
