"""Numba: the rule of the selective scan, for the engine in `ops/_numba/scan.py`.

    h = exp(dt A) h + (dt u) B
    y = C h + D u

States are processed one after the other, each through all steps of a tile: its decay rate and
value are loaded once, and each step reads one number of B and one of C. The decay is computed as
2^(dt A'), A' = A log2(e).
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import CHUNK, Rows, on_large_pages, rows
from longstate.ops._numba.compiled import inlined, kernel
from longstate.ops._numba.math import LN2, exp2_product, sigmoid, softplus
from longstate.ops._numba.rows import load, store
from longstate.ops._numba.scan import frame_of, over_batch, rule, scan, scan_back, sums
from longstate.ops._numba.tiles import (
    LANES,
    Frame,
    Place,
    by_group,
    row,
    tile,
    vector,
    workspace,
)  # fmt: skip
from longstate.ops.selective_scan import Inputs


class Tiles(NamedTuple):
    """Of each step and channel."""

    dt: np.ndarray  # after its bias and softplus
    du: np.ndarray  # dt u


class Kept(NamedTuple):
    decay: np.ndarray  # exp(dt A)
    decayed: np.ndarray  # exp(dt A) h
    sum_A: np.ndarray  # sums over a tile
    sum_D: np.ndarray
    sum_bias: np.ndarray


class Gradients(NamedTuple):
    u: Rows
    dt: Rows
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    dt_bias: np.ndarray


@rule()
class Selective(NamedTuple):
    u: Rows
    dt: Rows
    A: np.ndarray  # blocks, n, 64; over ln 2
    B: np.ndarray  # b, t, g, n
    C: np.ndarray
    D: np.ndarray  # blocks, 64
    dt_bias: np.ndarray
    smooth: bool

    @kernel
    def tiles(rule: "Selective") -> Tiles:
        x = workspace(2, CHUNK, rule.A)
        return Tiles(x[0], x[1])

    @kernel
    def keep(rule: "Selective") -> Kept:
        x = workspace(3, CHUNK, rule.A)
        return Kept(x[0], x[1], workspace(1, rule.A.shape[1], rule.A)[0], x[2, 0], x[2, 1])

    @inlined
    def begin(rule: "Selective", at: Place, x: Tiles, y: np.ndarray) -> None:
        dt, du = x.dt, x.du
        bias, D = rule.dt_bias[at.w], rule.D[at.w]
        for t in range(at.here.shape[0]):
            if not at.here[t] or at.hi - at.lo < LANES:
                for j in range(LANES):
                    dt[t, j], du[t, j], y[t, j] = 0, 0, 0
            if not at.here[t]:
                continue
            value, step = row(rule.u, at, t), row(rule.dt, at, t)
            if rule.smooth:
                for j in range(value.shape[0]):
                    dt[t, j] = softplus(load(step, j) + bias[j])
                    du[t, j] = dt[t, j] * load(value, j)
                    y[t, j] = D[j] * load(value, j)
            else:
                for j in range(value.shape[0]):
                    dt[t, j] = load(step, j) + bias[j]
                    du[t, j] = dt[t, j] * load(value, j)
                    y[t, j] = D[j] * load(value, j)

    @inlined
    def advance(
        rule: "Selective", at: Place, i: int, start: int, stop: int, x: Tiles, h: np.ndarray,
        y: np.ndarray, kept: Kept | None,
    ) -> None:  # fmt: skip
        dt, du, A = x.dt, x.du, rule.A[at.w, i]
        B, C = rule.B[at.b, at.first : at.last, at.g, i], rule.C[at.b, at.first : at.last, at.g, i]
        for t in range(start, stop):
            b, c = B[t], C[t]
            for j in range(LANES):
                decay = exp2_product(dt[t, j], A[j])
                decayed = decay * h[j]
                h[j] = decayed + du[t, j] * b
                y[t, j] += c * h[j]
                if kept is not None:
                    kept.decay[t, j], kept.decayed[t, j] = decay, decayed

    @inlined
    def retreat(
        rule: "Selective", at: Place, i: int, start: int, stop: int, x: Tiles, kept: Kept,
        grad_y: np.ndarray, grad_h: np.ndarray, grad_x: Tiles, grads: Gradients,
    ) -> None:  # fmt: skip
        """The gradient of dt is that through the decay, over ln 2."""
        dt, du, A = x.dt, x.du, rule.A[at.w, i]
        grad_dt, grad_du, grad_A = grad_x.dt, grad_x.du, kept.sum_A[i]
        decay, decayed = kept.decay, kept.decayed
        B, C = rule.B[at.b, at.first : at.last, at.g, i], rule.C[at.b, at.first : at.last, at.g, i]
        grad_B = grads.B[at.k, at.b, at.first : at.last, at.g, i]
        grad_C = grads.C[at.k, at.b, at.first : at.last, at.g, i]
        for t in range(stop - 1, start - 1, -1):
            b, c = B[t], C[t]
            sum_b = A.dtype.type(0)
            sum_c = A.dtype.type(0)
            for j in range(LANES):
                g = grad_h[j] + c * grad_y[t, j]
                sum_b += g * du[t, j]
                sum_c += grad_y[t, j] * (decayed[t, j] + du[t, j] * b)
                grad_du[t, j] += g * b
                through_decay = g * decayed[t, j]
                grad_A[j] += through_decay * dt[t, j]
                grad_dt[t, j] += through_decay * A[j]
                grad_h[j] = g * decay[t, j]
            grad_B[t], grad_C[t] = sum_b, sum_c

    @inlined
    def finish(
        rule: "Selective", at: Place, x: Tiles, kept: Kept, grad_y: np.ndarray, grad_x: Tiles,
        grads: Gradients,
    ) -> None:  # fmt: skip
        dt, grad_dt, grad_du = x.dt, grad_x.dt, grad_x.du
        bias, D = rule.dt_bias[at.w], rule.D[at.w]
        sum_D, sum_bias = kept.sum_D, kept.sum_bias
        for j in range(LANES):
            sum_D[j], sum_bias[j] = 0, 0
        for t in range(at.here.shape[0]):
            row_u, row_dt = row(grads.u, at, t), row(grads.dt, at, t)
            if not at.here[t]:
                for j in range(row_u.shape[0]):
                    row_u[j], row_dt[j] = 0, 0
                continue
            value, step = row(rule.u, at, t), row(rule.dt, at, t)
            for j in range(value.shape[0]):
                u = load(value, j)
                to_step = grad_dt[t, j] * dt.dtype.type(LN2) + grad_du[t, j] * u
                if rule.smooth:
                    to_step *= sigmoid(load(step, j) + bias[j])
                store(row_u, j, grad_du[t, j] * dt[t, j] + grad_y[t, j] * D[j])
                store(row_dt, j, to_step)
                sum_D[j] += grad_y[t, j] * u
                sum_bias[j] += to_step
        total_D, total_bias, total_A = grads.D[at.block], grads.dt_bias[at.block], grads.A[at.block]
        for j in range(LANES):
            total_D[j] += sum_D[j]
            total_bias[j] += sum_bias[j]
        for i in range(total_A.shape[0]):
            for j in range(LANES):
                total_A[i, j] += kept.sum_A[i, j]
                kept.sum_A[i, j] = 0


def _rule(s: Inputs) -> tuple[Any, Frame]:
    (b, t, d), groups = s.u.shape, s.groups
    # of what is constant, ones: its values are the rows of `cpu_constant`
    B, C = (
        x.new_ones(1, 1, x.shape[1]).expand(b, t, -1) if x.dim() == 2 else x for x in (s.B, s.C)
    )
    made = Selective(
        rows(s.u), rows(s.dt), tile(s.A.detach() / LN2, groups).numpy(),
        by_group(B, groups), by_group(C, groups),
        vector(s.D, d, s.A, groups), vector(s.dt_bias, d, s.A, groups), s.dt_softplus,
    )  # fmt: skip
    frame = frame_of(s.u, s.z, s.mask, s.reset, groups)
    if s.constant:
        from longstate.ops.selective_scan.cpu_constant import with_rows

        return with_rows(made, s.B, s.C, d, groups), frame
    return made, frame


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    return scan(*_rule(s), s.u, s.h0.to(s.A.dtype), s.keep)


def backward(
    s: Inputs, states: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    made, frame = _rule(s)
    (b, t, d), n = s.u.shape, s.A.shape[1]
    grad_u, grad_dt = (on_large_pages(x.new_empty(b, t, d)) for x in (s.u, s.dt))
    grad_B = s.A.new_empty(frame.per, b, t, frame.groups, n)
    grad_C = torch.empty_like(grad_B)
    grad_A, grad_D, grad_bias = sums(frame, b, n), sums(frame, b), sums(frame, b)
    arrays = (x.numpy() for x in (grad_A, grad_B, grad_C, grad_D, grad_bias))
    own = Gradients(rows(grad_u), rows(grad_dt), *arrays)
    grads: Any = own
    row_B = row_C = grad_A
    if s.constant:
        row_B, row_C = sums(frame, b, n), sums(frame, b, n)
        from longstate.ops.selective_scan.cpu_constant import RowGradients

        grads = RowGradients(*own, row_B.numpy(), row_C.numpy())
    grad_z, grad_h0 = scan_back(made, frame, s.u, s.z, states, grad_y, grad_last, grads)

    def of_steering(grad: Tensor, row: Tensor, x: Tensor) -> Tensor:
        return over_batch(row, frame, b, x) if x.dim() == 2 else _like(grad, x)

    return {
        "u": grad_u,
        "dt": grad_dt,
        "A": over_batch(grad_A, frame, b, s.A),
        "B": of_steering(grad_B, row_B, s.B),
        "C": of_steering(grad_C, row_C, s.C),
        "D": over_batch(grad_D, frame, b, s.A if s.D is None else s.D),
        "z": grad_z,
        "h0": grad_h0,
        "dt_bias": over_batch(grad_bias, frame, b, s.A if s.dt_bias is None else s.dt_bias),
    }


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient in the form of `x`, from (blocks, b, t, groups, n)."""
    grad = grad.sum(0)
    if x.dim() == 3:
        return grad.sum(2).to(x.dtype)
    return (grad if x.shape[2] == grad.shape[2] else grad.sum(2, keepdim=True)).to(x.dtype)
