"""The installer, run in bare virtual environments on small made-up archives (no network)."""

import hashlib
import zipfile

import pytest
from bare_environment import SCRIPT, Environment, make_archive, pure

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path)


@pytest.fixture
def refuses(environment):
    """Runs the installer: it fails with one line, which holds the words, and changes no file."""

    def run(*arguments, words):
        before = environment.files()
        done = environment.run(SCRIPT, *arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("install_detectron2: ")
        assert all(word in done.stderr for word in words), done.stderr
        assert environment.files() == before

    return run


def test_installs_a_distribution_that_pip_lists_and_removes(environment, tmp_path):
    before = environment.files()
    done = environment.run(SCRIPT, *make_archive(tmp_path)[1])
    assert done.returncode == 0, done.stderr
    assert "detectron2==0.5+pure" in environment.run("-m", "pip", "freeze", "--all").stdout
    names = environment.files().keys()
    assert "detectron2-0.5+pure.dist-info/licenses/LICENSE" in names
    assert not any(name.startswith(("tools", "projects", "setup.py")) for name in names)
    assert environment.run("-m", "pip", "uninstall", "-y", "detectron2").returncode == 0
    assert environment.files() == before
    assert not (environment.packages / "detectron2").exists()


def test_installed_files_are_patched_and_complete(environment, tmp_path):
    environment.run(SCRIPT, *make_archive(tmp_path)[1])
    program = """
from detectron2 import _C, data, model_zoo
from detectron2.projects import point_rend
assert data.KINDS == (bool, "kept"), data.KINDS
assert open(model_zoo.get_config_file("Base.yaml")).read() == "VERSION: 2\\n"
assert point_rend.NAME == "point rend"
from detectron2._C import roi_align_rotated_forward
import torch
assert not hasattr(_C, "__path__") and _C.has_cuda() is False
for operator in (_C.anything, roi_align_rotated_forward, torch.ops.detectron2.nms_rotated):
    try:
        operator(1, key=2)
    except RuntimeError as error:
        assert "compiled operator" in str(error)
    else:
        raise AssertionError(operator)
"""
    done = environment.run("-c", program)
    assert done.returncode == 0, done.stderr


def test_second_run_keeps_what_the_first_installed(environment, tmp_path):
    environment.run(SCRIPT, *make_archive(tmp_path)[1])
    before = environment.files()
    done = environment.run(SCRIPT)
    assert done.returncode == 0 and "0.5+pure works and is kept" in done.stdout
    assert environment.files() == before


@pytest.mark.parametrize("unpacked", [1, 4, 9])
def test_unpacking_cut_short_is_repaired(environment, tmp_path, unpacked):
    archive, options = make_archive(tmp_path)
    with zipfile.ZipFile(pure.build_wheel(archive, tmp_path)) as wheel:
        wheel.extractall(environment.packages, members=wheel.namelist()[:unpacked])
    done = environment.run(SCRIPT, *options)
    assert done.returncode == 0, done.stderr
    assert environment.run("-m", "pip", "uninstall", "-y", "detectron2").returncode == 0
    assert not (environment.packages / "detectron2").exists()


def test_working_other_detectron2_is_kept(environment, tmp_path):
    for part in ("", "modeling/", "data/", "engine/", "evaluation/"):
        environment.write(f"detectron2/{part}__init__.py", "__version__ = '0.6'\n")
    before = environment.files()
    done = environment.run(SCRIPT, *make_archive(tmp_path)[1])
    assert done.returncode == 0 and "Detectron2 0.6 works and is kept" in done.stdout
    assert environment.files() == before


@pytest.mark.parametrize(
    "source, said",
    [
        ("raise AttributeError('no attribute LINEAR')", "pip uninstall detectron2"),
        ("import fvcore_of_old", "install the missing module fvcore_of_old"),
        ("import detectron2._C", "No module named 'detectron2._C'"),
    ],
)
def test_broken_other_detectron2_is_named_and_untouched(
    environment, refuses, tmp_path, source, said
):
    environment.write("detectron2/__init__.py", "__version__ = '0.6'\n")
    environment.write("detectron2/modeling/__init__.py", source)
    metadata = "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n"
    environment.write("detectron2-0.6.dist-info/METADATA", metadata)
    words = ("Detectron2 0.6", "cannot be imported", said)
    refuses(*make_archive(tmp_path)[1], words=words)


def test_a_numpy_that_pytorch_cannot_use_is_named(environment, refuses, tmp_path):
    environment.write("numpy.py", "__version__ = '2.0.2'\n")
    torch = "__version__ = '2.0.0'\ndef zeros(n): raise RuntimeError('Numpy is absent')\n"
    environment.write("torch.py", torch)
    words = ("PyTorch 2.0.0 cannot use the installed NumPy 2.0.2", "pip install 'numpy<2' -e .")
    refuses(*make_archive(tmp_path)[1], words=words)


def test_unusable_archives_are_refused(refuses, tmp_path):
    refuses("--archive", "absent.tar.gz", words=["absent.tar.gz"])
    refuses("--archive", make_archive(tmp_path)[0], words=["SHA-256"])
    other = make_archive(tmp_path, {"setup.py": ""})[1]
    refuses(*other, words=["detectron2/__init__.py"])
    text = tmp_path / "text.tar.gz"
    text.write_text("no archive")
    digest = hashlib.sha256(b"no archive").hexdigest()
    refuses("--archive", text, "--sha256", digest, words=["not a readable"])


def test_failing_download_passes_on_what_pip_said(environment, refuses):
    refuses(words=["pip said: ERROR: No matching distribution found"])
    (environment.packages / "torch.py").unlink()
    refuses(words=["pip install torch==2.11.0"])
