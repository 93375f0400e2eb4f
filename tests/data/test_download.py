import hashlib
import os

import numpy as np
import pytest
from file_server import FileServer

from ion_d2.data import download as module
from ion_d2.data.download import download, file_md5
from ion_d2.errors import IONError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    with FileServer({"/data.tar": CONTENT}).running() as server:
        yield server


def fetch(server, path, md5=MD5, name="data.tar", **kwargs):
    return download(f"{server.address}/{name}", str(path), md5, pause=0.001, **kwargs)


def expect_error(*words, server, path, **kwargs):
    with pytest.raises(IONError) as caught:
        fetch(server, path, **kwargs)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("lengths", [True, False])
def test_fetches_once(server, tmp_path, lengths):
    server.lengths = lengths
    path = tmp_path / "data.tar"
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.log == [("/data.tar", 0, len(CONTENT))]
    assert os.listdir(tmp_path) == ["data.tar"]
    assert file_md5(str(path)) == MD5


@pytest.mark.parametrize(("ranges", "starts"), [(True, [0, 300_000, 700_000]), (False, [0, 0, 0])])
def test_an_interrupted_transfer_goes_on_or_starts_over(server, tmp_path, ranges, starts):
    server.ranges, server.break_after = ranges, [300_000, 400_000]
    fetch(server, tmp_path / "data.tar", attempts=2)
    assert (tmp_path / "data.tar").read_bytes() == CONTENT
    assert [start for _, start, _ in server.log] == starts


@pytest.mark.parametrize("ranges", [True, False])
def test_a_later_run_goes_on_where_the_first_gave_up(server, tmp_path, ranges):
    server.ranges, path = ranges, tmp_path / "data.tar"
    server.break_after, server.statuses = [250_000], [200, 503, 503]
    expect_error("503", "goes on", str(path), server=server, path=path, attempts=3)
    assert not path.exists()
    assert (tmp_path / "data.tar.part").read_bytes() == CONTENT[:250_000]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.log[-1] == ("/data.tar", *((250_000, 750_000) if ranges else (0, 1_000_000)))


def test_a_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "data.tar")
    assert (tmp_path / "data.tar").read_bytes() == CONTENT
    assert server.log == [("/data.tar", len(CONTENT), 0)]


def test_a_part_that_is_too_long_is_fetched_anew(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(CONTENT + b"more")
    fetch(server, tmp_path / "data.tar")
    assert (tmp_path / "data.tar").read_bytes() == CONTENT


def test_a_wrong_checksum_is_told_and_the_file_deleted(server, tmp_path):
    path = tmp_path / "data.tar"
    server.files["/data.tar"] = CONTENT[:-1] + b"x"
    found = hashlib.md5(server.files["/data.tar"]).hexdigest()
    expect_error("data.tar", found, MD5, str(path), server=server, path=path)
    assert os.listdir(tmp_path) == []
    server.files["/data.tar"] = CONTENT
    fetch(server, path)


def test_another_file_of_that_name_is_left_alone(server, tmp_path):
    path = tmp_path / "data.tar"
    path.write_bytes(b"the user's own")
    expect_error(str(path), MD5, "move it away", server=server, path=path)
    assert path.read_bytes() == b"the user's own"
    assert server.log == []


def test_refusals_are_told_at_once_and_passing_faults_tried_again(server, tmp_path):
    path = tmp_path / "data.tar"
    expect_error("404", "/gone.tar", server=server, path=path, name="gone.tar")
    server.statuses = [500, 429]
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_no_server_at_all(tmp_path):
    with FileServer({}).running() as server:
        pass
    expect_error(server.address, "refused", server=server, path=tmp_path / "a.tar", attempts=2)


def test_too_little_space_is_told_before_the_transfer(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    expect_error("1 MB more", "free space", server=server, path=tmp_path / "data.tar")
    assert server.log[0][1] == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_fills_up_during_the_transfer(server, tmp_path):
    part = tmp_path / "data.tar.part"
    part.symlink_to("/dev/full")
    words = (str(part), "No space left", "free space", "goes on")
    expect_error(*words, server=server, path=tmp_path / "data.tar")
    assert len(server.log) == 1
    part.unlink()
    fetch(server, tmp_path / "data.tar")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(server, tmp_path):
    tmp_path.chmod(0o500)
    expect_error("Permission denied", "writable", server=server, path=tmp_path / "data.tar")
