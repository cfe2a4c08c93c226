"""Triton. One program per sequence, block of steps and block of channels; bound by memory.

On the way back the gradient before the activation is written once. Then every input gathers from
the outputs that read it: no atomic additions, so the result is the same every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import compute_dtype, dense
from longstate.ops._triton import sigmoid
from longstate.ops.short_conv import Inputs

_STEPS, _LANES = 16, 64


@triton.jit
def _inputs(x, taps, s, b, lane, inside, steps, d, past, WIDE: tl.constexpr):
    """Rows of taps and x at positions `s`; zeros where a position is negative."""
    old = (s >= 0) & (s < past)
    new = s >= past
    before = tl.load(
        taps + (b * past + s)[:, None] * d + lane[None, :],
        mask=old[:, None] & inside[None, :], other=0.0,
    )  # fmt: skip
    now = tl.load(
        x + (b * steps + s - past)[:, None] * d + lane[None, :],
        mask=new[:, None] & inside[None, :], other=0.0,
    )  # fmt: skip
    return before.to(WIDE) + now.to(WIDE)


@triton.jit
def _forward(
    x, weight, bias, taps, sources, source_batch, y, steps, d,
    WIDTH: tl.constexpr, SILU: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    inside, within = lane < d, t < steps
    wide = weight.dtype.element_ty
    acc = tl.load(bias + lane, mask=inside, other=0.0)[None, :] + tl.zeros((STEPS, LANES), wide)
    s = t * 0 - 1
    for k in tl.static_range(WIDTH):
        s = tl.load(sources + b * source_batch + t * WIDTH + k, mask=within, other=-1)
        row = _inputs(x, taps, s, b, lane, inside, steps, d, WIDTH - 1, wide)
        acc += row * tl.load(weight + lane * WIDTH + k, mask=inside, other=0.0)[None, :]
    if SILU:
        acc = acc * sigmoid(acc)
    acc = tl.where((s >= 0)[:, None], acc, 0.0)  # the newest input is missing: a masked sample
    at = (b * steps + t)[:, None] * d + lane[None, :]
    tl.store(y + at, acc.to(y.dtype.element_ty), mask=within[:, None] & inside[None, :])


@triton.jit
def _backward_weight(
    grad_y, x, weight, bias, taps, sources, source_batch, grad_acc, grad_weight, grad_bias,
    steps, d,
    WIDTH: tl.constexpr, SILU: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    inside, within = lane < d, t < steps
    wide = weight.dtype.element_ty
    newest = tl.load(sources + b * source_batch + t * WIDTH + WIDTH - 1, mask=within, other=-1)
    at = (b * steps + t)[:, None] * d + lane[None, :]
    here = (newest >= 0)[:, None] & inside[None, :]
    g = tl.load(grad_y + at, mask=here, other=0.0).to(wide)
    if SILU:
        acc = tl.load(bias + lane, mask=inside, other=0.0)[None, :] + tl.zeros((STEPS, LANES), wide)
        for k in tl.static_range(WIDTH):
            s = tl.load(sources + b * source_batch + t * WIDTH + k, mask=within, other=-1)
            row = _inputs(x, taps, s, b, lane, inside, steps, d, WIDTH - 1, wide)
            acc += row * tl.load(weight + lane * WIDTH + k, mask=inside, other=0.0)[None, :]
        gate = sigmoid(acc)
        g = tl.where(here, g * (gate + acc * (gate - gate * gate)), 0.0)
    tl.store(grad_acc + at, g, mask=within[:, None] & inside[None, :])
    part = b * tl.num_programs(1) + tl.program_id(1)
    tl.store(grad_bias + part * d + lane, tl.sum(g, axis=0), mask=inside)
    for k in tl.static_range(WIDTH):
        s = tl.load(sources + b * source_batch + t * WIDTH + k, mask=within, other=-1)
        row = _inputs(x, taps, s, b, lane, inside, steps, d, WIDTH - 1, wide)
        to_weight = tl.sum(tl.where(here, g * row, 0.0), axis=0)
        tl.store(grad_weight + (part * WIDTH + k) * d + lane, to_weight, mask=inside)


@triton.jit
def _backward_input(
    grad_acc, weight, readers, reader_batch, grad, steps, positions, d,
    WIDTH: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    inside, within = lane < d, s < positions
    acc = tl.zeros((STEPS, LANES), weight.dtype.element_ty)
    for k in tl.static_range(WIDTH):
        t = tl.load(readers + b * reader_batch + s * WIDTH + k, mask=within, other=-1)
        g = tl.load(
            grad_acc + (b * steps + t)[:, None] * d + lane[None, :],
            mask=(t >= 0)[:, None] & inside[None, :], other=0.0,
        )  # fmt: skip
        acc += g * tl.load(weight + lane * WIDTH + k, mask=inside, other=0.0)[None, :]
    at = (b * positions + s)[:, None] * d + lane[None, :]
    tl.store(grad + at, acc.to(grad.dtype.element_ty), mask=within[:, None] & inside[None, :])


def _grid(b: int, t: int, d: int) -> tuple[int, int, int]:
    return b, triton.cdiv(t, _STEPS), triton.cdiv(d, _LANES)


def _readers(sources: Tensor, positions: int) -> Tensor:
    """Turn the table round: which output reads a position through tap k; -1 where none does."""
    b, t, width = sources.shape
    time = torch.arange(t, device=sources.device, dtype=sources.dtype)
    # One position more than there are takes the reads of nothing.
    table = sources.new_full((b, positions + 1, width), -1)
    where = torch.where(sources < 0, positions, sources).long()
    table.scatter_(1, where, time[None, :, None].expand(b, t, width).contiguous())
    return table[:, :positions].contiguous()


def _wide(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(x, weight)
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return dense(weight.to(dtype)), dense(bias.to(dtype))


def forward(s: Inputs) -> Tensor:
    b, t, d = s.x.shape
    y = s.x.new_empty(b, t, d)
    sources = dense(s.sources)
    _forward[_grid(b, t, d)](
        dense(s.x), *_wide(s.x, s.weight, s.bias), dense(s.taps), sources,
        sources.stride(0) if len(sources) > 1 else 0, y, t, d,
        WIDTH=s.weight.shape[1], SILU=s.silu, STEPS=_STEPS, LANES=_LANES,
    )  # fmt: skip
    return y


def backward(s: Inputs, grad_y: Tensor) -> dict[str, Tensor]:
    (b, t, d), width = s.x.shape, s.weight.shape[1]
    positions = t + width - 1
    weight, bias = _wide(s.x, s.weight, s.bias)
    sources = dense(s.sources)
    grid = _grid(b, t, d)
    grad_acc = weight.new_empty(b, t, d)
    grad_weight = weight.new_empty(b * grid[1], width, d)
    grad_bias = weight.new_empty(b * grid[1], d)
    _backward_weight[grid](
        dense(grad_y), dense(s.x), weight, bias, dense(s.taps), sources,
        sources.stride(0) if len(sources) > 1 else 0, grad_acc, grad_weight, grad_bias, t, d,
        WIDTH=width, SILU=s.silu, STEPS=_STEPS, LANES=_LANES,
    )  # fmt: skip
    readers = _readers(sources, positions)
    grad = s.x.new_empty(b, positions, d)
    _backward_input[_grid(b, positions, d)](
        grad_acc, weight, readers, readers.stride(0) if len(readers) > 1 else 0,
        grad, t, positions, d, WIDTH=width, STEPS=_STEPS, LANES=_LANES,
    )  # fmt: skip
    return {
        "x": grad[:, width - 1 :].contiguous(),
        "weight": grad_weight.sum(0).T.contiguous().to(s.weight.dtype),
        "bias": grad_bias.sum(0).to(s.weight.dtype if s.bias is None else s.bias.dtype),
        "taps": grad[:, : width - 1].contiguous(),
    }
