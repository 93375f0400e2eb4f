"""Files made to harm: none runs code, opens a file outside its folder, or fills the memory."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import hostile_texts  # noqa: F401 (which adds samples, as the others do)
import hostile_weights  # noqa: F401
import numpy as np
import pytest
from cli_helpers import load_tool
from coco_json import SIZE, write_coco
from hostile_helpers import CANARY, SAMPLES
from hostile_pictures import many_frames
from refusals import refused
from voc_folder import write_image

from ion_d2.engine.drawing import Marks, draw_panels
from ion_d2.files import distinct_file_names

pytestmark = pytest.mark.usefixtures("catalogs")

GIB = 1 << 30
# Where Python, its packages and this project lie, parts of which are imported when first used.
OWN = (*filter(None, sys.path), str(Path(__file__).resolve().parents[1]), "/proc/self")
_watched = None  # where events are noted


def _note(event, arguments):
    if _watched is not None and event in ("open", "os.system", "subprocess.Popen", "os.mkdir",
                                          "os.remove", "os.rename", "os.symlink", "os.exec",
                                          "os.posix_spawn", "socket.connect"):  # fmt: skip
        _watched.append((event, arguments[0]))


sys.addaudithook(_note)  # for good, which is why it can be silent


@contextlib.contextmanager
def watched():
    """What the system is asked for inside: pairs of event and its first argument."""
    global _watched
    _watched = events = []
    try:
        yield events
    finally:
        _watched = None


def is_foreign(event, path, folder):
    if event != "open":
        return True
    named = isinstance(path, (str, bytes, os.PathLike))
    return named and not os.path.realpath(os.fsdecode(path)).startswith((str(folder), *OWN))


@contextlib.contextmanager
def peak_memory():
    """How many bytes more than before this process has at its peak, in a list, afterwards."""
    grown = []
    if not os.path.exists("/proc/self/clear_refs"):
        pytest.skip("this system does not tell the peak")
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    yield grown
    grown.append(_status("VmHWM") - before)


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


@pytest.mark.parametrize("name", SAMPLES)
def test_it_is_refused_and_does_no_harm(tmp_path, name):
    make, words = SAMPLES[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("what is nobody's business")
    read = make(folder)
    before = sorted(path for path in tmp_path.rglob("*"))
    start = time.process_time()
    with peak_memory() as grown, watched() as events, refused(words) as caught:
        read()
    assert time.process_time() - start < 5
    assert grown[0] < GIB
    assert "nobody's business" not in str(caught.value)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not (folder / CANARY).exists()
    allowed = {str(tmp_path / "secret")} if name == "another_file_as_a_picture" else set()
    foreign = [(e, p) for e, p in events if is_foreign(e, p, folder)]
    assert {os.path.realpath(p) for _, p in foreign} <= allowed, foreign


def test_the_watch_sees_what_it_is_for(tmp_path):
    with watched() as events:
        os.mkdir(tmp_path / CANARY)
        with open(tmp_path / "a", "w"):
            pass
    assert [event for event, _ in events] == ["os.mkdir", "open"]
    assert is_foreign("open", tmp_path / "a", tmp_path / "folder")


def test_of_many_frames_the_first_is_the_picture(tmp_path):
    read = many_frames(tmp_path)
    with peak_memory() as grown:
        assert read().shape == (64, 64, 3)
    assert grown[0] < GIB / 10


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "\u202egnp.exe", "x" * 10_000, "../../../x"]
)
def test_names_of_classes_draw_and_write_nothing_else(tmp_path, name):
    image = np.zeros((60, 80, 3), np.uint8)
    with peak_memory() as grown:
        drawn = draw_panels(image, [("", Marks([(1, 1, 70, 50)], [0], [0.5]))], [name])
    assert drawn.width < 1000 and drawn.height < 1000
    assert grown[0] < GIB / 4
    (file,) = distinct_file_names([name])
    assert (tmp_path / file).resolve().parent == tmp_path and len(file) <= 60


def test_a_dataset_does_not_choose_where_its_copy_goes(tmp_path):
    """A picture beyond the folder is read, as on another disk, and copied into the new one."""
    write_image(tmp_path / "far.png", SIZE)
    (tmp_path / "data").mkdir()
    name = write_coco(tmp_path / "data", [])
    path = tmp_path / "data" / "all.json"
    path.write_text(path.read_text().replace("1.png", "../../far.png"))
    before = {file for file in tmp_path.rglob("*")}
    load_tool("convert_dataset").convert(name, "voc", tmp_path / "new", "train")
    new = {file for file in tmp_path.rglob("*")} - before
    assert all((tmp_path / "new") in (file, *file.parents) for file in new)
    assert (tmp_path / "new" / "JPEGImages" / "far.png").is_file()
