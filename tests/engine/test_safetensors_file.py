"""Weights as safetensors: the package itself reads them, and so does the checkpointer."""

import pytest
import torch
from checkpoint_helpers import is_zero, make, values, zeroed
from refusals import refused

from ion_d2.engine import checkpoint_files
from ion_d2.engine.checkpoint_files import write_safetensors
from ion_d2.engine.class_names import classes_of, read_class_names

safetensors = pytest.importorskip("safetensors.torch")


def test_what_is_written_is_read_with_its_classes(tmp_path):
    path = str(tmp_path / "sub" / "a.safetensors")
    source = make()
    write_safetensors(path, source.model, ["ant", "bee"])
    theirs = safetensors.load_file(path)
    assert theirs.keys() == {"weight", "bias"}
    assert all(torch.equal(theirs[key], value) for key, value in values(source).items())
    checkpointer = zeroed(make())
    checkpointer.load_complete(path)
    assert all(torch.equal(values(checkpointer)[k], v) for k, v in values(source).items())
    assert read_class_names(path) == classes_of(checkpointer.model) == ["ant", "bee"]


def test_a_file_of_another_program_has_no_classes(tmp_path):
    path = str(tmp_path / "a.safetensors")
    safetensors.save_file({"weight": torch.zeros(4, 4), "bias": torch.zeros(4)}, path)
    checkpointer = make()
    checkpointer.load_complete(path)
    assert is_zero(checkpointer) and read_class_names(path) is None


def test_a_missing_package_and_a_full_disk_are_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with refused("file/a.safetensors cannot be written", "another place"):
        write_safetensors(str(tmp_path / "file" / "a.safetensors"), make().model, [])
    monkeypatch.setattr(checkpoint_files.importlib, "import_module", _missing)
    (tmp_path / "a.safetensors").write_bytes(b"")
    with refused("pip install safetensors"):
        make().load(str(tmp_path / "a.safetensors"))


def _missing(name):
    raise ModuleNotFoundError(f"No module named {name!r}")
