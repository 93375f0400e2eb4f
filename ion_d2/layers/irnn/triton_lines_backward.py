"""Triton kernel: the gradient of the sweeps along one axis, summed over their directions.

The backward sweep of a line runs against its direction of travel: ``g_t = (grad_t + w g_{t+1})``
where the ReLU let ``h_t`` through, else 0. It needs the output alone: a cell was let through if it
is not 0 there, which also says which cells are absent. ``g`` is the gradient of ``x`` in that
direction, and the sum of ``g_{t+1} h_t`` that of ``w``.

A program takes all directions of the axis through its lines one after the other and adds up ``g``
in memory, where it finds its own last sum in the cache. The order of additions is fixed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import line_of, load_tile, quarters, stack_quarters, store_tile


@triton.jit
def _step(g, slope, grad, state, weight):
    """One step back: the state's gradient, and the weight's so far."""
    total = weight * g + grad
    # Not `state > 0`: NaN lets the gradient through, as torch's ReLU does.
    return tl.where(state <= 0, 0.0, total), slope + g * state


@triton.jit
def _sweep_4(grads, states, g, slope, weight, REVERSE: tl.constexpr):
    a, b, c, d = quarters(grads, REVERSE)
    p, q, r, s = quarters(states, REVERSE)
    a, slope = _step(g, slope, a, p, weight)
    b, slope = _step(a, slope, b, q, weight)
    c, slope = _step(b, slope, c, r, weight)
    d, slope = _step(c, slope, d, s, weight)
    return stack_quarters(a, b, c, d, REVERSE), d, slope


@triton.jit
def _sweep_16(grads, states, g, slope, weight, REVERSE: tl.constexpr):
    """Step back through [16, L]: the states' gradients, the last of them, and the weight's."""
    a, b, c, d = quarters(grads, REVERSE)
    p, q, r, s = quarters(states, REVERSE)
    a, g, slope = _sweep_4(a, p, g, slope, weight, REVERSE)
    b, g, slope = _sweep_4(b, q, g, slope, weight, REVERSE)
    c, g, slope = _sweep_4(c, r, g, slope, weight, REVERSE)
    d, g, slope = _sweep_4(d, s, g, slope, weight, REVERSE)
    return stack_quarters(a, b, c, d, REVERSE), g, slope


@triton.jit
def _sweep_lines(
    grad, grad_step, out, out_step, before, after, x_step, weight, steps, length,
    ADD: tl.constexpr, REVERSE: tl.constexpr, STATE: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sweep lines from end to end, against their direction of travel.

    Args:
        grad: [L] pointers to step 0 of the lines in the output's gradient; ``grad_step`` leads
            from one step to the next.
        out: [L] pointers like ``grad``, into the output.
        before: [L] pointers like ``grad`` to the sum of the directions so far, by ``x_step``.
        after: [L] pointers to where the sum goes, by ``x_step``, possibly the same.
        weight: [1, L] factors, or 1.
        length: [L] steps of each line: ``steps``, or 0 where there is no such line.
        ADD: False takes the sum so far to be 0 and reads nothing.
        REVERSE: whether this sweep, not the one that it belongs to, starts at the last step.

    Returns:
        [1, L] gradients of the weight.
    """
    tiles = tl.cdiv(steps, STEPS)
    g = tl.zeros([1, length.shape[0]], STATE)
    slope = tl.zeros([1, length.shape[0]], STATE)
    start = (tiles - 1) * STEPS if REVERSE else 0
    grads = load_tile(grad, grad_step, length, start, STEPS, STATE)
    states = load_tile(out, out_step, length, start, STEPS, STATE)
    for i in range(tiles):
        first = (tiles - 1 - i if REVERSE else i) * STEPS
        # The next tiles are under way while these are stepped through.
        ahead = first + (-STEPS if REVERSE else STEPS)
        next_grads = load_tile(grad, grad_step, length, ahead, STEPS, STATE)
        next_states = load_tile(out, out_step, length, ahead, STEPS, STATE)
        if ADD:
            total = load_tile(before, x_step, length, first, STEPS, STATE)
        tile, g, slope = _sweep_16(grads, states, g, slope, weight, REVERSE)
        if ADD:
            tile += total
        store_tile(after, x_step, length, first, tile, STEPS)
        grads = next_grads
        states = next_states
    return slope


@triton.jit(do_not_specialize=["blocks", "images"])
def backward_kernel(
    grad, out, weight, total, grad_x, slopes, images, channels, others, steps, blocks,
    grad_n, grad_c, grad_other, grad_step, out_n, out_c, out_other, out_step,
    x_n, x_c, x_other, x_step,
    SLOTS: tl.constexpr, NUM_SLOTS: tl.constexpr, OPENS: tl.constexpr, CLOSES: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, FLAT: tl.constexpr,
    STATE: tl.constexpr, LINES: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sweep all directions of one axis back; a grid of images x blocks.

    ``other`` is the spatial axis across the directions of travel, ``step`` the one along them.

    Args:
        grad: (N, D * C, ...), the output's gradient, strides ``grad_*``.
        out: (N, D * C, ...), the output, strides ``out_*``.
        weight: None, or (D, C) contiguous.
        total: (N, C, ...) in the state's type, strides ``x_*``: the sum over directions until the
            last one has been added. It may be ``grad_x`` where that has the type.
        grad_x: (N, C, ...), strides ``x_*``.
        slopes: None where ``weight`` is, or (NUM_SLOTS, N, C, others) contiguous in the state's
            type: the weight's gradient from each line.
        others: lines of a channel.
        blocks: programs of an image.
        SLOTS: for each direction of the axis 16 bits, the first in the lowest: its place among the
            D directions times 2, plus 1 if it travels towards step 0.
        OPENS: whether ``total`` holds nothing yet.
        CLOSES: whether no other axis follows, so that the last sum is ``grad_x``.
        CHANNELS_LAST: see :func:`line_of`, like FLAT.
        STATE: type of the recurrence.
        LINES: lines of a program, each taken in tiles of STEPS steps.
    """
    program = tl.program_id(0)
    block = program % blocks
    n = (program // blocks).to(tl.int64)
    c, other, exists = line_of(block, channels, others, CHANNELS_LAST, FLAT, LINES)
    length = tl.where(exists, steps, 0)
    grad += n * grad_n + c * grad_c + other * grad_other
    out += n * out_n + c * out_c + other * out_other
    total += n * x_n + c * x_c + other * x_other
    grad_x += n * x_n + c * x_c + other * x_other
    for k in tl.static_range(NUM_SLOTS):
        slot = (SLOTS >> 16 * k) & 0xFFFF
        skip = tl.full((), slot >> 1, tl.int64) * channels
        factor = 1.0
        if weight is not None:
            factor = tl.load(weight + skip + c, mask=exists, other=0).to(STATE)[None, :]
        if k > 0:
            tl.debug_barrier()  # Another thread may have stored the sum that this one adds to.
        after = grad_x if CLOSES and k == NUM_SLOTS - 1 else total
        slope = _sweep_lines(
            grad + skip * grad_c, grad_step, out + skip * out_c, out_step, total, after, x_step,
            factor, steps, length, k > 0 or not OPENS, slot & 1 == 0, STATE, STEPS,
        )  # fmt: skip
        if slopes is not None:
            line = ((k * images + n) * channels + c) * others + other
            tl.store(slopes + line, tl.reshape(slope, [LINES]), mask=exists)
