"""Tiles of a map in Triton: the lines that a program owns, cut into steps and put together again.

A tile is [STEPS, LINES]: some cells in a row on each of a program's lines. It travels to and from
memory in whatever order is contiguous there. To step through it, every thread must hold all cells
of its own line; splitting along the steps makes Triton see to that, with one exchange through
shared memory where steps lie side by side in memory and none where lines do. The splits themselves
only rename registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Cells of a line that a program holds at a time. The sweeps are written for this number, four
# quarters of four steps: 64 bytes of float32, two sectors of memory.
STEPS = 16
# Lines of a program, one to a thread, and its warps. A lone warp waits for no other.
LINES = 32
NUM_WARPS = 1


@triton.jit
def quarters(tile, REVERSE: tl.constexpr):
    """Split [4 K, L] along the steps into four [K, L], the last one first if ``REVERSE``."""
    rows: tl.constexpr = tile.shape[0] // 4
    lines: tl.constexpr = tile.shape[1]
    pairs = tl.permute(tl.reshape(tile, [2, 2, rows, lines]), [2, 3, 1, 0])
    low, high = tl.split(pairs)  # [K, L, 2] each
    a, b = tl.split(low)
    c, d = tl.split(high)
    if REVERSE:
        return d, c, b, a
    return a, b, c, d


@triton.jit
def stack_quarters(a, b, c, d, REVERSE: tl.constexpr):
    """Undo :func:`quarters`."""
    rows: tl.constexpr = a.shape[0]
    lines: tl.constexpr = a.shape[1]
    if REVERSE:
        pairs = tl.join(tl.join(d, c), tl.join(b, a))
    else:
        pairs = tl.join(tl.join(a, b), tl.join(c, d))  # [K, L, 2 x 2]: a c, b d
    return tl.reshape(tl.permute(pairs, [3, 2, 0, 1]), [4 * rows, lines])


@triton.jit
def line_of(
    block, channels, others, CHANNELS_LAST: tl.constexpr, FLAT: tl.constexpr, LINES: tl.constexpr
):
    """Find the lines of a program. A line is a channel and a place across the direction of travel.

    Args:
        block: the program's number among those of the same image and direction.
        others: number of places.
        CHANNELS_LAST: whether neighboring lines are of one place, or of one channel.
        FLAT: True lets a block run on into the next place or channel, so that no thread idles.
            False keeps it within one, where Triton can see that neighbors lie side by side.
        LINES: lines of a block.

    Returns:
        [LINES] each: channel and place (int64), and whether there is such a line.
    """
    lanes = tl.arange(0, LINES)
    inner, outer = others, channels
    if CHANNELS_LAST:
        inner, outer = channels, others
    if FLAT:
        first = block.to(tl.int64) * LINES
        row = first // inner
        beyond = (first - row * inner).to(tl.int32) + lanes  # Vectors divide in 32 bits.
        along = beyond % inner
        across = row + beyond // inner
    else:
        blocks_per_row = tl.cdiv(inner, LINES)
        along = (block % blocks_per_row) * LINES + lanes
        across = block // blocks_per_row + tl.zeros_like(lanes)
    exists = (along < inner) & (across < outer)
    along, across = along.to(tl.int64), across.to(tl.int64)
    if CHANNELS_LAST:
        return along, across, exists
    return across, along, exists


@triton.jit
def tile_pointers(lines, stride, first, STEPS: tl.constexpr):
    """Pointers [STEPS, L] to cells from step ``first`` on; ``lines`` [L] point to step 0."""
    steps = (first + tl.arange(0, STEPS)).to(tl.int64)
    return lines[None, :] + steps[:, None] * stride


@triton.jit
def tile_mask(length, first, STEPS: tl.constexpr):
    """Mark [STEPS, L] the cells from step ``first`` on that lie within the line's ``length``."""
    steps = (first + tl.arange(0, STEPS))[:, None]
    return (steps >= 0) & (steps < length[None, :])


@triton.jit
def load_tile(lines, stride, length, first, STEPS: tl.constexpr, STATE: tl.constexpr):
    """Load a tile in the state's type; 0 beyond the lines' ``length``."""
    pointers = tile_pointers(lines, stride, first, STEPS)
    return tl.load(pointers, mask=tile_mask(length, first, STEPS), other=0).to(STATE)


@triton.jit
def store_tile(lines, stride, length, first, tile, STEPS: tl.constexpr):
    """Store a tile's cells within the lines' ``length``, in the type of what ``lines`` point to."""
    pointers = tile_pointers(lines, stride, first, STEPS)
    mask = tile_mask(length, first, STEPS)
    tl.store(pointers, tile.to(lines.dtype.element_ty), mask=mask)
