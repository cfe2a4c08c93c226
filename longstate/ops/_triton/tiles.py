"""Blocks of 32 channels by all states, for scans whose state is kept per channel.

A program is one sequence and one block of one group. Its state is a tile (states, channels); what
the channels share is a column, what the states share a row.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longstate.ops._triton import Pointer

LANES = 32  # channels per program: one warp


class Functions(NamedTuple):
    constants: Any
    weigh: Any
    advance: Any
    retreat: Any
    finish: Any


class Operands(NamedTuple):
    """The inputs of a scan, or their gradients."""

    v: Pointer  # b, t, d: the input
    w: Pointer  # b, t, d: the weight of a sample, before its bias
    key: Pointer  # b, t, n, or b, t, groups, n
    query: Pointer
    D: Pointer  # d
    bias: Pointer
    z: Pointer  # b, t, d
    h0: Pointer  # b, d, n
    mask: Pointer = None  # b, t
    reset: Pointer = None


class Frame(NamedTuple):
    """A rule, and what scans of all rules have."""

    call: Functions
    rule: Any
    x: Operands  # D and bias are there, and `key` and `query` have groups
    steps: Any
    d: Any
    n: Any
    kept: Pointer  # b, chunks, n, d; None: states are not kept
    GROUPS: Any
    LANES: Any
    STATES: Any  # n, rounded up to a power of 2


class Place(NamedTuple):
    """A block of channels."""

    b: Any
    g: Any
    rows: Any  # before those of this block, where each block has (b, t) of its own
    lane: tl.tensor
    inside: tl.tensor  # channels
    state: tl.tensor
    exists: tl.tensor  # states
    both: tl.tensor  # states by channels
    pair: tl.tensor  # where they are in (d, n)
    tile: tl.tensor  # where they are in (n, d)


class Drive(NamedTuple):
    """What drives a step."""

    w: tl.tensor  # d
    v: tl.tensor  # d
    key: tl.tensor  # n, 1


class Step(NamedTuple):
    """A step of a block."""

    row: Any  # b * steps + t
    at: tl.tensor  # of (b, t, d)
    here: tl.tensor  # channels that have a sample: all or none of a sequence's


@triton.jit
def place(f: Frame) -> Place:
    b = tl.program_id(0).to(tl.int64)
    per = tl.num_programs(1) // f.GROUPS
    g, size = tl.program_id(1) // per, f.d // f.GROUPS
    within = (tl.program_id(1) % per) * f.LANES + tl.arange(0, f.LANES)
    lane, inside = g * size + within, within < size
    state = tl.arange(0, f.STATES)
    exists = state < f.n
    rows = (tl.program_id(1) % per).to(tl.int64) * tl.num_programs(0) * f.steps
    return Place(
        b, g, rows, lane, inside, state, exists, exists[:, None] & inside[None, :],
        lane[None, :] * f.n + state[:, None], state[:, None] * f.d + lane[None, :],
    )  # fmt: skip


@triton.jit
def step(f: Frame, at: Place, t: tl.tensor) -> Step:
    row = at.b * f.steps + t
    here = at.inside
    if f.x.mask is not None:
        here = here & (tl.load(f.x.mask + row) != 0)
    return Step(row, row * f.d + at.lane, here)


@triton.jit
def row(x: tl.tensor, now: Step, like: tl.tensor) -> tl.tensor:
    """Channels of x (b, t, d), in the type of `like`; 0 where there is no sample."""
    return tl.load(x + now.at, mask=now.here, other=0.0).to(like.dtype)


@triton.jit
def vector(x: tl.tensor, at: Place) -> tl.tensor:
    return tl.load(x + at.lane, mask=at.inside, other=0.0)


@triton.jit
def column(f: Frame, x: tl.tensor, at: Place, row: tl.tensor) -> tl.tensor:
    """Where the states of x (b, t, groups, n) are."""
    return x + (row * f.GROUPS + at.g) * f.n + at.state


@triton.jit
def forget(f: Frame, now: Step, h: tl.tensor) -> tl.tensor:
    if f.x.reset is not None:
        h = tl.where(tl.load(f.x.reset + now.row) != 0, 0.0, h)
    return h
