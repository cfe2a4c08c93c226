"""Numba: one site of `chimera_scan`, forward and back, over the channels of a block.

The rows of a state follow each other in one array, at constant places, so that the compiler sees
that they are apart: `row[GONE + j]` is channel j of the row that begins at GONE. Lanes beyond the
last channel have steps, inputs and gradients of zero, and so add nothing to sums over the lanes.
"""

import numpy as np

from longstate.ops._numba import inlined, inlined_exact
from longstate.ops._numba.math import exp_pair, slope_series, turn

LANES = 16

# of the parameters of a channel: a, 1/a, whether a is 0; the same of -c, which is real; and K
CHANNEL = 10 * LANES
(A_RE, A_IM, INV_RE, INV_IM, STILL, MINUS_C, INV_C, FLAT, K1, K2) = range(0, CHANNEL, LANES)

# of factors, functions of a step and a channel: exp(s a), (exp(s a) - 1) / a, 1 - exp(s Re a),
# exp(-r c), 1 - exp(-r c), (1 - exp(-r c)) / c, and the slopes of the second by a, the last by -c
FACTORS = 11 * LANES
(TURN_RE, TURN_IM, B_RE, B_IM, GONE, LEFT, LOST, B_C, SLOPE_RE, SLOPE_IM, SLOPE_C) = range(
    0, FACTORS, LANES
)

# of the states, and of their gradients
STATE = 4 * LANES
(H_RE, H_IM, G_RE, G_IM) = range(0, STATE, LANES)

# of the gradients of the parameters
OF_CHANNEL = 5 * LANES
(OF_RE, OF_IM, OF_C, OF_K1, OF_K2) = range(0, OF_CHANNEL, LANES)


@inlined_exact
def factors(channels: np.ndarray, s: np.ndarray, r: np.ndarray, f: np.ndarray) -> None:
    """All but the slopes, (n, FACTORS)."""
    for i in range(channels.shape[0]):
        channel, row = channels[i], f[i]
        for j in range(LANES):
            e, em1 = exp_pair(channel[A_RE + j], s[j])
            sine, cosine, cm1 = turn(channel[A_IM + j], s[j])
            gone_re, gone_im = em1 * cosine + cm1, e * sine
            inv_re, inv_im = channel[INV_RE + j], channel[INV_IM + j]
            row[TURN_RE + j] = e * cosine
            row[TURN_IM + j] = gone_im
            row[B_RE + j] = gone_re * inv_re - gone_im * inv_im + channel[STILL + j] * s[j]
            row[B_IM + j] = gone_re * inv_im + gone_im * inv_re
            row[GONE + j] = -em1
        for j in range(LANES):
            m, mm1 = exp_pair(channel[MINUS_C + j], r[j])
            row[LEFT + j] = m
            row[LOST + j] = -mm1
            row[B_C + j] = mm1 * channel[INV_C + j] + channel[FLAT + j] * r[j]


@inlined_exact
def slopes(channels: np.ndarray, s: np.ndarray, r: np.ndarray, f: np.ndarray) -> None:
    """The slopes, as series where the closed form would cancel."""
    for i in range(channels.shape[0]):
        channel, row = channels[i], f[i]
        for j in range(LANES):
            x, y, square = channel[A_RE + j] * s[j], channel[A_IM + j] * s[j], s[j] * s[j]
            inv_re, inv_im = channel[INV_RE + j], channel[INV_IM + j]
            near = x * x + y * y < 0.25
            near_re, near_im = slope_series(x, y)
            far_re, far_im = (
                s[j] * row[TURN_RE + j] - row[B_RE + j],
                s[j] * row[TURN_IM + j] - row[B_IM + j],
            )
            row[SLOPE_RE + j] = square * near_re if near else far_re * inv_re - far_im * inv_im
            row[SLOPE_IM + j] = square * near_im if near else far_re * inv_im + far_im * inv_re
        for j in range(LANES):
            z = channel[MINUS_C + j] * r[j]
            series, _ = slope_series(z, z - z)
            far = (r[j] * row[LEFT + j] - row[B_C + j]) * channel[INV_C + j]
            row[SLOPE_C + j] = r[j] * r[j] * series if z * z < 0.25 else far


@inlined
def advance(
    channels: np.ndarray, f: np.ndarray, x: np.ndarray, select: np.ndarray, past: np.ndarray,
    before: np.ndarray, states: np.ndarray, y: np.ndarray,
) -> None:  # fmt: skip
    """states (n, STATE) from those of the sample before, `past`, and of the variate before; and
    the output of the site."""
    for j in range(LANES):
        y[j] = 0
    for i in range(channels.shape[0]):
        channel, row, last, beside, state = channels[i], f[i], past[i], before[i], states[i]
        b1, b2 = select[0, i], select[1, i]
        c1_re, c1_im, c2_re, c2_im = select[2, i], select[3, i], select[4, i], select[5, i]
        for j in range(LANES):
            drive, along = b1 * x[j], row[GONE + j] * channel[K1 + j]
            h_re = (
                row[TURN_RE + j] * last[H_RE + j]
                - row[TURN_IM + j] * last[H_IM + j]
                + along * last[G_RE + j]
            )
            h_im = (
                row[TURN_RE + j] * last[H_IM + j]
                + row[TURN_IM + j] * last[H_RE + j]
                + along * last[G_IM + j]
            )
            h_re += row[B_RE + j] * drive
            h_im += row[B_IM + j] * drive
            across = row[LOST + j] * channel[K2 + j]
            g_re = (
                across * beside[H_RE + j]
                + row[LEFT + j] * beside[G_RE + j]
                + row[B_C + j] * (b2 * x[j])
            )
            g_im = across * beside[H_IM + j] + row[LEFT + j] * beside[G_IM + j]
            state[H_RE + j] = h_re
            state[H_IM + j] = h_im
            state[G_RE + j] = g_re
            state[G_IM + j] = g_im
            y[j] += c1_re * h_re - c1_im * h_im + (c2_re * g_re - c2_im * g_im)


