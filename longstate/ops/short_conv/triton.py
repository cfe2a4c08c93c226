"""Triton. One program per sequence, block of steps and block of channels; bound by memory.

On the way back the gradient before the activation is written once. Then every input gathers from
the outputs that read it: no atomic additions, so the result is the same every time.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import compute_dtype, dense
from longstate.ops._triton import Pointer, sigmoid
from longstate.ops.short_conv import Inputs

_STEPS, _LANES = 16, 64


class Frame(NamedTuple):
    """What both directions read."""

    x: Pointer
    taps: Pointer  # b, k - 1, d
    weight: Pointer  # d, k
    bias: Pointer  # d
    sources: Pointer  # b or 1, t, k
    source_batch: Any  # 0 when all sequences share their sources
    steps: Any
    d: Any


class Place(NamedTuple):
    """A block of steps and channels."""

    b: Any
    t: tl.tensor
    within: tl.tensor  # steps that exist
    lane: tl.tensor
    inside: tl.tensor  # channels that exist


@triton.jit
def _place(steps: tl.tensor, d: tl.tensor, STEPS: tl.constexpr, LANES: tl.constexpr) -> Place:
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    return Place(tl.program_id(0).to(tl.int64), t, t < steps, lane, lane < d)


@triton.jit
def _rows(x: tl.tensor, row: tl.tensor, here: tl.tensor, d: tl.tensor, at: Place) -> tl.tensor:
    """Rows of a matrix (..., d); zeros where not `here`."""
    place = x + row[:, None] * d + at.lane[None, :]
    return tl.load(place, mask=here[:, None] & at.inside[None, :], other=0.0)


@triton.jit
def _write(x: tl.tensor, row: tl.tensor, value: tl.tensor, d: tl.tensor, at: Place) -> None:
    place, here = x + row[:, None] * d + at.lane[None, :], at.within[:, None] & at.inside[None, :]
    tl.store(place, value.to(x.dtype.element_ty), mask=here)


@triton.jit
def _vector(x: tl.tensor, lane: tl.tensor, at: Place) -> tl.tensor:
    return tl.load(x + lane, mask=at.inside, other=0.0)[None, :]


@triton.jit
def _source(f: Frame, at: Place, k: tl.constexpr, WIDTH: tl.constexpr) -> tl.tensor:
    """Where tap `k` reads; -1: nowhere. Where the last tap is there is the sample itself."""
    place = f.sources + at.b * f.source_batch + at.t * WIDTH + k
    return tl.load(place, mask=at.within, other=-1)


@triton.jit
def _inputs(f: Frame, at: Place, k: tl.constexpr, WIDTH: tl.constexpr) -> tl.tensor:
    """What tap `k` reads, from the taps or from x."""
    s, past = _source(f, at, k, WIDTH), WIDTH - 1
    wide = f.weight.dtype.element_ty
    before = _rows(f.taps, at.b * past + s, (s >= 0) & (s < past), f.d, at)
    now = _rows(f.x, at.b * f.steps + s - past, s >= past, f.d, at)
    return before.to(wide) + now.to(wide)


@triton.jit
def _convolve(
    f: Frame, at: Place, WIDTH: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr
) -> tl.tensor:
    zeros = tl.zeros((STEPS, LANES), f.weight.dtype.element_ty)
    acc = _vector(f.bias, at.lane, at) + zeros
    for k in tl.static_range(WIDTH):
        acc += _inputs(f, at, k, WIDTH) * _vector(f.weight, at.lane * WIDTH + k, at)
    return acc


@triton.jit
def _forward(
    f: Frame, y: tl.tensor,
    WIDTH: tl.constexpr, SILU: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr,
) -> None:  # fmt: skip
    at = _place(f.steps, f.d, STEPS, LANES)
    acc = _convolve(f, at, WIDTH, STEPS, LANES)
    if SILU:
        acc = acc * sigmoid(acc)
    present = _source(f, at, WIDTH - 1, WIDTH) >= 0  # not masked
    _write(y, at.b * f.steps + at.t, tl.where(present[:, None], acc, 0.0), f.d, at)


@triton.jit
def _backward_weight(
    f: Frame, grad_y: tl.tensor, grad_acc: tl.tensor, grad_weight: tl.tensor, grad_bias: tl.tensor,
    WIDTH: tl.constexpr, SILU: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr,
) -> None:  # fmt: skip
    at = _place(f.steps, f.d, STEPS, LANES)
    present = _source(f, at, WIDTH - 1, WIDTH) >= 0
    here = present[:, None] & at.inside[None, :]
    g = _rows(grad_y, at.b * f.steps + at.t, present, f.d, at).to(f.weight.dtype.element_ty)
    if SILU:
        acc = _convolve(f, at, WIDTH, STEPS, LANES)
        gate = sigmoid(acc)
        g = tl.where(here, g * (gate + acc * (gate - gate * gate)), 0.0)
    _write(grad_acc, at.b * f.steps + at.t, g, f.d, at)
    part = at.b * tl.num_programs(1) + tl.program_id(1)
    tl.store(grad_bias + part * f.d + at.lane, tl.sum(g, axis=0), mask=at.inside)
    for k in tl.static_range(WIDTH):
        to_weight = tl.sum(tl.where(here, g * _inputs(f, at, k, WIDTH), 0.0), axis=0)
        tl.store(grad_weight + (part * WIDTH + k) * f.d + at.lane, to_weight, mask=at.inside)


class Back(NamedTuple):
    """What the gradient of the inputs reads."""

    grad_acc: Pointer  # b, t, d
    weight: Pointer
    readers: Pointer  # b or 1, positions, k
    reader_batch: Any
    steps: Any
    positions: Any
    d: Any


@triton.jit
def _backward_input(
    f: Back, grad: tl.tensor, WIDTH: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr
) -> None:
    at = _place(f.positions, f.d, STEPS, LANES)
    acc = tl.zeros((STEPS, LANES), f.weight.dtype.element_ty)
    for k in tl.static_range(WIDTH):
        place = f.readers + at.b * f.reader_batch + at.t * WIDTH + k
        t = tl.load(place, mask=at.within, other=-1)
        g = _rows(f.grad_acc, at.b * f.steps + t, t >= 0, f.d, at)
        acc += g * _vector(f.weight, at.lane * WIDTH + k, at)
    _write(grad, at.b * f.positions + at.t, acc, f.d, at)


def _grid(b: int, t: int, d: int) -> tuple[int, int, int]:
    return b, triton.cdiv(t, _STEPS), triton.cdiv(d, _LANES)


def _readers(sources: Tensor, positions: int) -> Tensor:
    """The inverse of `sources`: which output reads a position as tap k; -1 where none does."""
    b, t, width = sources.shape
    time = torch.arange(t, device=sources.device, dtype=sources.dtype)
    # One more position receives the reads of taps that read nothing.
    table = sources.new_full((b, positions + 1, width), -1)
    where = torch.where(sources < 0, positions, sources).long()
    table.scatter_(1, where, time[None, :, None].expand(b, t, width).contiguous())
    return table[:, :positions].contiguous()


def _frame(s: Inputs) -> tuple[Frame, dict[str, Any]]:
    """What both directions read, and their options."""
    (_, t, d), dtype, sources = s.x.shape, compute_dtype(s.x, s.weight), dense(s.sources)
    weight = dense(s.weight.to(dtype))
    bias = weight.new_zeros(d) if s.bias is None else dense(s.bias.to(dtype))
    frame = Frame(dense(s.x), dense(s.taps), weight, bias, sources, _stride(sources), t, d)
    options = {"WIDTH": s.weight.shape[1], "STEPS": _STEPS, "LANES": _LANES}
    return frame, options


def _stride(x: Tensor) -> int:
    return x.stride(0) if len(x) > 1 else 0


def forward(s: Inputs) -> Tensor:
    y = s.x.new_empty(s.x.shape)
    frame, options = _frame(s)
    _forward[_grid(*s.x.shape)](frame, y, SILU=s.silu, **options)
    return y


def backward(s: Inputs, grad_y: Tensor) -> dict[str, Tensor]:
    (b, t, d), width = s.x.shape, s.weight.shape[1]
    (frame, options), positions, grid = _frame(s), t + width - 1, _grid(b, t, d)
    grad_acc = frame.weight.new_empty(b, t, d)
    grad_weight = frame.weight.new_empty(b * grid[1], width, d)
    grad_bias = frame.weight.new_empty(b * grid[1], d)
    _backward_weight[grid](
        frame, dense(grad_y), grad_acc, grad_weight, grad_bias, SILU=s.silu, **options
    )
    readers, grad = _readers(frame.sources, positions), s.x.new_empty(b, positions, d)
    back = Back(grad_acc, frame.weight, readers, _stride(readers), t, positions, d)
    _backward_input[_grid(b, positions, d)](back, grad, **options)
    return {
        "x": grad[:, width - 1 :].contiguous(),
        "weight": grad_weight.sum(0).T.contiguous().to(s.weight.dtype),
        "bias": grad_bias.sum(0).to(s.weight.dtype if s.bias is None else s.bias.dtype),
        "taps": grad[:, : width - 1].contiguous(),
    }
