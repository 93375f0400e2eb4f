import gzip
import hashlib
import io
import os
import socket
import tarfile

import numpy as np
import pytest
import voc_download
from cli_helpers import contents
from file_server import FileServer
from refusals import refused
from voc_download import download, unpack

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    with FileServer({"/data.tar": CONTENT}).running() as server:
        yield server


def fetch(server, path, name="data.tar"):
    download(f"{server.address}/{name}", str(path), MD5)


def test_fetches_once_and_again_after_a_transfer_that_broke_off(server, tmp_path):
    path, server.break_after = tmp_path / "data.tar", [300_000]
    with refused("data.tar"):
        fetch(server, path)
    assert not path.exists()
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.log == ["/data.tar"] * 2
    assert os.listdir(tmp_path) == ["data.tar"]


def test_another_file_of_that_name_is_left_alone(server, tmp_path):
    path = tmp_path / "data.tar"
    path.write_bytes(b"the user's own")
    with refused(path, MD5, "move it away"):
        fetch(server, path)
    assert path.read_bytes() == b"the user's own"
    assert server.log == []


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(voc_download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # which takes calls, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.tar"
        with refused(url, "timed out"):
            download(url, str(tmp_path / "data.tar"), MD5)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("fault", ["another content", "404", "refused"])
def test_what_cannot_be_had_is_told(server, tmp_path, fault):
    if fault == "another content":
        server.files["/data.tar"], fault = b"x" * 1000, MD5
    url = f"{server.address}/{'gone' if fault == '404' else 'data'}.tar"
    if fault == "refused":
        with FileServer({}).running() as gone:
            url = f"{gone.address}/data.tar"
    with refused(url, fault):
        download(url, str(tmp_path / "data.tar"), MD5)
    assert not (tmp_path / "data.tar").exists()


def write_tar(path, members, mode="w"):
    """An archive of (name, content); a content of text is the target of a symbolic link."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname, content = tarfile.SYMTYPE, content, b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_unpacks_what_is_wanted(tmp_path, mode):
    files = {"top/a/1": b"A", "top/a/b/2": b"B", "top/c/3": b"C", "d": b"D"}
    archive = write_tar(tmp_path / "x.tar", files.items(), mode)
    unpack(archive, str(tmp_path / "all"), "top/")
    unpack(archive, str(tmp_path / "some"), ("top/a/b", "d"))
    assert contents(tmp_path / "all") == {name: files[name] for name in files if name != "d"}
    assert contents(tmp_path / "some") == {"top/a/b/2": b"B", "d": b"D"}


def test_nothing_leaves_the_folder(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    members = [
        ("top/link", str(outside)),
        ("top/link/evil", b"X"),
        ("top/../../outside/evil", b"X"),
        (f"{outside}/evil", b"X"),
        ("top/good", b"G"),
    ]
    unpack(write_tar(tmp_path / "x.tar", members), str(tmp_path / "in"), ("top/", "/"))
    assert not list(outside.iterdir())
    assert not any(path.is_symlink() for path in (tmp_path / "in").rglob("*"))
    assert contents(tmp_path / "in")["top/good"] == b"G"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_broken_archives_are_told(tmp_path, mode):
    path = tmp_path / "x.tar"
    write_tar(path, [("a/1", os.urandom(50_000)), ("a/2", b"B")], mode)
    whole = path.read_bytes()
    damaged = [b"", whole[:20], whole[:30_000], b"<html>not found</html>" * 100]
    if mode == "w:gz":  # one that goes on as something else
        damaged.append(gzip.compress(gzip.decompress(whole)[:30_000]) + b"<html>")
    for content in damaged:
        path.write_bytes(content)
        with refused(path, "unpacked"):
            unpack(str(path), str(tmp_path / "out"), "a/")
