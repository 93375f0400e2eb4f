"""Told commands run in the environment that tells them."""

import os
import sys

import pytest

from ion_d2.shell import python_command


@pytest.mark.parametrize(
    ("path", "folder", "start"),
    [
        ("env/bin", ".", "python"),  # activated
        ("usr/bin", ".", "env/bin/python3"),
        ("usr/bin", "elsewhere", "{}/env/bin/python3"),
        ("", ".", "env/bin/python3"),
    ],
)
def test_an_environment_that_is_not_activated_is_named(path, folder, start, tmp_path, monkeypatch):
    for name in ("env/bin", "usr/bin", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("env/bin/python", "env/bin/python3", "usr/bin/python"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env/bin/python3"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("PATH", str(tmp_path / path) if path else "")
    monkeypatch.chdir(tmp_path / folder)
    told = python_command("tools/report.py", "a run")
    assert told == f"{start.format(tmp_path)} tools/report.py 'a run'"


def test_without_a_virtual_environment(monkeypatch):
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setenv("PATH", os.devnull)
    assert python_command("demo.py") == "python demo.py"
