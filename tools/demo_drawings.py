"""The drawings of demo.py: a picture of each picture, a video of each video, a window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from demo_folder import ELSEWHERE, OutputFolder
from demo_inputs import Shot
from demo_video import Clip, VideoFile
from detectron2.structures import Instances
from PIL import Image

from ion_d2.engine.drawing import draw_panel
from ion_d2.engine.pictures import draw_detections, marks_of, save_picture
from ion_d2.errors import IONError
from ion_d2.files import make_folder

PANEL_SIZE = 960
_ENDS = (27, ord("q"))  # keys: Esc and q


class WindowClosed(Exception):
    """The user has seen enough."""


class Drawings:
    """Draws all detections, into files, into a window or both."""

    def __init__(
        self, folder: OutputFolder, names: Sequence[str], *, save: bool = True, show: bool = False
    ) -> None:
        self._folder, self._names, self._save, self._show = folder, names, save, show
        self._video: VideoFile | None = None
        self._shot: Shot | None = None  # the last one of the video

    def add(self, shot: Shot, found: Instances) -> None:
        """Draw a picture or a frame.

        Raises:
            IONError: it cannot be written or shown.
            WindowClosed: the user closed the window.
        """
        if not self._save and not self._show:
            return
        if shot.clip is None:
            drawn = draw_detections(shot.image, found, self._names, panel_size=PANEL_SIZE)
            if self._save:
                self._save_picture(drawn, shot)
        else:
            names = dict(enumerate(self._names))
            rgb, longest = shot.image[:, :, ::-1], max(shot.image.shape[:2])
            drawn = draw_panel(rgb, marks_of(found), names, longest)
            if self._save:
                self._add_frame(np.asarray(drawn)[:, :, ::-1], shot, shot.clip)
        if self._show:
            show(np.asarray(drawn)[:, :, ::-1], wait=shot.clip is None)

    def _save_picture(self, drawn: Image.Image, shot: Shot) -> None:
        write_drawing(drawn, shot.place)
        self._folder.wrote(shot.place)

    def _add_frame(self, image: np.ndarray, shot: Shot, clip: Clip) -> None:
        if self._shot is None or self._shot.clip is not clip:
            self.close()
            self._video = VideoFile(shot.place, image.shape[:2], clip.drawn_rate)
        assert self._video is not None
        self._shot, times = shot, 1
        if clip.live:  # what the model is too slow for stands still, or the video would be too fast
            assert shot.seconds is not None
            times = round(shot.seconds * clip.drawn_rate) + 1 - self._video.frames
        for _ in range(times):
            self._video.write(image)

    def close(self) -> None:
        """Complete a video that is under way.

        Raises:
            IONError: it cannot be written.
        """
        if self._video is not None and self._shot is not None:
            video, place = self._video, self._shot.place
            self._video = self._shot = None
            if place.suffix != video.suffix:
                place = self._folder.free(place, video.suffix)
            video.close(place)
            self._folder.wrote(place)


def write_drawing(drawn: Image.Image, path: Path) -> None:
    """Write a picture, and its folder if need be.

    Raises:
        IONError: it cannot be written.
    """
    make_folder(path.absolute().parent, ELSEWHERE)
    try:
        save_picture(drawn, path)
    except OSError as error:
        told = f"{path} cannot be written ({error.strerror or error}); {ELSEWHERE}."
        raise IONError(told) from error


def show(image: np.ndarray, *, wait: bool) -> None:
    """Show a picture, (H, W, 3) uint8 BGR, in a window, and ``wait`` for a key.

    Raises:
        IONError: there is no display, or this build of OpenCV has no windows.
        WindowClosed: the key was Esc or q.
    """
    try:
        cv2.imshow("detections", np.ascontiguousarray(image))
        key = cv2.waitKey(0 if wait else 1) & 0xFF
    except cv2.error as error:
        raise IONError(
            "OpenCV cannot open a window here; leave out --show (a headless build has none, and "
            "others need a display)."
        ) from error
    if key in _ENDS:
        raise WindowClosed
