"""A virtual environment without packages, and small made-up archives of Detectron2."""

import hashlib
import importlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

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
    "LICENSE": "the license",
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
