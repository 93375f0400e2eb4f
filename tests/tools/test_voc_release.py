import os
import shutil

import numpy as np
import pytest
import voc_release as module
from file_server import FileServer
from PIL import Image
from refusals import refused
from voc_archives import SBD_TRAIN, SBD_VAL, TEST07, TRAINVAL07, releases_at, write_archives
from voc_release import install_releases

from ion_d2.data.sem_seg import read_label_map
from ion_d2.data.voc_split import read_split


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    return write_archives(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def server(contents):
    files = {f"/{name}": content for name, content in contents.items()}
    with FileServer(files).running() as server:
        server.releases = releases_at(server.address, contents)
        yield server


def install(server, root):
    install_releases(str(root), str(root / "archives"), server.releases)


def complete(server, root):
    return [release.is_complete(str(root)) for release in server.releases]


def test_everything_lands_in_place_and_a_second_run_does_nothing(server, tmp_path):
    install(server, tmp_path)
    voc07, voc12 = tmp_path / "VOC2007", tmp_path / "VOC2012"
    assert read_split(voc07, "trainval") == list(TRAINVAL07)
    assert read_split(voc07, "test") == list(TEST07)
    pictures = sorted(path.stem for path in (voc07 / "JPEGImages").iterdir())
    assert pictures == sorted(TRAINVAL07 + TEST07)
    assert sorted(os.listdir(tmp_path)) == ["VOC2007", "VOC2012", "archives"]
    converted = voc12 / "SegmentationSBD"
    assert sorted(p.stem for p in converted.iterdir()) == sorted(SBD_TRAIN + SBD_VAL)
    label = converted / f"{SBD_VAL[0]}.png"
    assert Image.open(label).mode == "P"
    np.testing.assert_array_equal(read_label_map(label, 21), np.full((30, 40), 7))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    install(server, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(server.log) == 4


def test_only_what_is_missing_is_fetched_and_nothing_replaced(server, tmp_path):
    install(server, tmp_path)
    shutil.rmtree(tmp_path / "archives")
    edited = tmp_path / "VOC2007" / "Annotations" / f"{TEST07[1]}.xml"
    edited.write_text("<annotation>the user's own</annotation>")
    (tmp_path / "VOC2007" / "JPEGImages" / f"{TEST07[0]}.jpg").unlink()
    (tmp_path / "VOC2012" / "SegmentationSBD" / f"{SBD_VAL[0]}.png").unlink()
    server.log.clear()
    install(server, tmp_path)
    assert server.log == ["/VOCtest_06-Nov-2007.tar", "/benchmark.tgz"]
    assert "the user's own" in edited.read_text()
    assert all(complete(server, tmp_path))


def test_archives_that_lie_there_are_used(server, contents, tmp_path):
    (tmp_path / "archives").mkdir()
    for name, content in contents.items():
        (tmp_path / "archives" / name).write_bytes(content)
    install(server, tmp_path)
    assert server.log == []
    assert all(complete(server, tmp_path))


@pytest.mark.parametrize("number", range(4))
def test_stopping_while_unpacking_leaves_nothing_half_done(server, tmp_path, monkeypatch, number):
    """Ctrl-C in the middle of an archive; the next run finishes."""
    unpack, calls = module.unpack, []

    def interrupted(archive, *args):
        unpack(archive, *args)
        calls.append(archive)
        if len(calls) == number + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install(server, tmp_path)
    assert complete(server, tmp_path) == [True] * number + [False] * (4 - number)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    install(server, tmp_path)
    assert all(complete(server, tmp_path))
    assert len(server.log) == 4


def test_an_archive_of_another_content_changes_nothing(contents, tmp_path):
    swapped = {**contents, "VOCtest_06-Nov-2007.tar": contents["VOCtrainval_06-Nov-2007.tar"]}
    with FileServer({f"/{n}": c for n, c in swapped.items()}).running() as server:
        server.releases = releases_at(server.address, swapped)[1:2]
        with refused("VOCtest"):
            install(server, tmp_path)
    assert os.listdir(tmp_path) == ["archives"]


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "archives").write_text("a file")
    with refused("archives", "File exists"):
        install(server, tmp_path)
