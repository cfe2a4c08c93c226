"""Numba: the rule of the selective scan where B, C or both are constant in time.

They then differ from channel to channel, B (d, n): B[t] row_B replaces B[t], and C[t] row_C
replaces C[t]. For a constant B, B[t] is 1; otherwise row_B is 1; likewise for C. Everything else is
as in `cpu.py`.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from longstate.ops._layout import Rows
from longstate.ops._numba.compiled import inlined
from longstate.ops._numba.math import exp2_product
from longstate.ops._numba.scan import rule
from longstate.ops._numba.tiles import LANES, Place, tile
from longstate.ops.selective_scan.cpu import Kept, Selective, Tiles


class RowGradients(NamedTuple):
    u: Rows
    dt: Rows
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    dt_bias: np.ndarray
    row_B: np.ndarray  # sequences and blocks, n, 64; in float64
    row_C: np.ndarray


@rule(
    tiles=Selective.tiles, begin=Selective.begin, keep=Selective.keep, finish=Selective.finish
)  # fmt: skip
class Constant(NamedTuple):
    u: Rows
    dt: Rows
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    dt_bias: np.ndarray
    smooth: bool
    row_B: np.ndarray  # blocks, n, 64
    row_C: np.ndarray

    @inlined
    def advance(
        rule: "Constant", at: Place, i: int, start: int, stop: int, x: Tiles, h: np.ndarray,
        y: np.ndarray, kept: Kept | None,
    ) -> None:  # fmt: skip
        dt, du, A = x.dt, x.du, rule.A[at.w, i]
        B, C = rule.B[at.b, at.first : at.last, at.g, i], rule.C[at.b, at.first : at.last, at.g, i]
        row_B, row_C = rule.row_B[at.w, i], rule.row_C[at.w, i]
        for t in range(start, stop):
            b, c = B[t], C[t]
            for j in range(LANES):
                decay = exp2_product(dt[t, j], A[j])
                decayed = decay * h[j]
                h[j] = decayed + du[t, j] * (b * row_B[j])
                y[t, j] += c * row_C[j] * h[j]
                if kept is not None:
                    kept.decay[t, j], kept.decayed[t, j] = decay, decayed

    @inlined
    def retreat(
        rule: "Constant", at: Place, i: int, start: int, stop: int, x: Tiles, kept: Kept,
        grad_y: np.ndarray, grad_h: np.ndarray, grad_x: Tiles, grads: RowGradients,
    ) -> None:  # fmt: skip
        dt, du, A = x.dt, x.du, rule.A[at.w, i]
        grad_dt, grad_du, grad_A = grad_x.dt, grad_x.du, kept.sum_A[i]
        decay, decayed = kept.decay, kept.decayed
        B, C = rule.B[at.b, at.first : at.last, at.g, i], rule.C[at.b, at.first : at.last, at.g, i]
        row_B, row_C = rule.row_B[at.w, i], rule.row_C[at.w, i]
        grad_B = grads.B[at.k, at.b, at.first : at.last, at.g, i]
        grad_C = grads.C[at.k, at.b, at.first : at.last, at.g, i]
        grad_row_B, grad_row_C = grads.row_B[at.block, i], grads.row_C[at.block, i]
        for t in range(stop - 1, start - 1, -1):
            b, c = B[t], C[t]
            sum_b = A.dtype.type(0)
            sum_c = A.dtype.type(0)
            for j in range(LANES):
                g = grad_h[j] + c * row_C[j] * grad_y[t, j]
                to_b = g * du[t, j]
                to_c = grad_y[t, j] * (decayed[t, j] + du[t, j] * (b * row_B[j]))
                sum_b += to_b  # used only where the row is 1, as the row's is where b is 1
                sum_c += to_c
                grad_row_B[j] += to_b
                grad_row_C[j] += to_c
                grad_du[t, j] += g * b * row_B[j]
                through_decay = g * decayed[t, j]
                grad_A[j] += through_decay * dt[t, j]
                grad_dt[t, j] += through_decay * A[j]
                grad_h[j] = g * decay[t, j]
            grad_B[t], grad_C[t] = sum_b, sum_c


def with_rows(made: Selective, B: Tensor, C: Tensor, d: int, groups: int) -> Constant:
    """The rule for B and C, of which at least one is (d, n)."""
    ones = B.new_ones(d, B.shape[-1])
    rows = (x.detach() if x.dim() == 2 else ones for x in (B, C))
    return Constant(*made, *(tile(x, groups).numpy() for x in rows))
