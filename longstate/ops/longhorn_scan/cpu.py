"""Numba: the two rules of Longhorn's scan, for the engine in `ops/_numba/scan.py`.

    rate = beta / (1 + beta |k|^2)
    diagonal:  h = (1 - rate k^2) h + (rate x) k
    exact:     h = h + (rate x - rate (k h)) k
    y = q h + D x

In the diagonal update the states are processed one after the other, each through all steps of a
tile. The exact update couples them, so each step processes all states.
"""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from longstate.ops._layout import CHUNK, Rows, array, on_large_pages, rows
from longstate.ops._numba.compiled import inlined, kernel
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import load, store
from longstate.ops._numba.scan import frame_of, over_batch, rule, scan, scan_back, sums
from longstate.ops._numba.tiles import LANES, Frame, Place, row, vector, workspace
from longstate.ops.longhorn_scan import Inputs


class Given(NamedTuple):
    """What both rules read."""

    x: Rows
    beta: Rows
    k: np.ndarray  # b, t, n
    q: np.ndarray
    size: np.ndarray  # b, t: |k|^2
    D: np.ndarray  # blocks, 64
    beta_bias: np.ndarray
    squash: bool


class Tiles(NamedTuple):
    """Of each step and channel."""

    rate: np.ndarray
    drive: np.ndarray  # rate x
    slope: np.ndarray  # of the rate in beta as given
    move: np.ndarray  # exact: how far the state moves along the key


class Gradients(NamedTuple):
    x: Rows
    beta: Rows
    k: np.ndarray  # blocks, b, t, n
    q: np.ndarray
    size: np.ndarray  # blocks, b, t
    D: np.ndarray  # b blocks, 64
    beta_bias: np.ndarray


@kernel
def tiles(rule: Any) -> Tiles:
    x = workspace(4, CHUNK, rule.k)
    return Tiles(x[0], x[1], x[2], x[3])


@inlined
def begin(rule: Any, at: Place, x: Tiles, y: np.ndarray) -> None:
    rate, drive, slope = x.rate, x.drive, x.slope
    bias, D, size = rule.beta_bias[at.w], rule.D[at.w], rule.size[at.b, at.first : at.last]
    one = bias.dtype.type(1)
    for t in range(at.here.shape[0]):
        if not at.here[t] or at.hi - at.lo < LANES:
            for j in range(LANES):
                rate[t, j], drive[t, j], y[t, j] = 0, 0, 0
        if not at.here[t]:
            continue
        value, weight = row(rule.x, at, t), row(rule.beta, at, t)
        for j in range(value.shape[0]):
            w = load(weight, j) + bias[j]
            to_w = one
            if rule.squash:
                w = sigmoid(w)
                to_w = w * (one - w)
            shrink = one / (one + w * size[t])
            rate[t, j] = w * shrink
            slope[t, j] = to_w * shrink * shrink
            drive[t, j] = rate[t, j] * load(value, j)
            y[t, j] = D[j] * load(value, j)


@inlined
def finish(
    rule: Any, at: Place, x: Tiles, kept: Any, grad_y: np.ndarray, grad_x: Tiles, grads: Gradients
) -> None:
    rate, slope, grad_rate, grad_drive = x.rate, x.slope, grad_x.rate, grad_x.drive
    D, grad_size = rule.D[at.w], grads.size[at.w, at.b, at.first : at.last]
    sum_D, sum_bias = kept.sum_D, kept.sum_bias
    for j in range(LANES):
        sum_D[j], sum_bias[j] = 0, 0
    for t in range(at.here.shape[0]):
        row_x, row_beta = row(grads.x, at, t), row(grads.beta, at, t)
        to_size = rate.dtype.type(0)
        if not at.here[t]:
            for j in range(row_x.shape[0]):
                row_x[j], row_beta[j] = 0, 0
            grad_size[t] = to_size
            continue
        given = row(rule.x, at, t)
        for j in range(given.shape[0]):
            value = load(given, j)
            to_rate = grad_rate[t, j] + grad_drive[t, j] * value
            to_size -= to_rate * rate[t, j] * rate[t, j]
            weight = to_rate * slope[t, j]
            store(row_x, j, grad_drive[t, j] * rate[t, j] + grad_y[t, j] * D[j])
            store(row_beta, j, weight)
            sum_D[j] += grad_y[t, j] * value
            sum_bias[j] += weight
        grad_size[t] = to_size
    total_D, total_bias = grads.D[at.block], grads.beta_bias[at.block]
    for j in range(LANES):
        total_D[j] += sum_D[j]
        total_bias[j] += sum_bias[j]


