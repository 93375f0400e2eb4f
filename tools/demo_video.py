"""Videos and cameras of demo.py: read, and written so that what is done plays."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ion_d2.errors import IONError
from ion_d2.files import fitting_name

# The first that this build of OpenCV can write is taken: H.264, which browsers play, is not in
# every build for its license; Motion JPEG, large, is in all.
CODECS = (("avc1", ".mp4"), ("mp4v", ".mp4"), ("MJPG", ".avi"))
# Keeps FFmpeg quiet, too. It is read when OpenCV starts FFmpeg; a user's own choice stays.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_USUAL_RATE, _HIGHEST_RATE = 30.0, 1000.0  # frames a second; some files and cameras tell nonsense
_LOWEST_RATE = 0.002  # OpenCV writes no video of 0.001 or less


@dataclass
class Clip:
    """A video or a camera while it is read."""

    name: str
    capture: Any  # as cv2.VideoCapture
    rate: float  # frames a second of the source
    frames: int  # by the header; 0 if that does not say
    drawn_rate: float  # of the frames that are taken
    live: bool
    start: float = field(default_factory=time.monotonic)

    def read(self) -> np.ndarray | None:
        """The next frame, (H, W, 3) uint8 BGR; None at the end."""
        there, image = self.capture.read()
        return image if there else None

    def seconds(self, frame: int) -> float:
        """When the frame is shown, from the start."""
        return time.monotonic() - self.start if self.live else frame / self.rate


def open_video(source: Path | str | int, every: int = 1) -> Clip:
    """Open a video file, the address of a stream, or a camera by its number.

    Raises:
        IONError: it cannot be opened.
    """
    name = f"camera {source}" if isinstance(source, int) else str(source)
    with quiet():
        # An absolute path cannot be taken for an address.
        place = str(source.resolve()) if isinstance(source, Path) else source
        capture = cv2.VideoCapture(place)
    if not capture.isOpened():
        raise IONError(_closed(source, name))
    told, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    rate = told if math.isfinite(told) and 0 < told <= _HIGHEST_RATE else _USUAL_RATE
    frames = int(count) if math.isfinite(count) and count > 0 else 0
    live = not isinstance(source, Path) and not frames
    if live:
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # or the frames are old where the model is slow
    return Clip(name, capture, rate, frames, rate if live else rate / every, live)


def count_frames(source: Path | str | int) -> int:
    """The frames of a video by its header; 0 where that does not say, or there is no end."""
    if isinstance(source, int):
        return 0
    try:
        clip = open_video(source)
    except IONError:  # told when its turn comes
        return 1
    clip.capture.release()
    return clip.frames


def _closed(source: Path | str | int, name: str) -> str:
    if isinstance(source, int):
        return f"OpenCV cannot open camera {source}; connect it, or give the number of another."
    if isinstance(source, Path) and source.stat().st_size == 0:
        return f"{name} is empty"
    return (
        f"{name} cannot be opened as a video: it is damaged, no video, or of a format that this "
        "build of OpenCV does not read"
    )


class VideoFile:
    """A video under way. It takes its name when it is complete, also after Ctrl-C."""

    def __init__(self, place: Path, size: tuple[int, int], rate: float) -> None:
        """
        Args:
            place: the file; its suffix becomes that of the format.
            size: height and width in pixels. Video formats want even numbers: of an odd one, the
                last row or column is cut off.
            rate: frames a second; at least 0.002 are written.

        Raises:
            IONError: no codec of :data:`CODECS` can write it.
        """
        self.size, self.frames, rate = size, 0, max(rate, _LOWEST_RATE)
        for codec, self.suffix in CODECS:
            name = fitting_name(f".{place.stem}", suffix=f".{os.getpid()}.tmp{self.suffix}")
            self.temporary = place.with_name(name)
            with quiet():
                code = cv2.VideoWriter_fourcc(*codec)
                self._writer = cv2.VideoWriter(str(self.temporary), code, rate, size[::-1])
            if self._writer.isOpened():
                return
            self._writer.release()
            self.temporary.unlink(missing_ok=True)
        raise IONError(
            f"OpenCV cannot write a video of {size[1]}x{size[0]} pixels beside {place}; make room, "
            "choose another --output, or give --no-drawings."
        )

    def write(self, image: np.ndarray) -> None:
        """Add a frame, (H, W, 3) uint8 BGR, of any size: it is fitted in."""
        if image.shape[:2] != self.size:  # of a stream that changed
            image = cv2.resize(image, self.size[::-1])
        self._writer.write(np.ascontiguousarray(image))
        self.frames += 1

    def close(self, place: Path) -> None:
        """Complete the file, and give it its name.

        Raises:
            IONError: it was not written completely; nothing is left of it.
        """
        self._writer.release()
        try:
            with quiet():  # a full disk is not told in any other way
                written = cv2.VideoCapture(str(self.temporary))
            complete = written.isOpened() and written.read()[0]
            written.release()
            if not complete:
                raise IONError(f"{place} cannot be written; make room or choose another --output.")
            os.replace(self.temporary, place)
        finally:
            self.temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV from telling of what we tell ourselves."""
    logs = getattr(getattr(cv2, "utils", None), "logging", None)  # not in every build
    level = logs.setLogLevel(logs.LOG_LEVEL_SILENT) if logs else None
    try:
        yield
    finally:
        if logs:
            logs.setLogLevel(level)