@inlined
def retreat(
    channels: np.ndarray, f: np.ndarray, x: np.ndarray, s: np.ndarray, r: np.ndarray,
    select: np.ndarray, past: np.ndarray, before: np.ndarray, states: np.ndarray, dy: np.ndarray,
    carry: np.ndarray, above: np.ndarray, dx: np.ndarray, ds: np.ndarray, dr: np.ndarray,
    dselect: np.ndarray, dchannels: np.ndarray,
) -> None:  # fmt: skip
    """The gradients of a site: of x, s and r (lanes), and of select (6, n); adds those of Re a,
    Im a, c, K1 and K2, (n, OF_CHANNEL).

    carry, above (n, STATE): what later samples, and the next variate, add to the gradients of
    the states; and then, to those of `past` and of `before`.
    """
    for j in range(LANES):
        dx[j] = 0
        ds[j] = 0
        dr[j] = 0
    for i in range(channels.shape[0]):
        channel, row, last, beside, state = channels[i], f[i], past[i], before[i], states[i]
        of_last, of_beside, of_channel = carry[i], above[i], dchannels[i]
        b1, b2 = select[0, i], select[1, i]
        c1_re, c1_im, c2_re, c2_im = select[2, i], select[3, i], select[4, i], select[5, i]
        zero = b1 - b1
        db1, db2, dc1_re, dc1_im, dc2_re, dc2_im = zero, zero, zero, zero, zero, zero
        for j in range(LANES):
            gy, u = dy[j], x[j]
            dc1_re += gy * state[H_RE + j]
            dc1_im -= gy * state[H_IM + j]
            dc2_re += gy * state[G_RE + j]
            dc2_im -= gy * state[G_IM + j]
            h_re = of_last[H_RE + j] + of_beside[H_RE + j] + gy * c1_re
            h_im = of_last[H_IM + j] + of_beside[H_IM + j] - gy * c1_im
            g_re = of_last[G_RE + j] + of_beside[G_RE + j] + gy * c2_re
            g_im = of_last[G_IM + j] + of_beside[G_IM + j] - gy * c2_im
            # g = LOST K2 h beside + LEFT g beside + B_C b2 u
            m, lost, k2 = row[LEFT + j], row[LOST + j], channel[K2 + j]
            of_across = g_re * beside[H_RE + j] + g_im * beside[H_IM + j]
            of_driven = g_re * (b2 * u)
            of_m = g_re * beside[G_RE + j] + g_im * beside[G_IM + j] - k2 * of_across
            of_channel[OF_K2 + j] += lost * of_across
            of_channel[OF_C + j] -= r[j] * m * of_m + row[SLOPE_C + j] * of_driven
            dr[j] += channel[MINUS_C + j] * m * of_m + m * of_driven
            driven = row[B_C + j] * g_re
            db2 += driven * u
            of_beside[H_RE + j] = lost * k2 * g_re
            of_beside[H_IM + j] = lost * k2 * g_im
            of_beside[G_RE + j] = m * g_re
            of_beside[G_IM + j] = m * g_im
            # h = TURN h past + GONE K1 g past + B b1 u
            drive, gone, k1 = b1 * u, row[GONE + j], channel[K1 + j]
            back_re = row[TURN_RE + j] * h_re + row[TURN_IM + j] * h_im
            back_im = row[TURN_RE + j] * h_im - row[TURN_IM + j] * h_re
            of_along = h_re * last[G_RE + j] + h_im * last[G_IM + j]
            of_decay = k1 * of_along - gone * k1 * of_along
            turned_re = (
                channel[A_RE + j] * last[H_RE + j] - channel[A_IM + j] * last[H_IM + j] + drive
            )
            turned_im = channel[A_RE + j] * last[H_IM + j] + channel[A_IM + j] * last[H_RE + j]
            ds[j] += turned_re * back_re + turned_im * back_im - channel[A_RE + j] * of_decay
            of_turn_re = last[H_RE + j] * back_re + last[H_IM + j] * back_im - of_decay
            of_turn_im = last[H_RE + j] * back_im - last[H_IM + j] * back_re
            of_channel[OF_RE + j] += s[j] * of_turn_re + drive * (
                row[SLOPE_RE + j] * h_re + row[SLOPE_IM + j] * h_im
            )
            of_channel[OF_IM + j] += s[j] * of_turn_im + drive * (
                row[SLOPE_RE + j] * h_im - row[SLOPE_IM + j] * h_re
            )
            of_channel[OF_K1 + j] += gone * of_along
            along = row[B_RE + j] * h_re + row[B_IM + j] * h_im
            db1 += along * u
            dx[j] += along * b1 + driven * b2
            of_last[H_RE + j] = back_re
            of_last[H_IM + j] = back_im
            of_last[G_RE + j] = gone * k1 * h_re
            of_last[G_IM + j] = gone * k1 * h_im
        dselect[0, i] = db1
        dselect[1, i] = db2
        dselect[2, i] = dc1_re
        dselect[3, i] = dc1_im
        dselect[4, i] = dc2_re
        dselect[5, i] = dc2_im
