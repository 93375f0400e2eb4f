"""The directional hidden states of each recurrent stack as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from .document import Figure, Part, Picture, Section, Text
from .heatmap import encode, heat_map
from .observe import Sample
from .states import StackStates

# Longer side of a picture in pixels.
_SIDE = 320
_ARROWS = {"right": "\u2192", "left": "\u2190", "down": "\u2193", "up": "\u2191"}
_READ = {"right": "to its left", "left": "to its right", "down": "above it", "up": "below it"}


def states_parts(
    sample: Sample, states: Sequence[StackStates], rgb: bool, stride: int
) -> list[Part]:
    """Show the states of every stack for one image.

    Args:
        sample: the image.
        states: of its stacks, in order.
        rgb: whether the network's input has red first, not blue.
        stride: pixels of the input per cell.
    """
    text = (
        "Each stack sweeps the map in its directions; a state sums up what lies behind it on its "
        "way. Shown is the L2 norm of the state over its channels, at every cell, from black (0) "
        "to pale yellow (the most in the stack, in any direction)."
    )
    pictured = _input_picture(sample.inputs["image"], rgb)
    figures = [
        _stack_figure(stack, number, pictured, stride)
        for number, stack in enumerate(states, start=1)
    ]
    return [Section("Hidden states by direction", [Text([text]), *figures])]


def _input_picture(image: Tensor, rgb: bool) -> Picture:
    pixels = image.permute(1, 2, 0).numpy().astype(np.uint8)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))  # gray ones have one channel
    picture = Image.fromarray(np.ascontiguousarray(pixels if rgb else pixels[:, :, ::-1]))
    scale = _SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return Picture(encode(resized, "JPEG"), "The image.", "image")


def _stack_figure(stack: StackStates, number: int, image: Picture, stride: int) -> Figure:
    top = max(float(norms.max(initial=0.0)) for norms in stack.norms.values())
    pictures = [_state_picture(name, norms, top) for name, norms in stack.norms.items()]
    height, width = next(iter(stack.norms.values())).shape
    caption = (
        f"Stack {number}, {width} x {height} cells of {stride} pixels. The largest norm is "
        f"{top:.4g}; means: {_means(stack.norms)}."
    )
    return Figure([image, *pictures], caption, width=150)


def _state_picture(direction: str, norms: np.ndarray, top: float) -> Picture:
    zoom = max(1, _SIDE // max(norms.shape))
    alt = (
        f"State traveling {direction}: mean norm {norms.mean():.4g}, largest {norms.max():.4g}; "
        f"a cell has read what lies {_READ[direction]}."
    )
    label = f"{_ARROWS[direction]} {direction}"
    return Picture(heat_map(norms, top=top, zoom=zoom), alt, label)


def _means(norms: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {values.mean():.4g}" for name, values in norms.items())
