"""setup.py and the Makefile agree with the tree."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ion_d2", "ion_lab")
# Modules whose distribution has another name.
DISTRIBUTIONS = {"hydra": "hydra-core", "PIL": "pillow", "yaml": "pyyaml"}


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower()


@pytest.fixture(scope="module")
def arguments():
    """What setup.py passes to setuptools, taken in an interpreter of its own."""
    program = "import json, runpy, setuptools; seen = {}; setuptools.setup = seen.update; "
    program += "runpy.run_path('setup.py'); print(json.dumps(seen))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    if "No module named 'setuptools'" in done.stderr:
        pytest.skip("setuptools is not installed")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_version_is_the_one_of_the_package(arguments):
    ion_d2 = pytest.importorskip("ion_d2", exc_type=ImportError)
    assert arguments["version"] == ion_d2.__version__


def files_of_packages(pattern):
    return [path for name in PACKAGES for path in (ROOT / name).rglob(pattern) if path.is_file()]


def test_every_folder_of_the_packages_and_no_other_is_packaged(arguments):
    folders = {path.parent.relative_to(ROOT) for path in files_of_packages("*.py")}
    assert set(arguments["packages"]) == {".".join(folder.parts) for folder in folders}


def test_every_other_file_of_the_packages_is_packaged(arguments):
    others = {path for path in files_of_packages("*") if path.suffix not in (".py", ".pyc")}
    listed = {
        path
        for package, patterns in arguments["package_data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert others == listed
    # Without it, type checkers pass over the annotations of an installed package.
    assert {ROOT / name / "py.typed" for name in PACKAGES} <= others


def test_a_source_archive_has_the_packages_and_no_tests(arguments, tmp_path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = (tmp_path / "ion_d2.egg-info" / "SOURCES.txt").read_text().splitlines()
    assert {"setup.py", "ion_d2/layers/__init__.py", "ion_lab/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith("tests")]


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")
def test_every_imported_module_is_a_requirement(arguments):
    # Parts that do without them where they are missing: builds of PyTorch for GPUs bring triton.
    extras = arguments["extras_require"]
    optional = [*extras["export"], *extras["safetensors"], *extras["web"], "triton"]
    optional.append("hypothesis")  # tools/fuzz.py, for developers
    declared = {name_of(name) for name in [*arguments["install_requires"], *optional]}
    declared.add("cv2")  # any build of OpenCV, or none where it was built from its sources
    programs = [*ROOT.glob("*.py"), *(ROOT / "tools").glob("*.py")]
    own = {path.stem for path in programs} | {*PACKAGES, "detectron2"}
    for path in [*programs, *files_of_packages("*.py")]:
        if path.name == "setup.py":
            continue
        for module in set(imported_modules(path)) - own - sys.stdlib_module_names:
            name = DISTRIBUTIONS.get(module, module).lower()
            assert name in declared, f"{path} imports {module}, which setup.py does not require"


@pytest.fixture
def required(monkeypatch, tmp_path):
    """What setup.py requires beside distributions, or modules, of these names and no others."""

    def run(*installed):
        for name in installed:
            (tmp_path / name).mkdir()
            if name.endswith(".dist-info"):
                text = f"Metadata-Version: 2.1\nName: {name.split('-')[0]}\nVersion: 4.9\n"
                (tmp_path / name / "METADATA").write_text(text)
            else:
                (tmp_path / name / "__init__.py").touch()
        seen = {}
        monkeypatch.setattr("setuptools.setup", seen.update)
        monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [])  # as in pip's environment for building
            runpy.run_path(str(ROOT / "setup.py"))
        base = [it for it in seen["install_requires"] if it.startswith("opencv")]
        return base, seen["extras_require"]["proposals"]

    pytest.importorskip("setuptools")
    return run


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        ([], ["opencv-contrib-python-headless>=4.5"]),
        (["cv2", "opencv_python-4.9.dist-info"], ["opencv-python>=4.5"]),
        (["cv2", "opencv_contrib_python-4.9.dist-info"], ["opencv-contrib-python>=4.5"]),
        (["cv2"], []),
    ],
    ids=["nothing", "opencv-python", "opencv-contrib-python", "built from sources"],
)
def test_the_build_of_opencv_that_is_there_is_required(required, installed, wanted):
    assert required(*installed) == (wanted, wanted)  # a second build would break the first


def test_the_extras_that_documents_name_are_there(arguments):
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile"]
    files += [ROOT / "Dockerfile", ROOT / ".devcontainer" / "devcontainer.json"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = {name for names in re.findall(r"'\.\[([\w,]+)\]'", text) for name in names.split(",")}
    assert {"export", "timm", "wandb", "web"} <= named
    assert named <= arguments["extras_require"].keys()


def test_what_docker_copies_can_be_installed_and_no_more(arguments, tmp_path, monkeypatch):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*" and rules[-1] == "**/__pycache__"
    for rule in rules[1:-1]:
        source = ROOT / rule.removeprefix("!")
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / source.name)
    seen = {}
    monkeypatch.setattr("setuptools.setup", seen.update)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("setup.py")
    assert set(seen["packages"]) == set(arguments["packages"])
    assert {path.name for path in ROOT.glob("*.py")} == {
        path.name for path in tmp_path.glob("*.py")
    }


def test_the_container_of_editors_is_the_one_of_the_dockerfile():
    file = ROOT / ".devcontainer" / "devcontainer.json"
    container = json.loads(file.read_text())
    dockerfile = (file.parent / container["build"]["dockerfile"]).read_text()
    assert (file.parent / container["build"]["context"]).resolve() == ROOT
    assert f"USER {container['remoteUser']}\n" in dockerfile


def test_requirements_of_the_pure_detectron2_are_ours_too(arguments):
    declared = {name_of(requirement) for requirement in arguments["install_requires"]}
    build = runpy.run_path(str(ROOT / "tools" / "detectron2_pure.py"))
    assert {name_of(requirement) for requirement in build["REQUIRES"]} <= declared


def test_developers_get_the_tools_of_the_makefile(arguments):
    tools = {name_of(extra) for extra in arguments["extras_require"]["dev"]}
    assert {"mypy", "pytest", "pytest-xdist", "ruff", "sphinx"} <= tools


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_has_every_target_that_the_documents_and_ci_name(tmp_path):
    files = [ROOT / ".ci" / "run", *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert targets >= {"setup", "test", "test-fast", "lint", "docs", "demo"}
    # A surrounding make passes its own flags and variables on through these.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", f"VENV={tmp_path}/env", *sorted(targets)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/env/bin/python" in done.stdout
