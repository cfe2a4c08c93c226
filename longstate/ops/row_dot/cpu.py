"""Numba: row after row, each read once for all vectors."""

from numba import njit
from torch import Tensor

from longstate.ops._rows import array, compute_dtype
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops._vector_math import dot, load, store

_BYTES_PER_UPDATE = 20  # read in the time of what `parallel_for` counts as one update


@njit(**KERNEL)
def _products(start, stop, x, W, bias, y):
    for o in range(start, stop):
        for b in range(len(x)):
            total = dot(W[o], x[b])
            if len(bias):
                total += load(bias, o)
            store(y[b], o, total)


def forward(x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
    wide = array(x, compute_dtype(x))
    y = x.new_empty(len(x), len(W))
    none = wide[0, :0]
    work = W.numel() * W.element_size() // _BYTES_PER_UPDATE
    parallel_for(
        _products, len(W), work, wide, array(W), none if bias is None else array(bias), array(y)
    )
    return y
