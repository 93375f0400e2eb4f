import io
import os
import tarfile

import pytest

from ion_d2.data.unpack import move_into, unpack
from ion_d2.errors import IONError


def write_tar(path, files, mode="w"):
    """An archive of (name, content) pairs; anything but a file is given as its type in a list."""
    with tarfile.open(path, mode) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                (member.type,), member.linkname = content, "/etc/passwd"
                tar.addfile(member)
    return str(path)


def tree(folder):
    return {
        os.path.relpath(os.path.join(top, name), folder): open(os.path.join(top, name), "rb").read()
        for top, _, names in os.walk(folder)
        for name in names
    }


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_files_land_where_they_are_placed(tmp_path, mode):
    files = [("top", [tarfile.DIRTYPE]), ("top/a.txt", b"A"), ("./top//b/c.txt", b"C"), ("d", b"D")]
    archive = write_tar(tmp_path / "x.tar", files, mode)
    seen = []
    place = {"top/a.txt": "a.txt", "top/b/c.txt": "deep/er/c.txt"}
    unpack(archive, str(tmp_path / "out"), lambda path: seen.append(path) or place.get(path))
    assert seen == ["top/a.txt", "top/b/c.txt", "d"]
    assert tree(tmp_path / "out") == {"a.txt": b"A", "deep/er/c.txt": b"C"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../out.txt", b"x"),
        ("a/../../out.txt", b"x"),
        ("/tmp/out.txt", b"x"),
        ("C:out.txt", b"x"),
        ("a\\..\\out.txt", b"x"),
        ("link", [tarfile.SYMTYPE]),
        ("hard", [tarfile.LNKTYPE]),
        ("device", [tarfile.CHRTYPE]),
        ("pipe", [tarfile.FIFOTYPE]),
    ],
)
def test_paths_out_of_the_folder_and_links_are_refused(tmp_path, name, content):
    archive = write_tar(tmp_path / "evil.tar", [("good.txt", b"good"), (name, content)])
    with pytest.raises(IONError, match=r"evil\.tar holds .*leads out") as caught:
        unpack(archive, str(tmp_path / "out"), lambda path: path)
    assert repr(name) in str(caught.value)
    assert tree(tmp_path / "out") == {"good.txt": b"good"}
    assert sorted(os.listdir(tmp_path)) == ["evil.tar", "out"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_broken_archives_are_told(tmp_path, mode):
    archive = write_tar(tmp_path / "x.tar", [("a", os.urandom(50_000)), ("b", b"B")], mode)
    whole = (tmp_path / "x.tar").read_bytes()
    for size in (0, 20, 3000, 30_000):
        (tmp_path / "x.tar").write_bytes(whole[:size])
        with pytest.raises(IONError, match=r"x\.tar cannot be unpacked") as caught:
            unpack(archive, str(tmp_path / "out"), lambda path: path)
        assert "\n" not in str(caught.value)
    (tmp_path / "x.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(IONError, match=r"x\.tar cannot be unpacked"):
        unpack(archive, str(tmp_path / "out"), lambda path: path)


def test_moving_merges_folders_and_replaces_nothing(tmp_path):
    write_tar(tmp_path / "x.tar", [("s/a", b"new"), ("s/b/c", b"C"), ("s/d/e", b"E")])
    unpack(str(tmp_path / "x.tar"), str(tmp_path), lambda path: path)
    (tmp_path / "t" / "b").mkdir(parents=True)
    (tmp_path / "t" / "a").write_bytes(b"old")
    move_into(str(tmp_path / "s"), str(tmp_path / "t"))
    assert tree(tmp_path / "t") == {"a": b"old", "b/c": b"C", "d/e": b"E"}
    move_into(str(tmp_path / "t"), str(tmp_path / "new" / "place"))
    assert len(tree(tmp_path / "new" / "place")) == 3
