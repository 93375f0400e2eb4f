"""Downloads that check what they got and go on where they were interrupted."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.request

from tqdm import tqdm

from ion_d2.errors import NO_SPACE, IONError

logger = logging.getLogger(__name__)

_CHUNK = 1 << 18  # bytes
_MB = 1 << 20
_TIMEOUT = 60  # seconds without a byte
# What may go away by itself: a lost connection, or a busy server.
_PASSING = (
    ConnectionError,
    TimeoutError,
    socket.timeout,
    http.client.HTTPException,
    urllib.error.URLError,
)
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
_RANGE_NOT_SATISFIABLE = 416


def download(url: str, path: str, md5: str, *, attempts: int = 5, pause: float = 2.0) -> None:
    """Download a file, unless it is there.

    What has arrived is kept in ``path.part``: after an interruption, the transfer goes on from
    there if the server can do so, and starts over if not. ``path`` itself only ever is the whole
    file with the right checksum.

    Args:
        url: an http or https address.
        path: the file to write; its folder exists.
        md5: its checksum, in hexadecimal.
        attempts: how often in a row to try without getting any further.
        pause: seconds to wait after the first failure; doubled after each.

    Raises:
        IONError: the server refuses or does not answer, the disk is full, or the file is another
            than expected.
    """
    if os.path.exists(path):
        if file_md5(path) != md5:
            raise IONError(
                f"{path} is not the file that {url} should give (MD5 {md5}); move it away, then "
                "run the command again."
            )
        return
    part = path + ".part"
    _transfer(url, part, attempts, pause)
    found = file_md5(part)
    if found != md5:
        os.remove(part)
        raise IONError(
            f"What came from {url} has the MD5 checksum {found}, not {md5}, and was deleted; run "
            f"the command again, or put the right file at {path}."
        )
    os.replace(part, path)


def file_md5(path: str) -> str:
    """Compute the MD5 checksum of a file.

    Args:
        path: the file.

    Returns:
        The checksum in hexadecimal.
    """
    # It guards against damage, not against forgery; without the flag, some systems refuse MD5.
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_MB):
            digest.update(chunk)
    return digest.hexdigest()


def _transfer(url: str, part: str, attempts: int, pause: float) -> None:
    """Fetch the rest of the file, as often as it gets any further."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _fetch(url, part)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code not in _PASSING_STATUS:
                raise IONError(_failure(url, part, reason)) from error
        except _PASSING as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        except OSError as error:
            raise IONError(_disk_failure(part, error)) from error
        failures = 1 if _size(part) > before else failures + 1
        if failures >= attempts:
            raise IONError(_failure(url, part, reason))
        logger.warning("%s: %s; trying again.", url, reason)
        time.sleep(pause * 2 ** (failures - 1))


def _fetch(url: str, part: str) -> None:
    """Fetch what is missing of the file in one request."""
    offset = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "ion_d2"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE or not offset:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{offset}":
            return  # nothing is missing
        os.remove(part)
        return _fetch(url, part)
    with response:
        if not _continues(response, offset):
            offset = 0
        _receive(response, part, offset)


def _continues(response: http.client.HTTPResponse, offset: int) -> bool:
    """Whether the answer is the rest of the file from the offset, not the whole file."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status == 206 and start is not None and int(start.group(1)) == offset


def _receive(response: http.client.HTTPResponse, part: str, offset: int) -> None:
    length = response.headers.get("Content-Length")
    total = None if length is None else offset + int(length)
    if total is not None:
        _check_space(part, total - offset)
    bar = tqdm(
        desc=os.path.basename(part)[: -len(".part")],
        total=total,
        initial=offset,
        unit="B",
        unit_scale=True,
        disable=None,  # where nobody watches
    )
    with bar, open(part, "ab" if offset else "wb") as file:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection broke off after {_size(part)} of {total} bytes")


def _check_space(part: str, missing: int) -> None:
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(part))).free
    if missing > free:
        raise IONError(
            f"{part} needs {missing / _MB:.0f} MB more, but {free / _MB:.0f} MB are free there; "
            "free space, then run the command again."
        )


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _failure(url: str, part: str, reason: str) -> str:
    return (
        f"{url} cannot be downloaded ({reason}); run the command again later, which goes on where "
        f"it stopped, or put the file at {part[: -len('.part')]} yourself."
    )


def _disk_failure(part: str, error: OSError) -> str:
    advice = "free space" if error.errno in NO_SPACE else "make the folder writable"
    return (
        f"{part} cannot be written ({error.strerror}); {advice}, then run the command again, which "
        "goes on where it stopped."
    )