class KeptDiagonal(NamedTuple):
    before: np.ndarray  # states before each step
    sum_D: np.ndarray  # sums over a tile
    sum_bias: np.ndarray


@rule(coupled=False, tiles=tiles, begin=begin, finish=finish)
class Diagonal(Given):
    @kernel
    def keep(rule: "Diagonal") -> KeptDiagonal:
        x = workspace(2, CHUNK, rule.k)
        return KeptDiagonal(x[0], x[1, 0], x[1, 1])

    @inlined
    def advance(
        rule: "Diagonal", at: Place, i: int, start: int, stop: int, x: Tiles, h: np.ndarray,
        y: np.ndarray, kept: KeptDiagonal | None,
    ) -> None:  # fmt: skip
        rate, drive, one = x.rate, x.drive, h.dtype.type(1)
        k, q = rule.k[at.b, at.first : at.last, i], rule.q[at.b, at.first : at.last, i]
        for t in range(start, stop):
            key, query = k[t], q[t]
            for j in range(LANES):
                if kept is not None:
                    kept.before[t, j] = h[j]
                h[j] = (one - rate[t, j] * (key * key)) * h[j] + drive[t, j] * key
                y[t, j] += query * h[j]

    @inlined
    def retreat(
        rule: "Diagonal", at: Place, i: int, start: int, stop: int, x: Tiles, kept: KeptDiagonal,
        grad_y: np.ndarray, grad_h: np.ndarray, grad_x: Tiles, grads: Gradients,
    ) -> None:  # fmt: skip
        rate, drive, grad_rate, grad_drive = x.rate, x.drive, grad_x.rate, grad_x.drive
        k, q = rule.k[at.b, at.first : at.last, i], rule.q[at.b, at.first : at.last, i]
        grad_k = grads.k[at.w, at.b, at.first : at.last, i]
        grad_q = grads.q[at.w, at.b, at.first : at.last, i]
        before, one = kept.before, rate.dtype.type(1)
        for t in range(stop - 1, start - 1, -1):
            key, query = k[t], q[t]
            through_drive = rate.dtype.type(0)
            through_rate = rate.dtype.type(0)
            sum_q = rate.dtype.type(0)
            for j in range(LANES):
                decay = one - rate[t, j] * (key * key)
                g = grad_h[j] + query * grad_y[t, j]
                sum_q += grad_y[t, j] * (decay * before[t, j] + drive[t, j] * key)
                to_decay = g * before[t, j]
                through_rate += to_decay * rate[t, j]
                through_drive += g * drive[t, j]
                grad_rate[t, j] -= to_decay * (key * key)
                grad_drive[t, j] += g * key
                grad_h[j] = g * decay
            grad_k[t] = through_drive - (key + key) * through_rate
            grad_q[t] = sum_q


class KeptExact(NamedTuple):
    before: np.ndarray  # n, t, 64: states before each step
    guess: np.ndarray  # t, 64: k h
    to_guess: np.ndarray  # 64: gradient of the guess, at one step
    sum_D: np.ndarray  # sums over a tile
    sum_bias: np.ndarray


