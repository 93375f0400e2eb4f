"""Paths and fixtures that tests of several folders share."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))


@pytest.fixture(autouse=True)
def _in_project_root(monkeypatch):
    """Configs are named relative to the project's root."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real datasets; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("ION_D2_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A few small synthetic scenes in VOC layout, with segmentation labels."""
    from ion_d2.data.scenes import generate_scenes

    folder = tmp_path_factory.mktemp("scenes") / "VOC"
    return generate_scenes(folder, num_train=7, num_test=3, families=("ordinary",), size=128).root
