"""Unpacking archives of datasets, which may not write anywhere but into their folder."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zlib
from typing import Callable

from tqdm import tqdm

from ion_d2.errors import IONError


def unpack(archive: str, folder: str, place: Callable[[str], str | None]) -> None:
    """Unpack the regular files of a tar archive.

    Args:
        archive: the archive, compressed or not.
        folder: where to write; made where needed.
        place: turns the path of a file in the archive ("a/b.txt") into its path in the folder, or
            into None to leave it out.

    Raises:
        IONError: the archive is broken, holds a link or a path that leads out of the folder, or the
            disk is full.
    """
    name = os.path.basename(archive)
    try:
        with tarfile.open(archive) as tar, tqdm(desc=name, unit="files", disable=None) as bar:
            for member in tar:
                if not member.isdir():
                    _extract(tar, member, folder, place, archive)
                    bar.update()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).partition(":\n")[0]  # tarfile lists what it tried on further lines
        raise IONError(
            f"{archive} cannot be unpacked ({reason}); delete it, then run the command again."
        ) from error
    except OSError as error:
        raise IONError(
            f"{archive} cannot be unpacked to {folder} ({error.strerror or error}); make room or "
            "the folder writable, then run the command again."
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


def _extract(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    folder: str,
    place: Callable[[str], str | None],
    archive: str,
) -> None:
    path = _safe_path(member)
    if path is None:
        raise IONError(
            f"{archive} holds {member.name!r}, which is a link, a device or a path that leads out "
            "of its folder; it was not unpacked further: get the archive from its official address."
        )
    placed = place(path)
    content = None if placed is None else tar.extractfile(member)
    if content is None:
        return
    target = os.path.join(folder, placed)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with content, open(target, "wb") as file:
        shutil.copyfileobj(content, file)


def _safe_path(member: tarfile.TarInfo) -> str | None:
    """The path with "/" and without ".", or None for what no archive of a dataset should hold."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    # A backslash or a colon is a separator or a drive on Windows.
    wrong = member.name.startswith("/") or any(p == ".." or "\\" in p or ":" in p for p in parts)
    return "/".join(parts) if member.isreg() and parts and not wrong else None