@rule(coupled=True, tiles=tiles, begin=begin, finish=finish)
class Exact(Given):
    @kernel
    def keep(rule: "Exact") -> KeptExact:
        x = workspace(2, CHUNK, rule.k)
        before = workspace(rule.k.shape[2], CHUNK, rule.k)
        return KeptExact(before, x[0], x[1, 0], x[1, 1], x[1, 2])

    @inlined
    def advance(
        rule: "Exact", at: Place, part: int, start: int, stop: int, x: Tiles, h: np.ndarray,
        y: np.ndarray, kept: KeptExact | None,
    ) -> None:  # fmt: skip
        rate, drive, move = x.rate, x.drive, x.move
        k, q = rule.k[at.b, at.first : at.last], rule.q[at.b, at.first : at.last]
        for t in range(start, stop):
            for j in range(LANES):
                move[t, j] = 0
            for i in range(h.shape[0]):
                key = k[t, i]
                for j in range(LANES):
                    if kept is not None:
                        kept.before[i, t, j] = h[i, j]
                    move[t, j] += key * h[i, j]
            if kept is not None:
                for j in range(LANES):
                    kept.guess[t, j] = move[t, j]
            for j in range(LANES):
                move[t, j] = drive[t, j] - rate[t, j] * move[t, j]
            for i in range(h.shape[0]):
                key, query = k[t, i], q[t, i]
                for j in range(LANES):
                    h[i, j] += key * move[t, j]
                    y[t, j] += query * h[i, j]

    @inlined
    def retreat(
        rule: "Exact", at: Place, part: int, start: int, stop: int, x: Tiles, kept: KeptExact,
        grad_y: np.ndarray, grad_h: np.ndarray, grad_x: Tiles, grads: Gradients,
    ) -> None:  # fmt: skip
        rate, grad_rate, grad_drive = x.rate, grad_x.rate, grad_x.drive
        before, guess, move, to_guess = kept.before, kept.guess, x.move, kept.to_guess
        k, q = rule.k[at.b, at.first : at.last], rule.q[at.b, at.first : at.last]
        grad_k = grads.k[at.w, at.b, at.first : at.last]
        grad_q = grads.q[at.w, at.b, at.first : at.last]
        for t in range(stop - 1, start - 1, -1):
            for i in range(grad_h.shape[0]):
                key, query = k[t, i], q[t, i]
                for j in range(LANES):
                    grad_h[i, j] += query * grad_y[t, j]
                    grad_drive[t, j] += key * grad_h[i, j]
            for j in range(LANES):
                grad_rate[t, j] -= grad_drive[t, j] * guess[t, j]
                to_guess[j] = rate[t, j] * grad_drive[t, j]
            for i in range(grad_h.shape[0]):
                key = k[t, i]
                sum_k = rate.dtype.type(0)
                sum_q = rate.dtype.type(0)
                for j in range(LANES):
                    sum_k += grad_h[i, j] * move[t, j] - to_guess[j] * before[i, t, j]
                    sum_q += grad_y[t, j] * (before[i, t, j] + key * move[t, j])
                    grad_h[i, j] -= key * to_guess[j]
                grad_k[t, i], grad_q[t, i] = sum_k, sum_q


def _rule(s: Inputs) -> tuple[Diagonal | Exact, Frame]:
    d = s.x.shape[2]
    made = (Exact if s.exact else Diagonal)(
        rows(s.x), rows(s.beta), array(s.k), array(s.q), array(s.size),
        vector(s.D, d, s.k), vector(s.beta_bias, d, s.k), s.beta_sigmoid,
    )  # fmt: skip
    return made, frame_of(s.x, s.z, s.mask, s.reset)


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    return scan(*_rule(s), s.x, s.h0, s.keep)


def backward(
    s: Inputs, states: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    made, frame = _rule(s)
    (b, t, d), n = s.x.shape, s.k.shape[2]
    grad_x, grad_beta = (on_large_pages(v.new_empty(b, t, d)) for v in (s.x, s.beta))
    grad_k, grad_q = s.k.new_empty(2, frame.per, b, t, n)
    grad_size = s.k.new_empty(grad_k.shape[:3])
    grad_D, grad_bias = sums(frame, b), sums(frame, b)
    arrays = (v.numpy() for v in (grad_k, grad_q, grad_size, grad_D, grad_bias))
    grad_z, grad_h0 = scan_back(
        made, frame, s.x, s.z, states, grad_y, grad_last,
        Gradients(rows(grad_x), rows(grad_beta), *arrays),
    )  # fmt: skip
    return {
        "x": grad_x,
        "beta": grad_beta,
        "k": grad_k.sum(0),
        "q": grad_q.sum(0),
        "size": grad_size.sum(0),
        "D": over_batch(grad_D, frame, b, s.k if s.D is None else s.D),
        "z": grad_z,
        "h0": grad_h0,
        "beta_bias": over_batch(grad_bias, frame, b, s.k if s.beta_bias is None else s.beta_bias),
    }
