"""Weights from a web server: downloaded once, failures named."""

from __future__ import annotations

import pytest
from checkpoint_helpers import is_zero, make, zeroed
from file_server import FileServer

from ion_d2.errors import IONError


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web server on this machine with one checkpoint, and an empty download cache."""
    make(tmp_path).save("weights")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    with FileServer({"/weights.pth": (tmp_path / "weights.pth").read_bytes()}).running() as server:
        yield server


def test_a_url_is_downloaded_once(site):
    checkpointer = zeroed(make())
    checkpointer.load(f"{site.address}/weights.pth")
    assert not is_zero(checkpointer)
    del site.files["/weights.pth"]
    checkpointer = zeroed(make())
    checkpointer.load(f"{site.address}/weights.pth")
    assert not is_zero(checkpointer)


def test_a_failed_download_is_named(site):
    with pytest.raises(
        IONError, match=f"{site.address}/gone.pth could not be downloaded .*404.* local path"
    ):
        make().load(f"{site.address}/gone.pth")
    site.files["/empty.pth"] = b""
    with pytest.raises(IONError, match="empty.pth could not be downloaded"):
        make().load(f"{site.address}/empty.pth")


def test_no_connection_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    # Nothing listens on the discard port.
    with pytest.raises(IONError, match="http://127.0.0.1:9/vgg.pth could not be downloaded"):
        make().load("http://127.0.0.1:9/vgg.pth")
