"""Stand-ins for programs that propose boxes; worker processes import them by name."""

import os
import time

import numpy as np


def by_brightness():
    """Its boxes depend on the picture alone."""

    def propose(image):
        height, width = image.shape[:2]
        side = image.reshape(-1)[:6].astype(np.float32) % (min(height, width) - 1) + 1
        boxes = np.stack([0 * side, 0 * side, side, side], axis=1)
        return boxes, image.reshape(-1)[10:16].astype(np.float32)

    return propose


def slow():
    """Takes a moment for each picture."""
    propose = by_brightness()

    def wait(image):
        time.sleep(0.3)
        return propose(image)

    return wait


def fatal():
    """As when the system ends a process for its memory."""
    return lambda image: os._exit(9)
