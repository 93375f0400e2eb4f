"""Triton kernel: sweep a map in any directions, without a transition or with a diagonal one.

A program sweeps one block of lines in one direction, the state in a register of each thread. Its
neighbors take the other directions through the same part of the map, whose cells then come from
memory once and from the cache three times.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import line_of, load_tile, quarters, stack_quarters, store_tile, tile_mask


@triton.jit
def _step(state, x, weight):
    total = weight * state + x
    return tl.where(total < 0, 0.0, total)  # NaN stays, as in torch.relu.


@triton.jit
def _sweep_4(tile, state, weight, REVERSE: tl.constexpr):
    a, b, c, d = quarters(tile, REVERSE)
    a = _step(state, a, weight)
    b = _step(a, b, weight)
    c = _step(b, c, weight)
    d = _step(c, d, weight)
    return stack_quarters(a, b, c, d, REVERSE), d


@triton.jit
def _sweep_16(tile, state, weight, REVERSE: tl.constexpr):
    """Step through [16, L] from the state [1, L] before: all 16 states, and the last one."""
    a, b, c, d = quarters(tile, REVERSE)
    a, state = _sweep_4(a, state, weight, REVERSE)
    b, state = _sweep_4(b, state, weight, REVERSE)
    c, state = _sweep_4(c, state, weight, REVERSE)
    d, state = _sweep_4(d, state, weight, REVERSE)
    return stack_quarters(a, b, c, d, REVERSE), state


@triton.jit
def _sweep_lines(
    x, x_step, out, out_step, weight, steps, length, valid,
    REVERSE: tl.constexpr, HAS_SIZES: tl.constexpr, STATE: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sweep lines from end to end.

    Absent cells are read as 0. Before the first valid cell that leaves the state at 0; after the
    last one the state no longer matters.

    Args:
        x: [L] pointers to step 0 of the lines; ``x_step`` leads from one step to the next.
        out: [L] pointers like ``x``, where the states go.
        weight: [1, L] factors, or 1.
        length: [L] steps of each line: ``steps``, or 0 where there is no such line.
        valid: [L] steps of each line within the image's valid area.
    """
    tiles = tl.cdiv(steps, STEPS)
    state = tl.zeros([1, length.shape[0]], STATE)
    tile = load_tile(x, x_step, valid, (tiles - 1) * STEPS if REVERSE else 0, STEPS, STATE)
    for i in range(tiles):
        first = (tiles - 1 - i if REVERSE else i) * STEPS
        # The next tile is under way while this one is stepped through.
        coming = load_tile(x, x_step, valid, first + (-STEPS if REVERSE else STEPS), STEPS, STATE)
        states, state = _sweep_16(tile, state, weight, REVERSE)
        if HAS_SIZES:
            states = tl.where(tile_mask(valid, first, STEPS), states, 0.0)
        store_tile(out, out_step, length, first, states, STEPS)
        tile = coming


@triton.jit
def _sweep_block(
    block, x, x_c, x_other, x_step, out, out_c, out_other, out_step,
    weight, valid_others, valid_steps, channels, others, steps,
    HAS_SIZES: tl.constexpr, REVERSE: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    FLAT: tl.constexpr, STATE: tl.constexpr, LINES: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sweep a block of the lines of one image in one direction.

    ``other`` is the spatial axis across the direction of travel: a line is a channel and a place
    there. Pointers lead to the image, in ``out`` and ``weight`` also to the direction.
    """
    c, other, exists = line_of(block, channels, others, CHANNELS_LAST, FLAT, LINES)
    length = tl.where(exists, steps, 0)
    valid = length
    if HAS_SIZES:
        # Never beyond the map: sizes that a replayed CUDA graph reads have not been checked.
        valid = tl.where(exists & (other < valid_others), tl.minimum(valid_steps, steps), 0)
    factor = 1.0
    if weight is not None:
        factor = tl.load(weight + c, mask=exists, other=0).to(STATE)[None, :]
    x += c * x_c + other * x_other
    out += c * out_c + other * out_other
    _sweep_lines(
        x, x_step, out, out_step, factor, steps, length, valid, REVERSE, HAS_SIZES, STATE, STEPS
    )


@triton.jit(do_not_specialize=["row_blocks", "column_blocks"])
def forward_kernel(
    x, out, weight, sizes, channels, height, width, row_blocks, column_blocks,
    x_n, x_c, x_h, x_w, out_n, out_c, out_h, out_w,
    CODES: tl.constexpr, NUM_DIRECTIONS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    FLAT_ROWS: tl.constexpr, FLAT_COLUMNS: tl.constexpr,
    STATE: tl.constexpr, LINES: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sweep all directions; a grid of images x max(row_blocks, column_blocks) x directions.

    Args:
        x: (N, C, H, W), strides ``x_*``.
        out: (N, D * C, H, W), strides ``out_*``.
        weight: None, or (D, C) contiguous.
        sizes: None, or (N, 2) int64 contiguous.
        row_blocks: programs that take an image's rows in one direction; ``column_blocks`` likewise.
        CODES: the directions' places in ``DIRECTIONS``, two bits each, the first in the lowest.
        CHANNELS_LAST: see :func:`line_of`.
        FLAT_ROWS: whether blocks of rows are flat, see there; FLAT_COLUMNS likewise.
        STATE: type of the recurrence.
        LINES: lines of a program, each taken in tiles of STEPS steps.
    """
    program = tl.program_id(0)
    d = program % NUM_DIRECTIONS
    blocks = tl.maximum(row_blocks, column_blocks)
    block = program // NUM_DIRECTIONS % blocks
    n = (program // NUM_DIRECTIONS // blocks).to(tl.int64)
    x += n * x_n
    out += n * out_n + d.to(tl.int64) * channels * out_c
    HAS_SIZES: tl.constexpr = sizes is not None
    valid_height, valid_width = height, width
    if HAS_SIZES:
        valid_height = tl.load(sizes + 2 * n)
        valid_width = tl.load(sizes + 2 * n + 1)
    if weight is not None:
        weight += d * channels
    for k in tl.static_range(NUM_DIRECTIONS):
        if d == k:
            if (CODES >> 2 * k) & 2:
                if block < column_blocks:
                    _sweep_block(
                        block, x, x_c, x_w, x_h, out, out_c, out_w, out_h, weight, valid_width,
                        valid_height, channels, width, height, HAS_SIZES, (CODES >> 2 * k) & 1,
                        CHANNELS_LAST, FLAT_COLUMNS, STATE, LINES, STEPS,
                    )  # fmt: skip
            elif block < row_blocks:
                _sweep_block(
                    block, x, x_c, x_h, x_w, out, out_c, out_h, out_w, weight, valid_height,
                    valid_width, channels, height, width, HAS_SIZES, (CODES >> 2 * k) & 1,
                    CHANNELS_LAST, FLAT_ROWS, STATE, LINES, STEPS,
                )  # fmt: skip
