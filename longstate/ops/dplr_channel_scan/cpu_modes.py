"""The inner loops of `cpu`: what happens to all modes of a block in one sample, and backward.

What belongs to one mode lies in one flat array, row after row, each of `LANES` channels.
"""

import numpy as np

from longstate.ops._numba import inlined

LANES = 16  # one vector in float32, where vectors have 512 bits
PAIR = 2 * LANES  # the real parts of a row, then the imaginary parts
# Rows of one mode: a, b, c, then p and q for each rank, or sums for their gradients.
_B, _C, _PQ = PAIR, 2 * PAIR, 3 * PAIR


@inlined
def advance(
    rows: np.ndarray, ranks: tuple, states: np.ndarray, now: int, into: np.ndarray, after: int,
    x: np.ndarray, w: np.ndarray, y: np.ndarray, w_next: np.ndarray,
) -> None:  # fmt: skip
    """One sample: into[:, after] from states[:, now], and what is read from the new states.

    `into` and `states` are one array; as two arguments the compiler takes them for separate ones.
    `ranks` has one element for each rank, because the compiler knows the length of a tuple."""
    y[:] = 0
    w_next[:] = 0
    for m in range(rows.shape[0]):
        mode, h, out = rows[m], states[m, now], into[m, after]
        for j in range(LANES):
            re, im = h[j], h[LANES + j]
            a_re, a_im = mode[j], mode[LANES + j]
            new_re = a_re * re - a_im * im + mode[_B + j] * x[j]
            new_im = a_re * im + a_im * re + mode[_B + LANES + j] * x[j]
            for i in range(len(ranks)):
                p = _PQ + 2 * PAIR * i + j
                new_re += mode[p] * w[LANES * i + j]
                new_im += mode[p + LANES] * w[LANES * i + j]
            out[j] = new_re
            out[LANES + j] = new_im
            y[j] += mode[_C + j] * new_re - mode[_C + LANES + j] * new_im
            for i in range(len(ranks)):
                q = _PQ + 2 * PAIR * i + PAIR + j
                w_next[LANES * i + j] += mode[q] * new_re - mode[q + LANES] * new_im


@inlined
def read(rows: np.ndarray, ranks: tuple, states: np.ndarray, w: np.ndarray) -> None:
    """w of the first sample, from states[:, 0]."""
    w[:] = 0
    for m in range(rows.shape[0]):
        mode, h = rows[m], states[m, 0]
        for i in range(len(ranks)):
            for j in range(LANES):
                q = _PQ + 2 * PAIR * i + PAIR + j
                w[LANES * i + j] += mode[q] * h[j] - mode[q + LANES] * h[LANES + j]


@inlined
def retreat(
    rows: np.ndarray, ranks: tuple, grads: np.ndarray, into: np.ndarray, t: int, dy: np.ndarray,
    dw: np.ndarray, dx_before: np.ndarray, dw_before: np.ndarray,
) -> None:  # fmt: skip
    """One sample back: into[:, t] from grads[:, t + 1]. `dy` is that of the sample before."""
    dx_before[:] = 0
    dw_before[:] = 0
    for m in range(rows.shape[0]):
        mode, g, out = rows[m], grads[m, t + 1], into[m, t]
        for j in range(LANES):
            re, im = g[j], g[LANES + j]
            a_re, a_im = mode[j], mode[LANES + j]
            new_re = a_re * re + a_im * im + mode[_C + j] * dy[j]
            new_im = a_re * im - a_im * re - mode[_C + LANES + j] * dy[j]
            for i in range(len(ranks)):
                q = _PQ + 2 * PAIR * i + PAIR + j
                new_re += mode[q] * dw[LANES * i + j]
                new_im -= mode[q + LANES] * dw[LANES * i + j]
            out[j] = new_re
            out[LANES + j] = new_im
            dx_before[j] += mode[_B + j] * new_re + mode[_B + LANES + j] * new_im
            for i in range(len(ranks)):
                p = _PQ + 2 * PAIR * i + j
                dw_before[LANES * i + j] += mode[p] * new_re + mode[p + LANES] * new_im


@inlined
def last_output(
    rows: np.ndarray, sums: np.ndarray, states: np.ndarray, grads: np.ndarray, t: int,
    dy: np.ndarray,
) -> None:  # fmt: skip
    """What the output of the last sample adds to the gradients of its state and of c."""
    for m in range(rows.shape[0]):
        mode, total, h, g = rows[m], sums[m], states[m, t], grads[m, t]
        for j in range(LANES):
            g[j] += mode[_C + j] * dy[j]
            g[LANES + j] -= mode[_C + LANES + j] * dy[j]
            total[_C + j] += dy[j] * h[j]
            total[_C + LANES + j] -= dy[j] * h[LANES + j]


@inlined
def read_back(
    rows: np.ndarray, ranks: tuple, grads: np.ndarray, t: int, dx: np.ndarray, dw: np.ndarray
) -> None:
    """dx and dw of the last sample."""
    dx[:] = 0
    dw[:] = 0
    for m in range(rows.shape[0]):
        mode, g = rows[m], grads[m, t]
        for j in range(LANES):
            dx[j] += mode[_B + j] * g[j] + mode[_B + LANES + j] * g[LANES + j]
            for i in range(len(ranks)):
                p = _PQ + 2 * PAIR * i + j
                dw[LANES * i + j] += mode[p] * g[j] + mode[p + LANES] * g[LANES + j]


@inlined
def add_up(
    total: np.ndarray, ranks: tuple, h: np.ndarray, g: np.ndarray, x: np.ndarray, w: np.ndarray,
    dy: np.ndarray, dw: np.ndarray, steps: int,
) -> None:  # fmt: skip
    """Add up, over a tile, the gradients of one mode's rows."""
    for t in range(steps):
        for j in range(LANES):
            h_re, h_im, re, im = h[t, j], h[t, LANES + j], g[t + 1, j], g[t + 1, LANES + j]
            total[j] += re * h_re + im * h_im
            total[LANES + j] += im * h_re - re * h_im
            total[_B + j] += re * x[t, j]
            total[_B + LANES + j] += im * x[t, j]
            total[_C + j] += dy[t, j] * h_re
            total[_C + LANES + j] -= dy[t, j] * h_im
            for i in range(len(ranks)):
                p, k = _PQ + 2 * PAIR * i + j, LANES * i + j
                total[p] += re * w[t, k]
                total[p + LANES] += im * w[t, k]
                total[p + PAIR] += dw[t + 1, k] * h_re
                total[p + PAIR + LANES] -= dw[t + 1, k] * h_im
