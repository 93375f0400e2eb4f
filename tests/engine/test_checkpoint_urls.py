"""Weights from a web server: downloaded once, failures named."""

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
    for _ in range(2):
        checkpointer = zeroed(make())
        checkpointer.load(f"{site.address}/weights.pth")
        assert not is_zero(checkpointer)
        site.files.clear()


def test_a_failed_download_is_named(site):
    site.files["/empty.pth"] = b""
    nobody = "http://127.0.0.1:9"  # nothing listens on the discard port
    for address in (f"{site.address}/gone.pth", f"{site.address}/empty.pth", f"{nobody}/vgg.pth"):
        with pytest.raises(IONError, match=f"{address} could not be downloaded"):
            make().load(address)
