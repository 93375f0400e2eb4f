"""Videos and cameras of demo.py: real files, read back, and an OpenCV camera of a test."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from demo_helpers import errors, model, picture, pixels, play, video
from detectron2.data import DatasetCatalog

from ion_d2.data import ensure_registered
from ion_d2.errors import IONError

pytestmark = pytest.mark.usefixtures("catalogs")
ROOT = Path(__file__).resolve().parents[2]
LOW = ("--confidence-threshold", "0.02")


@pytest.mark.parametrize("rate", [0.002, 0.001, 1e-5])
def test_videos_of_the_lowest_rates(demo, tmp_path, rate):
    """OpenCV writes none of 0.001 frames a second or less."""
    written = sys.modules["demo_video"].VideoFile(tmp_path / "a.mp4", (60, 80), rate)
    for seed in range(3):
        written.write(pixels(seed))
    written.close(place := tmp_path / f"a{written.suffix}")
    assert len(play(place)[0]) == 3


class Camera:
    """What demo.py uses of cv2.VideoCapture."""

    def __init__(self, frames=4, then=KeyboardInterrupt, **told):
        self.frames, self.then, self.told, self.released = frames, then, told, False

    def isOpened(self):  # noqa: N802
        return self.frames > 0

    def get(self, what):
        values = {cv2.CAP_PROP_FPS: "rate", cv2.CAP_PROP_FRAME_COUNT: "count"}
        return float(self.told.get(values[what], 0))

    def set(self, what, value):
        return True

    def read(self):
        if self.frames == 0:
            if self.then is None:
                return False, None
            raise self.then
        self.frames -= 1
        return True, pixels(self.frames)

    def release(self):
        self.released = True


@pytest.fixture
def connect(monkeypatch):
    """Gives OpenCV a camera, or a stream; files are read as ever."""

    def plug(camera, source=0):
        real = cv2.VideoCapture
        monkeypatch.setattr(cv2, "VideoCapture", lambda x: camera if x == source else real(x))
        return camera

    return plug


@pytest.mark.parametrize("as_input", [True, False])
def test_a_video_is_drawn_and_listed(run, weights, tmp_path, out, listed, as_input):
    path = video(tmp_path / "clip #1 ü.avi")
    inputs, options = ([path], ()) if as_input else ((), ("--video-input", path))
    save = ("--save", "json", "csv", "--batch", "2")
    assert run(inputs, *options, *LOW, *save, *model(weights)) == 0
    (drawn,) = out.glob("clip #1 ü.*")
    frames, rate = play(drawn)
    assert [frame.shape for frame in frames] == [(60, 80, 3)] * 5 and rate == 12.5
    given = play(path)[0]
    assert all(0 < np.abs(a.astype(int) - b).mean() < 80 for a, b in zip(frames, given))
    assert [(x["file"], x["frame"], x["seconds"]) for x in listed()] == [
        (str(path), number, number / 12.5) for number in range(5)
    ]
    assert all(entry["detections"] for entry in listed())
    with open(out / "detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["frame"] for row in rows} == set("01234")
    assert {path.name for path in out.glob("[!.]*")} == {
        *(drawn.name, "detections.json", "detections.classes.txt", "detections.csv")
    }


def test_some_frames_and_an_odd_size_and_rate(run, weights, tmp_path, out, listed):
    """29.97 frames a second, of which each second one is taken; odd numbers of pixels lose one."""
    path = video(tmp_path / "clip.avi", rate=29.97, size=(61, 81))
    given = play(path)[0][0].shape
    assert run([path], "--every", "2", *model(weights)) == 0
    (drawn,) = out.glob("clip.*")
    frames, rate = play(drawn)
    assert [entry["frame"] for entry in listed()] == [0, 2, 4] and len(frames) == 3
    assert rate == pytest.approx(29.97 / 2, abs=0.01)
    assert frames[0].shape == (given[0] // 2 * 2, given[1] // 2 * 2, 3)


def test_what_is_no_video_is_told_and_the_others_done(run, weights, tmp_path, listed, capfd):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "film.xyz").write_bytes(bytes(range(256)) * 9)
    good, clip = picture(tmp_path / "good.png"), tmp_path / "clip.dat"
    video(tmp_path / "clip.avi", frames=2).rename(clip)
    inputs = (tmp_path / "empty.mp4", tmp_path / "text.mp4", good)
    more = ("--video-input", tmp_path / "film.xyz", "--video-input", clip)
    assert run(inputs, *more, *model(weights)) == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err
    empty, text, film = [line for line in err.splitlines() if "error:" in line]
    assert "empty.mp4 is empty" in empty
    assert (
        "text.mp4 cannot be opened as a video" in text
        and "film.xyz cannot be opened as a video" in film
    )
    assert [x["file"] for x in listed()] == [str(good), str(clip), str(clip)]


def test_ffmpeg_is_quiet(tmp_path):
    """In a process of its own: FFmpeg asks once, when any part of a program first uses it."""
    (tmp_path / "text.mp4").write_text("not a video")
    code = "import sys, demo_video as it; it.cv2.VideoCapture(sys.argv[1])"
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    unset = {k: v for k, v in os.environ.items() if k != "OPENCV_FFMPEG_LOGLEVEL"}
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "text.mp4"],
        env={**unset, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_video_that_is_not_there_stops_before_the_model(run, tmp_path, capfd):
    assert run((), "--video-input", tmp_path / "none.mp4") == 1
    (line,) = errors(capfd)
    assert "none.mp4 is no file" in line


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_was_done_until_ctrl_c_plays(run, weights, tmp_path, out, listed, monkeypatch, how):
    results = sys.modules["demo_results"].Results
    add = results.add

    def stop(self, shot, found):
        if shot.frame == 3:
            os.kill(os.getpid(), how)
            time.sleep(5)
        add(self, shot, found)

    monkeypatch.setattr(results, "add", stop)
    assert run([video(tmp_path / "clip.avi")], *model(weights)) == 130
    (drawn,) = out.glob("clip.*")
    assert len(play(drawn)[0]) == 3 and [x["frame"] for x in listed()] == [0, 1, 2]
    assert not list(out.glob(".clip*"))


def test_a_camera_until_ctrl_c(run, weights, connect, out, listed):
    """Frames stand still while the model works, so that the video has the time of the camera."""
    camera = connect(Camera(rate=20))
    assert run((), "--webcam", *model(weights)) == 0
    assert camera.released
    (drawn,) = out.glob("camera_0.*")
    frames, rate = play(drawn)
    entries = listed()
    assert rate == 20 and [x["frame"] for x in entries] == [0, 1, 2, 3]
    assert [x["file"] for x in entries] == ["camera 0"] * 4
    assert len(frames) == round(entries[-1]["seconds"] * 20) + 1


def test_a_camera_that_is_not_there(run, weights, connect, capfd):
    connect(Camera(frames=0), source=3)
    assert run((), "--webcam", "3", *model(weights)) == 1
    (line,) = errors(capfd)
    assert "cannot open camera 3" in line


def test_a_stream_that_breaks_off(run, weights, connect, listed, capfd):
    address = "rtsp://camera.example/1"
    connect(Camera(then=None, count=100), source=address)
    assert run((), "--video-input", address, *model(weights)) == 1
    (line,) = errors(capfd)
    assert f"{address} has 100 frames" in line and "only the first 4" in line
    assert len(listed()) == 4


def test_frames_become_pictures_with_labels(run, weights, tmp_path, out, listed):
    clips = [video(tmp_path / name / "clip.avi", frames=2) for name in "xy"]
    assert run(clips, *LOW, "--save", "json", "labelme", *model(weights)) == 0
    assert len(list(out.glob("clip*"))) == 2
    name = f"labelme:{out}/labelme/train"
    ensure_registered([name])
    records = DatasetCatalog.get(name)
    assert [len(x["annotations"]) for x in records] == [len(x["detections"]) for x in listed()]
    assert cv2.imread(records[0]["file_name"]).shape == (60, 80, 3)
    dataset = f"detections:{out}/detections.json"
    ensure_registered([dataset])
    with pytest.raises(IONError, match="--save labelme"):
        DatasetCatalog.get(dataset)


def test_no_video_of_the_user_is_replaced(run, weights, tmp_path, out, monkeypatch):
    monkeypatch.setattr(sys.modules["demo_video"], "CODECS", (("none", ".mp4"), ("MJPG", ".avi")))
    source = video(out / "clip.avi")
    content = source.read_bytes()
    for _ in range(2):
        assert run([source], *model(weights)) == 0
        assert source.read_bytes() == content
        assert sorted(path.name for path in out.glob("*.avi")) == ["clip.avi", "clip_2.avi"]
    assert len(play(out / "clip_2.avi")[0]) == 5


def test_a_video_that_was_not_written(run, weights, tmp_path, out, listed, monkeypatch, capfd):
    path = video(tmp_path / "clip.avi", frames=2)
    videos = sys.modules["demo_video"].VideoFile
    monkeypatch.setattr(videos, "write", lambda self, image: None)  # as on a full disk
    assert run([path], *model(weights)) == 1
    (line,) = errors(capfd)
    assert "cannot be written; make room" in line
    assert len(listed()) == 2 and not list(out.glob("*clip*"))


def test_a_window(run, weights, tmp_path, listed, monkeypatch, capfd):
    shown, keys = [], iter([-1, 0, 27])
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: next(keys))
    path = video(tmp_path / "clip.avi")
    assert run([path], "--show", "--no-drawings", *model(weights)) == 0
    assert shown == [(60, 80, 3)] * 3 and len(listed()) == 3

    def none(title, image):
        raise cv2.error("not implemented")

    monkeypatch.setattr(cv2, "imshow", none)
    assert run([path], "--show", *model(weights)) == 1
    (line,) = errors(capfd)
    assert "leave out --show" in line
