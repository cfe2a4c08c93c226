"""Numba: series after series, group after group, in blocks of time.

What is kept of a block for each time, the greatest and the least sum of three places so far and
whose they are, stays in the first-level cache while filter after filter comes by.
"""

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import array
from longstate.ops._numba import inlined, inlined_exact, kernel, parallel_for
from longstate.ops.convolution_competition import Groups
from longstate.ops.convolution_pooling import TAPS, all_places

_BLOCK = 512


@inlined
def _add(y, x):
    for t in range(len(y)):
        y[t] += x[t]


@inlined_exact
def _challenge(k, a, b, c, largest, winner, smallest, loser):
    """Filter k, whose three places are a, b and c."""
    for t in range(len(largest)):
        three = a[t] + b[t] + c[t]
        above, below = three > largest[t], three < smallest[t]
        largest[t] = three if above else largest[t]
        winner[t] = k if above else winner[t]
        smallest[t] = three if below else smallest[t]
        loser[t] = k if below else loser[t]


@inlined
def _respond(y, largest, nine):
    for t in range(len(y)):
        y[t] = np.float32(3) * largest[t] - nine[t]


@inlined
def _sum_where(k, who, y):
    total = np.float32(0)
    for t in range(len(y)):
        total += y[t] if who[t] == k else np.float32(0)
    return total


@inlined
def _count(k, who):
    count = np.float32(0)
    for t in range(len(who)):
        count += np.float32(1) if who[t] == k else np.float32(0)
    return count


@kernel
def _block(wide, starts, dilation, n, values, whose, found):
    """Add what happens at n times.

    wide: samples, with those around that the filters read. starts (k, 3): of the places, in
    `wide`. values (4, block), whose (2, block): to work in. found (k, 2).
    """
    largest, smallest, nine, y = values[0, :n], values[1, :n], values[2, :n], values[3, :n]
    winner, loser = whose[0, :n], whose[1, :n]
    largest[:], smallest[:], nine[:], winner[:], loser[:] = -np.inf, np.inf, 0, 0, 0
    for k in range(len(starts)):
        i, j, m = starts[k]
        a, b, c = wide[i : i + n], wide[j : j + n], wide[m : m + n]
        _challenge(np.int32(k), a, b, c, largest, winner, smallest, loser)
    for j in range(TAPS):
        _add(nine, wide[j * dilation : j * dilation + n])
    _respond(y, largest, nine)
    for k in range(len(starts)):
        found[k, 0] += _sum_where(np.int32(k), winner, y)
        found[k, 1] += _count(np.int32(k), loser)


@kernel
def _series(start, stop, x, lengths, starts, dilation, channels, found):
    wide = np.empty(x.shape[2] + (TAPS - 1) * dilation.max(), np.float32)
    values, whose = np.empty((4, _BLOCK), np.float32), np.empty((2, _BLOCK), np.int32)
    for i in range(start, stop):
        length = lengths[i]
        for g in range(len(starts)):
            reach = TAPS // 2 * dilation[g]
            wide[: length + 2 * reach] = 0
            for c in range(x.shape[1]):
                if channels[g, c]:
                    _add(wide[reach : reach + length], x[i, c, :length])
            for first in range(0, length, _BLOCK):
                n = min(_BLOCK, length - first)
                _block(wide[first:], starts[g], dilation[g], n, values, whose, found[i, g])


def forward(x: Tensor, lengths: Tensor, groups: Groups) -> Tensor:
    found = torch.zeros(len(x), *groups.filters.shape, 2)
    starts = all_places()[groups.filters] * groups.dilation[:, None, None]
    x = x.float().contiguous()
    given = (x, lengths, starts, groups.dilation, groups.channels, found)
    work = int(lengths.sum()) * starts.numel() * 2
    parallel_for(_series, len(x), work, *(array(v.contiguous()) for v in given))
    return found.div_(lengths[:, None, None, None])
