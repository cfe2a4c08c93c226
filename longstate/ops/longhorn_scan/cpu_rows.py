"""The inner loops over 64 channels; every one compiles to full vectors.

`rate` is e, `drive` is e x. In the diagonal update the states are taken one after the other, each
through all steps of a tile. The exact update couples them, so time is the outer loop there.
"""

import numpy as np
from numba import njit

from longstate.ops._threads import KERNEL
from longstate.ops._tiles import LANES
from longstate.ops._vector_math import ROWS, load, sigmoid, store


@njit(**ROWS)
def begin_tile(
    here, lo, hi, x, x_start, x_time, beta, beta_start, beta_time, bias, D, squash, size,
    rate, slope, drive, y,
):  # fmt: skip
    """Rate, its slope in `beta` as given, drive and D x; zeros where nothing is here."""
    one = bias.dtype.type(1)
    for t in range(here.shape[0]):
        if not here[t] or hi - lo < LANES:
            for j in range(LANES):
                rate[t, j], drive[t, j], y[t, j] = 0, 0, 0
        if not here[t]:
            continue
        row = x[x_start + t * x_time + lo : x_start + t * x_time + hi]
        weight = beta[beta_start + t * beta_time + lo : beta_start + t * beta_time + hi]
        for j in range(row.shape[0]):
            w = load(weight, j) + bias[j]
            to_w = one
            if squash:
                w = sigmoid(w)
                to_w = w * (one - w)
            shrink = one / (one + w * size[t])
            rate[t, j] = w * shrink
            slope[t, j] = to_w * shrink * shrink
            drive[t, j] = rate[t, j] * load(row, j)
            y[t, j] = D[j] * load(row, j)


@njit(**ROWS)
def advance(start, stop, rate, drive, k, q, h, y):
    """The diagonal update."""
    one = h.dtype.type(1)
    for i in range(h.shape[0]):
        for t in range(start, stop):
            key, query = k[t, i], q[t, i]
            for j in range(LANES):
                h[i, j] = (one - rate[t, j] * (key * key)) * h[i, j] + drive[t, j] * key
                y[t, j] += query * h[i, j]


@njit(**ROWS)
def advance_keeping(start, stop, rate, drive, k, q, h, y, before):
    """The diagonal update of one state, keeping its values before each step."""
    one = h.dtype.type(1)
    for t in range(start, stop):
        key, query = k[t], q[t]
        for j in range(LANES):
            before[t, j] = h[j]
            h[j] = (one - rate[t, j] * (key * key)) * h[j] + drive[t, j] * key
            y[t, j] += query * h[j]


@njit(**ROWS)
def retreat(
    start, stop, rate, drive, k, q, before, grad_y, grad_h, grad_rate, grad_drive, grad_k, grad_q
):
    """Back through the steps of one state."""
    one = rate.dtype.type(1)
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


@njit(**KERNEL)
def there_and_back(
    edges, segments, fresh, rate, drive, k, q, h, y, before, grad_y,
    grad_h, grad_rate, grad_drive, grad_k, grad_q,
):  # fmt: skip
    """Recompute each state through a tile, then go back. `fresh`: whether a segment starts at 0."""
    for i in range(h.shape[0]):
        for s in range(segments):
            if fresh[s]:
                h[i] = 0
            advance_keeping(
                edges[s], edges[s + 1], rate, drive, k[:, i], q[:, i], h[i], y, before[0]
            )
        for s in range(segments - 1, -1, -1):
            retreat(
                edges[s], edges[s + 1], rate, drive, k[:, i], q[:, i], before[0], grad_y,
                grad_h[i], grad_rate, grad_drive, grad_k[:, i], grad_q[:, i],
            )  # fmt: skip
            if fresh[s]:
                grad_h[i] = 0


@njit(**ROWS)
def advance_exact(start, stop, rate, drive, k, q, h, y, guess):
    """`guess`: a row to work in."""
    for t in range(start, stop):
        for j in range(LANES):
            guess[j] = 0
        for i in range(h.shape[0]):
            key = k[t, i]
            for j in range(LANES):
                guess[j] += key * h[i, j]
        for j in range(LANES):
            guess[j] = drive[t, j] - rate[t, j] * guess[j]
        for i in range(h.shape[0]):
            key, query = k[t, i], q[t, i]
            for j in range(LANES):
                h[i, j] += key * guess[j]
                y[t, j] += query * h[i, j]


@njit(**ROWS)
def advance_exact_keeping(start, stop, rate, drive, k, q, h, y, before, guess, move):
    """Keeps the states before each step (n, t, 64), what they guess, and how far they move."""
    for t in range(start, stop):
        for j in range(LANES):
            guess[t, j] = 0
        for i in range(h.shape[0]):
            key = k[t, i]
            for j in range(LANES):
                before[i, t, j] = h[i, j]
                guess[t, j] += key * h[i, j]
        for j in range(LANES):
            move[t, j] = drive[t, j] - rate[t, j] * guess[t, j]
        for i in range(h.shape[0]):
            key, query = k[t, i], q[t, i]
            for j in range(LANES):
                h[i, j] += key * move[t, j]
                y[t, j] += query * h[i, j]


@njit(**ROWS)
def retreat_exact(
    start, stop, rate, k, q, before, guess, move, grad_y,
    grad_h, grad_rate, grad_drive, grad_k, grad_q, to_guess,
):  # fmt: skip
    """`to_guess`: a row to work in."""
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


@njit(**KERNEL)
def there_and_back_exact(
    edges, segments, fresh, rate, drive, k, q, h, y, before, grad_y,
    grad_h, grad_rate, grad_drive, grad_k, grad_q, guess, move,
):  # fmt: skip
    to_guess = np.empty(LANES, rate.dtype)
    for s in range(segments):
        if fresh[s]:
            h[:] = 0
        advance_exact_keeping(edges[s], edges[s + 1], rate, drive, k, q, h, y, before, guess, move)
    for s in range(segments - 1, -1, -1):
        retreat_exact(
            edges[s], edges[s + 1], rate, k, q, before, guess, move, grad_y,
            grad_h, grad_rate, grad_drive, grad_k, grad_q, to_guess,
        )  # fmt: skip
        if fresh[s]:
            grad_h[:] = 0


@njit(**ROWS)
def finish_back(
    here, lo, hi, x, x_start, x_time, D, rate, slope, grad_rate, grad_drive, grad_y,
    o, o_time, to_x, to_beta, sum_D, sum_bias, grad_size,
):  # fmt: skip
    """Gradients of x, beta and |k|^2, from those of rate, drive and y."""
    for t in range(here.shape[0]):
        row_x = to_x[o + t * o_time + lo : o + t * o_time + hi]
        row_beta = to_beta[o + t * o_time + lo : o + t * o_time + hi]
        to_size = rate.dtype.type(0)
        if not here[t]:
            for j in range(row_x.shape[0]):
                row_x[j], row_beta[j] = 0, 0
            grad_size[t] = to_size
            continue
        row = x[x_start + t * x_time + lo : x_start + t * x_time + hi]
        for j in range(row.shape[0]):
            value = load(row, j)
            to_rate = grad_rate[t, j] + grad_drive[t, j] * value
            to_size -= to_rate * rate[t, j] * rate[t, j]
            weight = to_rate * slope[t, j]
            store(row_x, j, grad_drive[t, j] * rate[t, j] + grad_y[t, j] * D[j])
            store(row_beta, j, weight)
            sum_D[j] += grad_y[t, j] * value
            sum_bias[j] += weight
        grad_size[t] = to_size
