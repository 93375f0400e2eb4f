"""Downloading and unpacking the archives of datasets."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import lzma
import os
import socket
import tarfile
import zlib
from collections.abc import Iterator
from urllib.error import URLError

from torchvision.datasets.utils import check_integrity, download_url

from ion_d2.errors import IONError

TIMEOUT = 60.0
"""Seconds of silence after which a server is given up."""

_NETWORK_ERRORS = (URLError, ConnectionError, TimeoutError, http.client.HTTPException)
_ARCHIVE_ERRORS = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


def download(url: str, path: str, md5: str) -> None:
    """Download a file, unless it is there; until its checksum is right, it is ``path.part``.

    Raises:
        IONError: the server does not give the file, or another one.
        OSError: the file cannot be written.
    """
    if os.path.exists(path):
        if check_integrity(path, md5):
            return
        raise IONError(
            f"{path} is not the file that {url} should give (MD5 {md5}); move it away, then run "
            "the command again."
        )
    folder, name = os.path.split(path)
    try:
        with _silence_ends():
            download_url(url, folder, name + ".part", md5)
    except _NETWORK_ERRORS as error:
        raise IONError(
            f"{url} cannot be downloaded ({error}); run the command again later, or put the file "
            f"at {path} yourself."
        ) from error
    except RuntimeError as error:  # torchvision found a wrong checksum
        raise IONError(
            f"What came from {url} does not have the MD5 checksum {md5}; run the command again, "
            f"or put the right file at {path}."
        ) from error
    os.replace(path + ".part", path)


@contextlib.contextmanager
def _silence_ends() -> Iterator[None]:
    """Let a server that says nothing more raise a TimeoutError; torchvision would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def unpack(archive: str, folder: str, wanted: str | tuple[str, ...]) -> None:
    """Unpack the files of a tar archive whose paths start with one of ``wanted``.

    Links and special files are left out, and so is what would be written outside the folder.

    Raises:
        IONError: the archive is broken.
        OSError: a file cannot be written.
    """
    try:
        with tarfile.open(archive) as tar:
            # Absent from the first patch releases of Python 3.9 to 3.11.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            members = (
                member
                for member in tar
                if member.isreg()
                and member.name.startswith(wanted)
                and ".." not in member.name.split("/")
            )
            tar.extractall(folder, members)
    except _ARCHIVE_ERRORS as error:
        reason = " ".join(str(error).split())  # of several lines where the format is not known
        raise IONError(
            f"{archive} cannot be unpacked ({reason}); delete it, then run the command again."
        ) from error


def move_into(source: str, target: str) -> None:
    """Move a file or folder to a path in the same file system, merging it into a folder there.

    Nothing at the target is replaced: what it has already stays behind at the source.
    """
    if not os.path.lexists(target):
        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        os.replace(source, target)
    elif os.path.isdir(source):
        for name in os.listdir(source):
            move_into(os.path.join(source, name), os.path.join(target, name))
