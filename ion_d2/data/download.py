"""Downloading and unpacking the archives of datasets: torchvision's way, told in one sentence."""

from __future__ import annotations

import http.client
import lzma
import os
import shutil
import tarfile
import zlib
from urllib.error import URLError

from torchvision.datasets.utils import check_integrity, download_url

from ion_d2.errors import IONError

_ARCHIVE_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


def download(url: str, path: str, md5: str) -> None:
    """Download a file, unless it is there.

    Args:
        url: an http or https address.
        path: the file to write. Until it is whole and its checksum right, it is ``path.part``.
        md5: its checksum, in hexadecimal.

    Raises:
        IONError: the server refuses or does not answer, or the file is another than expected.
        OSError: the file cannot be written.
    """
    if os.path.exists(path):
        if not check_integrity(path, md5):
            raise IONError(
                f"{path} is not the file that {url} should give (MD5 {md5}); move it away, then "
                "run the command again."
            )
        return
    folder, name = os.path.split(path)
    try:
        download_url(url, folder, name + ".part", md5)
    except (URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise IONError(
            f"{url} cannot be downloaded ({error}); run the command again later, or put the file "
            f"at {path} yourself."
        ) from error
    except RuntimeError as error:  # torchvision's, of a wrong checksum
        raise IONError(
            f"What came from {url} does not have the MD5 checksum {md5}; run the command again, "
            f"or put the right file at {path}."
        ) from error
    os.replace(path + ".part", path)


def unpack(archive: str, folder: str, prefix: str, only: tuple[str, ...] = ("",)) -> None:
    """Unpack the files of a tar archive that lie below a folder in it.

    Args:
        archive: the archive, whose checksum is known to be right: its paths are trusted.
        folder: where to write; made where needed.
        prefix: the folder in the archive, with "/" at its end; it is left out of the paths.
        only: how the paths below it start, of the files that are wanted.

    Raises:
        IONError: the archive is broken.
        OSError: a file cannot be written.
    """
    wanted = tuple(prefix + start for start in only)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isreg() and member.name.startswith(wanted):
                    target = os.path.join(folder, member.name[len(prefix) :])
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    content = tar.extractfile(member)
                    assert content is not None  # that of a regular file
                    with content, open(target, "wb") as file:
                        shutil.copyfileobj(content, file)
    except _ARCHIVE_ERRORS as error:
        raise IONError(
            f"{archive} cannot be unpacked ({error}); delete it, then run the command again."
        ) from error


def move_into(source: str, target: str) -> None:
    """Move a file or folder, into a folder of its name if that exists already.

    Args:
        source: a file or folder; what exists in the target already stays behind there.
        target: its new path, in the same file system; nothing in it is replaced.
    """
    if not os.path.lexists(target):
        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        os.replace(source, target)
    elif os.path.isdir(source):
        for name in os.listdir(source):
            move_into(os.path.join(source, name), os.path.join(target, name))
