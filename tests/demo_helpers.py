"""A tiny model for demo.py, and pictures and videos for it."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CONFIG = str(Path(__file__).resolve().parents[1] / "configs/ion_tiny.yaml")
OPTS = [
    *("MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH_MULTIPLIER", "0.0625"),
    *("MODEL.CONTEXT.HIDDEN_DIM", "8", "MODEL.CONTEXT.OUT_DIM", "8"),
    *("MODEL.SKIP_POOLER.OUT_CHANNELS", "8", "MODEL.SKIP_POOLER.SCALE_INIT", "10.0"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.RPN.POST_NMS_TOPK_TEST", "30"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"),
    *("DATASETS.TRAIN", "()", "DATASETS.TEST", "()"),
]


def model(weights):
    """Overrides of the config, for a model that finds something in noise at a score of 0.02."""
    return ("--opts", "MODEL.WEIGHTS", weights, "MODEL.ROI_HEADS.NUM_CLASSES", "3", *OPTS)


def pixels(seed=0, size=(60, 80)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def picture(path, seed=0, size=(60, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, size)).save(path)
    return path


def video(path, frames=5, rate=12.5, size=(60, 80)):
    """A video of noise, in Motion JPEG, which every build of OpenCV writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, size[::-1])
    assert writer.isOpened()
    for seed in range(frames):
        writer.write(pixels(seed, size))
    writer.release()
    return path


def play(path):
    """The frames of a video that was read to its end, and its rate."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return frames, capture.get(cv2.CAP_PROP_FPS)


def errors(capture):
    return [line for line in capture.readouterr().err.splitlines() if "error:" in line]
