"""Triton kernel: sweep a map with a full transition, all directions in step, in one launch.

A step is a matrix product of the states of all lines with the directions' matrices, and needs all
of the step before. The programs share out its tiles of lines x channels and wait for each other
before the next one. They must therefore all be resident: the launch is a cooperative one, of no
more programs than the GPU has multiprocessors. A launch of a single step waits for nothing.

The backward sweep is the same with the matrices transposed, the other way round, and the ReLU's
mask in place of the ReLU.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _arrive(counter):
    """Tell the other programs that this one has stored its part of a step."""
    tl.debug_barrier()  # All threads have stored before the one that counts does so.
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def _await(counter, arrivals):
    """Wait until so many programs have arrived."""
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()


@triton.jit
def _product(
    states, weight, weight_out, weight_in, exists, c, channels,
    PRECISION: tl.constexpr, BLOCK_IN: tl.constexpr,
):  # fmt: skip
    """Multiply the states of some lines by some rows of a matrix: [L, K].

    Args:
        states: [L] pointers to the lines' states, channels side by side.
        weight: pointer to the matrix of ``channels`` rows and columns.
        exists: [L], whether there is such a line.
        c: [K] rows of the matrix.
    """
    total = tl.zeros([exists.shape[0], c.shape[0]], tl.float32)
    for first in range(0, channels, BLOCK_IN):
        k = first + tl.arange(0, BLOCK_IN)
        # Past the first-level cache: other multiprocessors have just written these.
        state = tl.load(
            states[:, None] + k[None, :],
            mask=exists[:, None] & (k < channels)[None, :],
            other=0,
            cache_modifier=".cg",
        )
        block = tl.load(
            weight + k[:, None] * weight_in + c[None, :] * weight_out,
            mask=(k < channels)[:, None] & (c < channels)[None, :],
            other=0,
        )
        total = tl.dot(state, block, total, input_precision=PRECISION)
    return total


@triton.jit
def _direction(d, CODES: tl.constexpr, NUM_DIRECTIONS: tl.constexpr):
    """Whether the direction in place ``d`` is vertical, and whether it travels towards 0."""
    code = 0
    for i in tl.static_range(NUM_DIRECTIONS):
        code = tl.where(d == i, (CODES >> 2 * i) & 3, code)
    return code >= 2, code % 2 == 1


@triton.jit
def _cells(lines, t, images, height, width, vertical, backwards):
    """The cells of some lines in step ``t``: image, row, column, and whether there is such a cell.

    The lines of a direction are numbered across its travel, image by image.
    """
    steps = tl.where(vertical, height, width)
    others = tl.where(vertical, width, height)
    n = (lines // others).to(tl.int64)
    across = (lines % others).to(tl.int64)
    along = tl.where(backwards, steps - 1 - t, t).to(tl.int64)
    exists = (n < images) & (t < steps)
    return n, tl.where(vertical, along, across), tl.where(vertical, across, along), exists


@triton.jit(do_not_specialize=["first", "last", "images", "height", "width", "line_blocks"])
def matrix_kernel(
    source, states, weight, gate, sizes, counter, first, last,
    images, channels, height, width, line_blocks,
    source_n, source_d, source_c, source_h, source_w, states_n, states_h, states_w,
    gate_n, gate_c, gate_h, gate_w, weight_out, weight_in,
    CODES: tl.constexpr, NUM_DIRECTIONS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_LINES: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
):  # fmt: skip
    """Take the steps from ``first`` to before ``last`` in all directions.

    Args:
        source: what each step adds, strides ``source_*`` by image, direction, channel, row and
            column: the map, or the gradient of the output.
        states: (N, D * C, H, W) float32, channels side by side: where the result goes.
        weight: (D, C, C) float32, dense, strides ``weight_out`` and ``weight_in`` in a matrix.
        gate: None for a ReLU, or the output of the sweep whose ReLU this one goes back through.
        sizes: None, or (N, 2) int64 contiguous.
        counter: int32, zero: how often a program has finished a step.
        first: step to begin with; those before it are in ``states``.
        last: step to end before.
        line_blocks: tiles that the lines of any direction take at most.
        CODES: the directions' places in ``DIRECTIONS``, two bits each, the first in the lowest.
        PRECISION: ``input_precision`` of the product.
        BLOCK_LINES: lines of a tile, of BLOCK_OUT channels each.
        BLOCK_IN: channels of the step before that are multiplied at a time.
    """
    programs = tl.num_programs(0)
    blocks_out = tl.cdiv(channels, BLOCK_OUT)
    for t in range(first, last):
        if t > first:
            _await(counter, programs * (t - first))
        for tile in range(tl.program_id(0), line_blocks * NUM_DIRECTIONS * blocks_out, programs):
            # Neighboring tiles are of the same lines, as they read the same states.
            c = tile % blocks_out * BLOCK_OUT + tl.arange(0, BLOCK_OUT).to(tl.int64)
            d = tile // blocks_out % NUM_DIRECTIONS
            lines = tile // blocks_out // NUM_DIRECTIONS * BLOCK_LINES + tl.arange(0, BLOCK_LINES)
            vertical, backwards = _direction(d, CODES, NUM_DIRECTIONS)
            n, y, x, exists = _cells(lines, t, images, height, width, vertical, backwards)
            valid = exists
            if sizes is not None:
                valid &= y < tl.load(sizes + 2 * n, mask=exists, other=0)
                valid &= x < tl.load(sizes + 2 * n + 1, mask=exists, other=0)
            mask = valid[:, None] & (c < channels)[None, :]
            skip = d.to(tl.int64) * channels
            here = source + n * source_n + d.to(tl.int64) * source_d + y * source_h + x * source_w
            total = tl.load(here[:, None] + c[None, :] * source_c, mask=mask, other=0)
            total = total.to(tl.float32)
            here = states + n * states_n + y * states_h + x * states_w + skip
            if t > 0:
                back = tl.where(vertical, states_h, states_w) * tl.where(backwards, -1, 1)
                matrix = weight + skip * channels
                total += _product(
                    here - back, matrix, weight_out, weight_in, valid, c, channels,
                    PRECISION, BLOCK_IN,
                )  # fmt: skip
            if gate is None:
                total = tl.where(total < 0, 0.0, total)
            else:
                place = gate + n * gate_n + y * gate_h + x * gate_w
                through = place[:, None] + (skip + c)[None, :] * gate_c
                total = tl.where(tl.load(through, mask=mask, other=0) <= 0, 0.0, total)
            total = tl.where(mask, total, 0.0)
            tl.store(
                here[:, None] + c[None, :], total, mask=exists[:, None] & (c < channels)[None, :]
            )
        if t + 1 < last:
            _arrive(counter)
