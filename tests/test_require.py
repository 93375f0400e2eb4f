"""Importing ion_d2 where Detectron2 is broken or NumPy misfits, in interpreters of their own."""

import os

import pytest
from process_helpers import ROOT, run_python


def import_error(path):
    """Import ion_d2 beside a package detectron2 in a folder; returns the last line written."""
    both = f"{path}{os.pathsep}{ROOT}"
    done = run_python("-c", "import ion_d2", cwd=ROOT.parent, PYTHONPATH=both)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "source",
    [
        "raise AttributeError('module PIL.Image has no attribute LINEAR')",
        "raise OSError('libcudart.so.11: cannot open shared object file')",
        "from detectron2 import _C",
        "import detectron2._C",
    ],
)
def test_broken_detectron2_says_why_and_what_to_run(tmp_path, source):
    (tmp_path / "detectron2" / "modeling").mkdir(parents=True)
    (tmp_path / "detectron2" / "__init__.py").write_text("")
    (tmp_path / "detectron2" / "modeling" / "__init__.py").write_text(source + "\n")
    line = import_error(tmp_path)
    assert line.startswith("ImportError: ion_d2 needs Detectron2, which is installed but broken (")
    assert "python tools/install_detectron2.py" in line
    reason = source.split("'")[1] if "'" in source else "_C"
    assert reason in line


def test_missing_requirement_of_detectron2_is_named(tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("import fvcore_of_old.nn\n")
    line = import_error(tmp_path)
    assert "the missing module fvcore_of_old" in line and "pip install -e ." in line


def test_a_numpy_that_pytorch_cannot_use_is_named(tmp_path):
    for name, source in {
        "detectron2/__init__.py": "",
        "numpy.py": "__version__ = '2.0.2'\n",
        "torch.py": "__version__ = '2.0.0'\ndef zeros(n): raise RuntimeError('Numpy is absent')\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    line = import_error(tmp_path)
    assert line.startswith("ImportError: PyTorch 2.0.0 cannot use the installed NumPy 2.0.2 (Numpy")
    assert "`pip install 'numpy<2' -e .`" in line
