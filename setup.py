"""Packaging of ion_d2. Detectron2 is not on the package index: see tools/install_detectron2.py."""

import re
import sys
import sysconfig
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
TIMM = ["timm>=1.0"]
EXPORT = ["onnx", "onnxruntime"]
# Builds of OpenCV. All install the module cv2, so that a second one breaks the first. The first
# here has what tools/make_proposals.py needs, and does not need libGL, as bare machines have none.
OPENCV = (
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-python",
)
SAFETENSORS = ["safetensors"]


def read_version() -> str:
    """Read ``__version__`` without importing the package, whose requirements may be missing."""
    source = (ROOT / "ion_d2" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise RuntimeError('ion_d2/__init__.py has no line `__version__ = "..."`.')
    return found.group(1)


def opencv() -> list[str]:
    """Require the build of OpenCV that is installed, the first of ``OPENCV`` where none is."""
    # pip builds in an environment of its own, whose sys.path does not show what is installed.
    folders = [*sys.path, *(sysconfig.get_path(name) for name in ("purelib", "platlib"))]
    names = (it.metadata["Name"] or "" for it in distributions(path=folders))
    found = {name.lower().replace("_", "-") for name in names}
    installed = [build for build in OPENCV if build in found]
    module = PathFinder.find_spec("cv2", folders)
    if not installed and module is not None and module.origin is not None:
        return []  # built from its sources, or of the system
    return [f"{(installed or OPENCV)[0]}>=4.5"]


setup(
    name="ion_d2",
    version=read_version(),
    description="Inside-Outside Net (ION) as a Detectron2 extension",
    author="The ion_d2 authors",
    license="MIT",
    python_requires=">=3.9",
    packages=find_packages(include=["ion_d2", "ion_d2.*", "ion_lab", "ion_lab.*"]),
    package_data={
        "ion_d2": ["py.typed"],
        "ion_lab": ["py.typed"],
        "ion_lab.report": ["templates/*"],
    },
    install_requires=[
        "torch>=2.0",
        "torchvision",
        "numpy>=1.22",
        "Pillow>=9.1",
        "defusedxml>=0.7",
        "scipy>=1.8",
        *opencv(),
        "Jinja2>=3.0",
        # What Detectron2 imports: tools/install_detectron2.py installs it without its requirements.
        "cloudpickle",
        "fvcore>=0.1.5",
        "hydra-core>=1.1",
        "iopath>=0.1.7",
        "matplotlib>=3.7",
        "omegaconf>=2.1",
        "pycocotools>=2.0.2",
        "PyYAML>=5.1",
        "tabulate",
        "tensorboard",
        "termcolor>=1.1",
        "tqdm>4.29.0",
        "yacs>=0.1.8",
    ],
    extras_require={
        "dev": [
            "hypothesis",
            "mypy",
            "pytest>=7",
            "pytest-xdist",
            "ruff",
            *SAFETENSORS,
            "sphinx",
            *EXPORT,
            *TIMM,
        ],
        # tools/export.py for .onnx files, and --check of them.
        "export": EXPORT,
        # tools/make_proposals.py. A build without contrib must be uninstalled before.
        "proposals": opencv(),
        # MODEL.WEIGHTS and the output of tools/export.py as .safetensors.
        "safetensors": SAFETENSORS,
        # MODEL.BACKBONE.NAME build_timm_backbone: ResNets, EfficientNets, ConvNeXts, Swins, ...
        "timm": TIMM,
        # tools/try_model.py: a model in the browser.
        "web": ["gradio>=6.31"],
        # WANDB_PROJECT: figures and pictures of a training on Weights & Biases.
        "wandb": ["wandb"],
    },
)
