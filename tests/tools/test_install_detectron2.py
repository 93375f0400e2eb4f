"""The installer, run in bare virtual environments on small made-up archives (no network)."""

import hashlib
import zipfile

import pytest
from bare_environment import SCRIPT, Environment, make_archive, pure

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path)


def one_sentence(done):
    """Check that a run failed with one line and no traceback; returns the line."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("install_detectron2: ")
    return done.stderr


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
    options = make_archive(tmp_path)[1]
    environment.run(SCRIPT, *options)
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
def test_broken_other_detectron2_is_named_and_untouched(environment, tmp_path, source, said):
    environment.write("detectron2/__init__.py", "__version__ = '0.6'\n")
    environment.write("detectron2/modeling/__init__.py", source)
    metadata = "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n"
    environment.write("detectron2-0.6.dist-info/METADATA", metadata)
    before = environment.files()
    sentence = one_sentence(environment.run(SCRIPT, *make_archive(tmp_path)[1]))
    assert "Detectron2 0.6" in sentence and "cannot be imported" in sentence and said in sentence
    assert environment.files() == before


def test_archive_with_another_digest_is_refused(environment, tmp_path):
    before = environment.files()
    archive = make_archive(tmp_path)[0]
    sentence = one_sentence(environment.run(SCRIPT, "--archive", archive))
    assert "SHA-256" in sentence and "nothing was installed" in sentence
    assert environment.files() == before


def test_unusable_archives_are_refused(environment, tmp_path):
    before = environment.files()
    assert "absent.tar.gz" in one_sentence(environment.run(SCRIPT, "--archive", "absent.tar.gz"))
    other = make_archive(tmp_path, {"setup.py": ""})[1]
    assert "detectron2/__init__.py" in one_sentence(environment.run(SCRIPT, *other))
    text = tmp_path / "text.tar.gz"
    text.write_text("no archive")
    options = ["--archive", text, "--sha256", hashlib.sha256(b"no archive").hexdigest()]
    assert "not a readable" in one_sentence(environment.run(SCRIPT, *options))
    assert environment.files() == before


def test_failing_download_passes_on_what_pip_said(environment):
    before = environment.files()
    sentence = one_sentence(environment.run(SCRIPT))
    assert "pip said: ERROR: No matching distribution found" in sentence
    assert environment.files() == before


def test_download_without_pytorch_says_what_to_install_first(environment):
    (environment.packages / "torch.py").unlink()
    assert "pip install torch==2.11.0" in one_sentence(environment.run(SCRIPT))
