"""The inner loops over 64 channels; every one compiles to full vectors.

States are taken one after the other, each through all steps of a tile: its decay and value stay
where they are, and what differs from step to step is one number for B and one for C. The decay is
computed as 2^(dt A'), A' = A log2(e).
"""

import numpy as np
from numba import njit

from longstate.ops._threads import KERNEL
from longstate.ops._tiles import LANES
from longstate.ops._vector_math import LN2, ROWS, exp2_product, load, sigmoid, softplus, store


@njit(**ROWS)
def begin_tile(
    here, lo, hi, u, u_start, u_time, dt, dt_start, dt_time, bias, D, smooth,
    delta, du, y,
):  # fmt: skip
    """dt with its bias and softplus, dt u, and D u; zeros where nothing is here."""
    for t in range(here.shape[0]):
        if not here[t] or hi - lo < LANES:
            for j in range(LANES):
                delta[t, j], du[t, j], y[t, j] = 0, 0, 0
        if not here[t]:
            continue
        value = u[u_start + t * u_time + lo : u_start + t * u_time + hi]
        step = dt[dt_start + t * dt_time + lo : dt_start + t * dt_time + hi]
        if smooth:
            for j in range(value.shape[0]):
                delta[t, j] = softplus(load(step, j) + bias[j])
                du[t, j] = delta[t, j] * load(value, j)
                y[t, j] = D[j] * load(value, j)
        else:
            for j in range(value.shape[0]):
                delta[t, j] = load(step, j) + bias[j]
                du[t, j] = delta[t, j] * load(value, j)
                y[t, j] = D[j] * load(value, j)


@njit(**ROWS)
def advance(start, stop, delta, du, A, B, C, h, y):
    """Take every state from step `start` to `stop`, and add what they say to `y`."""
    for i in range(A.shape[0]):
        for t in range(start, stop):
            b, c = B[t, i], C[t, i]
            for j in range(LANES):
                h[i, j] = exp2_product(delta[t, j], A[i, j]) * h[i, j] + du[t, j] * b
                y[t, j] += c * h[i, j]


@njit(**ROWS)
def advance_keeping(start, stop, delta, du, A, B, C, h, y, decay, decayed):
    """`advance` for one state, keeping the decays and the states after decay, before input."""
    for t in range(start, stop):
        b, c = B[t], C[t]
        for j in range(LANES):
            decay[t, j] = exp2_product(delta[t, j], A[j])
            decayed[t, j] = decay[t, j] * h[j]
            h[j] = decayed[t, j] + du[t, j] * b
            y[t, j] += c * h[j]


@njit(**ROWS)
def retreat(
    start, stop, delta, du, A, B, C, decay, decayed, grad_y,
    grad_h, grad_delta, grad_du, grad_A, grad_B, grad_C,
):  # fmt: skip
    """Back through the steps of one state. `grad_delta`: through the decay, over ln 2."""
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
            grad_A[j] += through_decay * delta[t, j]
            grad_delta[t, j] += through_decay * A[j]
            grad_h[j] = g * decay[t, j]
        grad_B[t], grad_C[t] = sum_b, sum_c


@njit(**KERNEL)
def there_and_back(
    edges, segments, fresh, delta, du, A, B, C, h, y, decay, decayed, grad_y,
    grad_h, grad_delta, grad_du, grad_A, grad_B, grad_C,
):  # fmt: skip
    """Recompute each state through a tile, then go back. `fresh`: whether a segment starts at 0.

    Sums over time are made within the tile first: long float32 sums in one row lose digits.
    """
    tile_A = np.empty(LANES, A.dtype)
    for i in range(A.shape[0]):
        for k in range(segments):
            if fresh[k]:
                h[i] = 0
            advance_keeping(
                edges[k], edges[k + 1], delta, du, A[i], B[:, i], C[:, i], h[i], y, decay, decayed
            )
        tile_A[:] = 0
        for k in range(segments - 1, -1, -1):
            retreat(
                edges[k], edges[k + 1], delta, du, A[i], B[:, i], C[:, i], decay, decayed, grad_y,
                grad_h[i], grad_delta, grad_du, tile_A, grad_B[:, i], grad_C[:, i],
            )  # fmt: skip
            if fresh[k]:
                grad_h[i] = 0
        grad_A[i] += tile_A


@njit(**ROWS)
def finish_back(
    here, lo, hi, u, u_start, u_time, dt, dt_start, dt_time, bias, D, smooth,
    delta, through_decay, grad_du, grad_y, o, o_time, to_u, to_dt, sum_D, sum_bias,
):  # fmt: skip
    """Gradients of u and dt, from those of dt u, of the decay and of y."""
    for t in range(here.shape[0]):
        row_u = to_u[o + t * o_time + lo : o + t * o_time + hi]
        row_dt = to_dt[o + t * o_time + lo : o + t * o_time + hi]
        if not here[t]:
            for j in range(row_u.shape[0]):
                row_u[j], row_dt[j] = 0, 0
            continue
        value = u[u_start + t * u_time + lo : u_start + t * u_time + hi]
        step = dt[dt_start + t * dt_time + lo : dt_start + t * dt_time + hi]
        for j in range(value.shape[0]):
            x = load(value, j)
            to_step = through_decay[t, j] * delta.dtype.type(LN2) + grad_du[t, j] * x
            if smooth:
                to_step *= sigmoid(load(step, j) + bias[j])
            store(row_u, j, grad_du[t, j] * delta[t, j] + grad_y[t, j] * D[j])
            store(row_dt, j, to_step)
            sum_D[j] += grad_y[t, j] * x
            sum_bias[j] += to_step
