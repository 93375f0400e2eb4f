"""CHANGELOG.md and CITATION.cff agree with the tree."""

import importlib.util
import re
from pathlib import Path

import yaml

import ion_d2

ROOT = Path(__file__).resolve().parent.parent


def test_what_moved_is_where_the_changelog_says():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ion_d2[\w.]+)` \| (`.*`) \|$", text, re.MULTILINE)
    assert f"[Unreleased] {ion_d2.__version__}" in text and len(rows) > 20
    for before, now in rows:
        assert not any((ROOT / f"{before.replace('.', '/')}{end}").exists() for end in ("", ".py"))
        assert all(importlib.util.find_spec(name) for name in re.findall(r"`([\w.]+)`", now)), now


def test_the_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # What the format 1.2.0 requires.
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["version"] == ion_d2.__version__
    names = [author["family-names"] for author in cited["preferred-citation"]["authors"]]
    assert names == ["Bell", "Zitnick", "Bala", "Girshick"]
