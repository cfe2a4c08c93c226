"""The inner loops once more, for a B or C that is constant in time and differs among channels.

Everything is as in `cpu_rows`, with B[t, i] row_B[i, j] in the place of B[t, i], and C likewise.
Where only one of the two is constant, the other's row is 1.
"""

import numpy as np
from numba import njit

from longstate.ops._threads import KERNEL
from longstate.ops._tiles import LANES
from longstate.ops._vector_math import ROWS, exp2_product


@njit(**ROWS)
def advance_constant(start, stop, delta, du, A, B, C, row_B, row_C, h, y):
    for i in range(A.shape[0]):
        for t in range(start, stop):
            b, c = B[t, i], C[t, i]
            for j in range(LANES):
                input_ = du[t, j] * (b * row_B[i, j])
                h[i, j] = exp2_product(delta[t, j], A[i, j]) * h[i, j] + input_
                y[t, j] += c * row_C[i, j] * h[i, j]


@njit(**ROWS)
def advance_constant_keeping(
    start, stop, delta, du, A, B, C, row_B, row_C, h, y, decay, decayed
):  # fmt: skip
    for t in range(start, stop):
        b, c = B[t], C[t]
        for j in range(LANES):
            decay[t, j] = exp2_product(delta[t, j], A[j])
            decayed[t, j] = decay[t, j] * h[j]
            h[j] = decayed[t, j] + du[t, j] * (b * row_B[j])
            y[t, j] += c * row_C[j] * h[j]


@njit(**ROWS)
def retreat_constant(
    start, stop, delta, du, A, B, C, row_B, row_C, decay, decayed, grad_y,
    grad_h, grad_delta, grad_du, grad_A, grad_B, grad_C, grad_row_B, grad_row_C,
):  # fmt: skip
    for t in range(stop - 1, start - 1, -1):
        b, c = B[t], C[t]
        sum_b = A.dtype.type(0)
        sum_c = A.dtype.type(0)
        for j in range(LANES):
            g = grad_h[j] + c * row_C[j] * grad_y[t, j]
            to_b = g * du[t, j]
            to_c = grad_y[t, j] * (decayed[t, j] + du[t, j] * (b * row_B[j]))
            sum_b += to_b  # of use only where the row is 1, as the row's is where b is 1
            sum_c += to_c
            grad_row_B[j] += to_b
            grad_row_C[j] += to_c
            grad_du[t, j] += g * b * row_B[j]
            through_decay = g * decayed[t, j]
            grad_A[j] += through_decay * delta[t, j]
            grad_delta[t, j] += through_decay * A[j]
            grad_h[j] = g * decay[t, j]
        grad_B[t], grad_C[t] = sum_b, sum_c


@njit(**KERNEL)
def there_and_back_constant(
    edges, segments, fresh, delta, du, A, B, C, h, y, decay, decayed, grad_y,
    grad_h, grad_delta, grad_du, grad_A, grad_B, grad_C,
    row_B, row_C, grad_row_B, grad_row_C,
):  # fmt: skip
    tile_A = np.empty(LANES, A.dtype)
    for i in range(A.shape[0]):
        for k in range(segments):
            if fresh[k]:
                h[i] = 0
            advance_constant_keeping(
                edges[k], edges[k + 1], delta, du, A[i], B[:, i], C[:, i], row_B[i], row_C[i],
                h[i], y, decay, decayed,
            )  # fmt: skip
        tile_A[:] = 0
        for k in range(segments - 1, -1, -1):
            retreat_constant(
                edges[k], edges[k + 1], delta, du, A[i], B[:, i], C[:, i], row_B[i], row_C[i],
                decay, decayed, grad_y, grad_h[i], grad_delta, grad_du, tile_A,
                grad_B[:, i], grad_C[:, i], grad_row_B[i], grad_row_C[i],
            )  # fmt: skip
            if fresh[k]:
                grad_h[i] = 0
        grad_A[i] += tile_A
