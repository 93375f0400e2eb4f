"""docs/CONFIG.md is what tools/config_reference.py makes of ion_d2/config.py."""

import re

import pytest
from cli_helpers import load_tool
from detectron2.config import get_cfg

from ion_d2.config import add_ion_config
from ion_d2.errors import IONError
from ion_d2.value_rules import value_of

tool = load_tool("config_reference")
TEXT = tool.OUTPUT.read_text(encoding="utf-8")


def flat(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, type(node)):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_document_is_what_the_tool_makes():
    assert tool.make_reference() == TEXT, "run `python tools/config_reference.py`"


def test_every_key_of_ours_has_its_row_with_an_explanation():
    cfg, theirs = get_cfg(), set(flat(get_cfg()))
    add_ion_config(cfg)
    rows = dict(re.findall(r"^\| `([A-Z0-9_.]+)` \|(.*)\|$", TEXT, re.MULTILINE))
    for key in set(flat(cfg)) - theirs:
        kind, default, meaning = (cell.strip() for cell in rows[key].split(" | "))
        assert kind and default == f"`{value_of(cfg, key)!r}`" and len(meaning) > 20, key
    assert set(tool.DETECTRON2_KEYS) <= theirs & set(rows)


def test_a_key_without_a_comment_is_refused(tmp_path, monkeypatch):
    source = tmp_path / "config.py"
    source.write_text('    # Why.\n    "MODEL.DROPOUT_ON": True,\n    "TEST.LOSS": False,\n')
    monkeypatch.setattr(tool.ion_d2.config, "__file__", str(source))
    with pytest.raises(IONError, match="does not explain TEST.LOSS"):
        tool.make_reference()
