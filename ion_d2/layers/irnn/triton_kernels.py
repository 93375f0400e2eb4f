"""Triton kernels of the spatial IRNN without a transition or with a diagonal one.

One program sweeps a block of lines, the state in registers; neighbouring programs take the other
directions through the same part of the map, so that its cells come from memory once and from the
cache thereafter. Nothing is stored but the result: the backward pass tells from it which cells the
ReLU let through, and what the state before them was.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import line_block, quarters, stack_quarters, tile_mask, tile_pointers


@triton.jit
def _step(state, x, weight):
    total = weight * state + x
    return tl.where(total < 0, 0.0, total)  # Unlike a maximum with 0, this keeps NaN.


@triton.jit
def _sweep_4(tile, state, weight, REVERSE: tl.constexpr):
    a, b, c, d = quarters(tile)
    if REVERSE:
        d = _step(state, d, weight)
        c = _step(d, c, weight)
        b = _step(c, b, weight)
        a = _step(b, a, weight)
        return stack_quarters(a, b, c, d), a
    a = _step(state, a, weight)
    b = _step(a, b, weight)
    c = _step(b, c, weight)
    d = _step(c, d, weight)
    return stack_quarters(a, b, c, d), d


@triton.jit
def _sweep_16(tile, state, weight, REVERSE: tl.constexpr):
    """Sweep [16, L] from the state [1, L] before it: the states [16, L] and the last of them."""
    a, b, c, d = quarters(tile)
    if REVERSE:
        d, state = _sweep_4(d, state, weight, REVERSE)
        c, state = _sweep_4(c, state, weight, REVERSE)
        b, state = _sweep_4(b, state, weight, REVERSE)
        a, state = _sweep_4(a, state, weight, REVERSE)
    else:
        a, state = _sweep_4(a, state, weight, REVERSE)
        b, state = _sweep_4(b, state, weight, REVERSE)
        c, state = _sweep_4(c, state, weight, REVERSE)
        d, state = _sweep_4(d, state, weight, REVERSE)
    return stack_quarters(a, b, c, d), state


@triton.jit
def _forward_lines(
    x, x_stride, out, out_stride, weight, steps, length, there, REVERSE: tl.constexpr,
    STEPS: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """Sweep whole lines, given pointers [L] to their step 0 and how many cells are valid [L]."""
    tiles = tl.cdiv(steps, STEPS)
    state = weight * 0
