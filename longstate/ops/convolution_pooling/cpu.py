"""Numba: series after series. The response of a filter stays in the first-level cache."""

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import array
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops.convolution_pooling import TAPS, Filters


@inlined
def _add_shifted(y, x, tap, shift):
    """y(t) += tap * x(t + shift); x is 0 outside."""
    for t in range(max(0, -shift), min(len(y), len(y) - shift)):
        y[t] += tap * x[t + shift]


@inlined
def _add(y, x):
    for t in range(len(y)):
        y[t] += x[t]


@inlined
def _share(y, bias):
    """Of the values above the bias."""
    count = np.float32(0)
    for t in range(len(y)):
        count += np.float32(1) if y[t] > bias else np.float32(0)
    return count / np.float32(len(y))


@kernel
def _series(start, stop, x, lengths, taps, dilation, padded, channels, bias, pooled):
    total = np.empty(x.shape[2], np.float32)
    y = np.empty(x.shape[2], np.float32)
    for i in range(start, stop):
        length = lengths[i]
        for f in range(len(taps)):
            total[:length] = 0
            y[:length] = 0
            for c in range(x.shape[1]):
                if channels[f, c]:
                    _add(total[:length], x[i, c, :length])
            for j in range(taps.shape[1]):
                shift = (j - taps.shape[1] // 2) * dilation[f]
                _add_shifted(y[:length], total[:length], taps[f, j], shift)
            reach = taps.shape[1] // 2 * dilation[f]
            if padded[f] or length <= 2 * reach:
                reach = 0
            for q in range(bias.shape[1]):
                pooled[i, f, q] = _share(y[reach : length - reach], bias[f, q])


def forward(x: Tensor, lengths: Tensor, filters: Filters) -> Tensor:
    pooled = torch.empty(len(x), *filters.bias.shape)
    x = x.float().contiguous()
    arrays = [array(v.contiguous()) for v in (lengths, *filters, pooled)]
    work = int(lengths.sum()) * len(filters.taps) * (TAPS + filters.bias.shape[1])
    parallel_for(_series, len(x), work, array(x), *arrays)
    return pooled
