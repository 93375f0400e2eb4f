"""Paths and fixtures that tests of several folders share."""

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

# One thread, here and in the programs that tests start: sums over another number of threads differ
# in the last bit, and some tests compare runs bit for bit. It must be set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "data")]


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
    from ion_lab.scenes import generate_scenes

    folder = tmp_path_factory.mktemp("scenes") / "VOC"
    return generate_scenes(folder, num_train=7, num_test=3, families=("ordinary",), size=128).root


@contextlib.contextmanager
def fresh_loggers():
    """Log as a new process does; afterwards, no handler holds on to streams that were captured."""
    from detectron2.utils.logger import setup_logger

    names = ("detectron2", "fvcore", "ion_d2", "ion_lab")
    loggers = [logging.getLogger(name) for name in names]
    before = [(it, it.handlers[:], it.propagate, it.level) for it in loggers]
    setup_logger.cache_clear()
    try:
        yield
    finally:
        for it, handlers, it.propagate, level in before:
            it.handlers[:] = handlers
            it.setLevel(level)


@pytest.fixture(autouse=True)
def _loggers_as_found():
    """No test sees what another did to the loggers."""
    with fresh_loggers():
        yield


@pytest.fixture(autouse=True)
def _signals_of_python():
    """No test meets a handler that another test, or a fixture of a module, left behind.

    A shell's background jobs ignore Ctrl-C, and so do the programs that they start; tests send it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def catalogs():
    """Both of Detectron2's catalogs as they were, after the test."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from ion_d2.data.reading_on import skip_unreadable

    saved = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    yield
    DatasetCatalog.data, MetadataCatalog.data = saved
    skip_unreadable(False)


@pytest.fixture
def train_net(monkeypatch, capfd):
    """Runs train_net.py in this process: arguments -> (exit status, stdout, stderr)."""
    from cli_helpers import load_program

    from ion_d2.engine.setup import run_cli

    module = load_program("train_net.py")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["train_net.py", *map(str, args)])
        capfd.readouterr()
        with fresh_loggers():
            try:
                run_cli(module.cli)
            except SystemExit as stop:
                status = stop.code
        return (status, *capfd.readouterr())

    return run
