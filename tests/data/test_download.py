import hashlib
import io
import os
import tarfile

import numpy as np
import pytest
from file_server import FileServer

from ion_d2.data.download import download, move_into, unpack
from ion_d2.errors import IONError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    with FileServer({"/data.tar": CONTENT}).running() as server:
        yield server


def fetch(server, path, name="data.tar"):
    download(f"{server.address}/{name}", str(path), MD5)


def test_fetches_once(server, tmp_path):
    path = tmp_path / "data.tar"
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.log == ["/data.tar"]
    assert os.listdir(tmp_path) == ["data.tar"]


def test_a_transfer_that_broke_off_is_told_and_starts_over(server, tmp_path):
    path, server.break_after = tmp_path / "data.tar", [300_000]
    with pytest.raises(IONError, match="data.tar"):
        fetch(server, path)
    assert not path.exists()
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_another_file_of_that_name_is_left_alone(server, tmp_path):
    path = tmp_path / "data.tar"
    path.write_bytes(b"the user's own")
    with pytest.raises(IONError, match=f"{MD5}.*move it away"):
        fetch(server, path)
    assert path.read_bytes() == b"the user's own"
    assert server.log == []


@pytest.mark.parametrize("fault", ["another content", "404", "refused"])
def test_what_cannot_be_had_is_told(server, tmp_path, fault):
    if fault == "another content":
        server.files["/data.tar"], fault = b"x" * 1000, MD5
    address = server.address
    if fault == "refused":
        with FileServer({}).running() as gone:
            address = gone.address
    name = "gone.tar" if fault == "404" else "data.tar"
    with pytest.raises(IONError, match=fault) as caught:
        download(f"{address}/{name}", str(tmp_path / "data.tar"), MD5)
    assert f"{address}/{name}" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "data.tar").exists()


def write_tar(path, files, mode="w"):
    for name, content in files.items():
        (path.parent / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "in" / name).write_bytes(content)
    with tarfile.open(path, mode) as tar:
        tar.add(path.parent / "in", arcname="")
    return str(path)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_unpacks_what_is_wanted_of_a_folder(tmp_path, mode):
    files = {"top/a/1": b"A", "top/a/b/2": b"B", "top/c/3": b"C", "d": b"D"}
    archive = write_tar(tmp_path / "x.tar", files, mode)
    unpack(archive, str(tmp_path / "all"), "top/")
    unpack(archive, str(tmp_path / "some"), ("top/a/b", "d"))
    assert tree(tmp_path / "all") == {"top/a/1": b"A", "top/a/b/2": b"B", "top/c/3": b"C"}
    assert tree(tmp_path / "some") == {"top/a/b/2": b"B", "d": b"D"}


def test_nothing_leaves_the_folder(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind, target in (
            ("top/link", tarfile.SYMTYPE, str(outside)),
            ("top/hard", tarfile.LNKTYPE, "../outside/a"),
            ("top/link/evil", tarfile.REGTYPE, ""),
            ("top/../../outside/evil", tarfile.REGTYPE, ""),
            (f"{outside}/evil", tarfile.REGTYPE, ""),
            ("top/good", tarfile.REGTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member, io.BytesIO())
    unpack(str(tmp_path / "x.tar"), str(tmp_path / "in"), ("top/", "/"))
    assert not list(outside.iterdir())
    assert not any(path.is_symlink() for path in (tmp_path / "in").rglob("*"))
    assert (tmp_path / "in" / "top" / "good").is_file()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_broken_archives_are_told(tmp_path, mode):
    archive = write_tar(tmp_path / "x.tar", {"a/1": os.urandom(50_000), "a/2": b"B"}, mode)
    whole = (tmp_path / "x.tar").read_bytes()
    for content in (b"", whole[:20], whole[:30_000], b"<html>not found</html>" * 100):
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(IONError, match=r"x\.tar cannot be unpacked"):
            unpack(archive, str(tmp_path / "out"), "a/")


def test_moving_merges_folders_and_replaces_nothing(tmp_path):
    unpack(write_tar(tmp_path / "x.tar", {"a": b"new", "b/c": b"C", "d/e": b"E"}),
           str(tmp_path / "s"), "")  # fmt: skip
    (tmp_path / "t" / "b").mkdir(parents=True)
    (tmp_path / "t" / "a").write_bytes(b"old")
    move_into(str(tmp_path / "s"), str(tmp_path / "t"))
    assert tree(tmp_path / "t") == {"a": b"old", "b/c": b"C", "d/e": b"E"}
    move_into(str(tmp_path / "t"), str(tmp_path / "new" / "place"))
    assert len(tree(tmp_path / "new" / "place")) == 3
