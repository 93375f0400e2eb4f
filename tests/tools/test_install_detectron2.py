"""The installer, run in bare virtual environments on small made-up archives (no network)."""

import hashlib
import importlib
import importlib.metadata
import io
import os
import pkgutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SCRIPT = TOOLS / "install_detectron2.py"
sys.path.insert(0, str(TOOLS))
pure = importlib.import_module("detectron2_pure")
sys.path.remove(str(TOOLS))

ZOO = """import os
import pkg_resources


def get_config_file(path):
    return pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", path)
    )
"""
SOURCES = {
    "LICENSE": "the licence",
    "setup.py": "raise SystemExit('never run')",
    "tools/__init__.py": "",
    "detectron2/__init__.py": "__version__ = '0.5'\n",
    "detectron2/modeling/__init__.py": "from detectron2 import _C\n",
    "detectron2/data/__init__.py": "class np: bool_ = 'kept'\nKINDS = (np.bool, np.bool_)\n",
    "detectron2/engine/__init__.py": "",
    "detectron2/evaluation/__init__.py": "",
    "detectron2/model_zoo/__init__.py": ZOO,
    "detectron2/model_zoo/configs/Base.yaml": "VERSION: 2\n",
    "projects/PointRend/point_rend/__init__.py": "NAME = 'point rend'\n",
}


def make_archive(folder, sources=SOURCES):
    """Write a source archive; returns its path and the options that make the installer take it."""
    path = folder / "detectron2_cdo-0.5.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in sources.items():
            member = tarfile.TarInfo(f"detectron2_cdo-0.5/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, ["--archive", str(path), "--sha256", digest]


class Environment:
    """A virtual environment that holds nothing but a stub of torch, with pip beside it."""

    def __init__(self, folder):
        venv.create(folder / "env", with_pip=False)
        self.python = folder / "env" / "bin" / "python"
        only_pip = folder / "only_pip"
        only_pip.mkdir()
        # Not by importing pip: setuptools then leaves distutils alone in the rest of the process.
        pip = importlib.metadata.distribution("pip").locate_file("pip")
        (only_pip / "pip").symlink_to(pip, target_is_directory=True)
        quiet = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        self.variables = {**kept, **quiet, "PYTHONPATH": str(only_pip)}
        purelib = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
        self.packages = Path(self.run("-c", purelib).stdout.strip())
        self.write("torch.py", "class ops:\n    class detectron2: pass\n")

    def run(self, *arguments):
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=self.variables)

    def write(self, name, text):
        path = self.packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def files(self):
        """Contents of all installed files (compiled ones aside) by name."""
        found = (path for path in self.packages.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.packages)): path.read_bytes()
            for path in found
            if path.suffix != ".pyc"
        }


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


@pytest.mark.parametrize(
    "old, new",
    [
        ("x.astype(np.bool)", "x.astype(bool)"),
        ("dtype=np.float, y=np.int", "dtype=float, y=int"),
        ("np.loadtxt(f, dtype=np.str)", "np.loadtxt(f, dtype=str)"),
        ("np.bool_, np.float32, np.int64, np.strings, xnp.int", None),
        ("interp=Image.LINEAR", "interp=Image.BILINEAR"),
        ("Image.LINEARLY", None),
    ],
)
def test_modernise_replaces_whole_removed_names_only(old, new):
    assert pure.modernise(old) == (old if new is None else new)


def test_wheel_paths_cannot_leave_the_installation(tmp_path):
    sources = {**SOURCES, "detectron2/../../evil.py": "", "detectron2/data.so": "binary"}
    with zipfile.ZipFile(pure.build_wheel(make_archive(tmp_path, sources)[0], tmp_path)) as wheel:
        assert not any("evil" in name or name.endswith(".so") for name in wheel.namelist())


def pure_build():
    """Skip unless the Detectron2 of this interpreter is the pure Python build."""
    try:
        found = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != pure.VERSION:
        pytest.skip(f"Detectron2 here is {found}, not the pure Python build {pure.VERSION}")
    return importlib.import_module("detectron2")


def test_every_module_of_the_real_build_imports():
    package = pure_build()
    optional = {"caffe2", "onnx", "panopticapi"}  # none of them is a requirement of Detectron2
    names = [
        found.name
        for found in pkgutil.walk_packages(
            package.__path__, "detectron2.", onerror=lambda name: None
        )
    ]
    assert len(names) > 100
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert error.name.split(".")[0] in optional, f"{name}: {error}"


def test_compiled_operators_of_the_real_build_raise_a_clear_error():
    pure_build()
    torch = importlib.import_module("torch")
    layers = importlib.import_module("detectron2.layers")
    structures = importlib.import_module("detectron2.structures.rotated_boxes")
    boxes, scores = torch.tensor([[5.0, 5, 4, 4, 0]]), torch.ones(1)
    rotated = layers.ROIAlignRotated((2, 2), 1.0, 1)
    for call in (
        lambda: layers.nms_rotated(boxes, scores, 0.5),
        lambda: rotated(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 5, 5, 4, 4, 0]])),
        lambda: structures.pairwise_iou_rotated(boxes, boxes),
    ):
        with pytest.raises(RuntimeError, match="pure Python build"):
            call()


def test_real_build_runs_on_current_numpy_and_pillow():
    pure_build()
    np = importlib.import_module("numpy")
    transforms = importlib.import_module("detectron2.data.transforms")
    visualizer = importlib.import_module("detectron2.utils.visualizer")
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (transforms.ResizeTransform(8, 8, 8, 8).apply_image(image) == image).all()
    inner = transforms.ExtentTransform((2, 2, 6, 6), (4, 4)).apply_image(image[:, :, None])
    assert (inner[:, :, 0] == image[2:6, 2:6]).all()
    canvas = visualizer.Visualizer(np.zeros((20, 30, 3), np.uint8))
    canvas.draw_binary_mask(np.pad(np.ones((8, 18), bool), 6), color="r", area_threshold=0)
    drawn = canvas.draw_box((2, 2, 20, 12), edge_color="w").get_image()
    assert drawn.shape == (20, 30, 3) and drawn.max() > 100
    zoo = importlib.import_module("detectron2.model_zoo")
    assert zoo.get_config("PascalVOC-Detection/faster_rcnn_R_50_C4.yaml").INPUT.MIN_SIZE_TEST == 800
