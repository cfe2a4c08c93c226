"""Run a serial Numba kernel over blocks of work, on as many threads as PyTorch may use.

Numba's threading layers all have limits: `omp` aborts in a forked child, `workqueue` aborts when
two Python threads enter at once, `tbb` is one more dependency. So these kernels are serial and
release the GIL, and this file gives ranges of blocks to PyTorch's OpenMP threads, or to a small
pool where those are not available. Blocks never share an output, so a result does not depend on
the number of threads.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import torch

from longstate.ops._numba import openmp

_INLINE_BELOW = 30_000  # scalar updates; for fewer, waking a thread (about 0.05 ms) costs more

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_lock = threading.Lock()


def _forget_pool() -> None:
    """A forked child inherits the pool but not its threads."""
    global _pool, _pool_size, _lock
    _pool, _pool_size, _lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _workers(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < count:
            # The old pool is not shut down: another thread may be about to submit to it. Its
            # workers leave when the last reference to it goes.
            _pool, _pool_size = ThreadPoolExecutor(count, "longstate"), count
        return _pool


def parallel_for(kernel: Callable[..., None], n_blocks: int, work: int, *args: Any) -> None:
    """Call `kernel(start, stop, *args)` so that the ranges cover `0..n_blocks` once.

    Args:
        kernel: a Numba function compiled with `kernel`. It writes only what its blocks own.
        n_blocks: number of independent blocks.
        work: approximate number of scalar updates; small work runs on the calling thread.
        *args: passed through; NumPy arrays and scalars.
    """
    n_threads = min(torch.get_num_threads(), n_blocks)
    if n_threads <= 1 or work < _INLINE_BELOW:
        kernel(0, n_blocks, *args)
        return
    kernel(0, 0, *args)  # compile it first, so that no thread waits for another
    edges = [n_blocks * i // n_threads for i in range(n_threads + 1)]
    ranges = iter(list(pairwise(edges)))  # a list's iterator gives each range to one thread

    def work_through() -> None:
        for lo, hi in ranges:
            kernel(lo, hi, *args)

    if openmp.available():
        # always all of PyTorch's threads: OpenMP ends those that a smaller team leaves out
        openmp.on_each_thread(work_through, torch.get_num_threads())
        return
    pool = _workers(n_threads - 1)
    others = [pool.submit(work_through) for _ in range(n_threads - 1)]
    try:
        work_through()
    finally:
        wait(others)  # they write to arrays of the caller
    for other in others:
        other.result()
