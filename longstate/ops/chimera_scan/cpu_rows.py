"""Numba: the rows of a block, from and into arrays of all channels.

Channels lo to hi of an array (..., parts, channels) are parts of LANES in the rows of a block,
(..., parts * LANES), as `cpu_site.py` reads them. States have an axis of variates before.
"""

import numpy as np

from longstate.ops._numba import inlined, kernel
from longstate.ops._numba.lanes import clear, copy
from longstate.ops.chimera_scan.cpu_site import LANES


@inlined
def load(x: np.ndarray, lo: int, hi: int, row: np.ndarray, at: int) -> None:
    """row[at : at + hi - lo] = x[lo:hi]."""
    for j in range(hi - lo):
        row[at + j] = x[lo + j]


@inlined
def store(row: np.ndarray, at: int, x: np.ndarray, lo: int, hi: int) -> None:
    """x[lo:hi] = row[at : at + hi - lo]."""
    for j in range(hi - lo):
        x[lo + j] = row[at + j]


@kernel
def load_all(x: np.ndarray, lo: int, hi: int, rows: np.ndarray) -> None:
    """rows (..., LANES * parts) from x (..., parts, channels)."""
    for i in range(x.shape[0]):
        for part in range(x.shape[1]):
            load(x[i, part], lo, hi, rows[i], part * LANES)


@kernel
def store_all(rows: np.ndarray, x: np.ndarray, lo: int, hi: int) -> None:
    for i in range(x.shape[0]):
        for part in range(x.shape[1]):
            store(rows[i], part * LANES, x[i, part], lo, hi)


@kernel
def load_states(x: np.ndarray, lo: int, hi: int, states: np.ndarray) -> None:
    for v in range(x.shape[0]):
        load_all(x[v], lo, hi, states[v])


@kernel
def store_states(states: np.ndarray, x: np.ndarray, lo: int, hi: int) -> None:
    for v in range(x.shape[0]):
        store_all(states[v], x[v], lo, hi)


@kernel
def forget(states: np.ndarray) -> None:
    """states (..., STATE) = 0."""
    for v in range(states.shape[0]):
        for i in range(states.shape[1]):
            clear(states[v, i])


@kernel
def copy_states(states: np.ndarray, into: np.ndarray) -> None:
    for v in range(states.shape[0]):
        for i in range(states.shape[1]):
            copy(states[v, i], into[v, i])
