"""Run a Python function on the OpenMP threads that PyTorch uses.

After a parallel operation PyTorch's threads do not sleep at once: they wait for the next one in a
busy loop for milliseconds. The threads of a second pool would compete with them for the cores,
which made a Mamba layer 15 % slower on two cores. So the kernels run on the same threads.

`GOMP_parallel` is the entry that GCC compiles `#pragma omp parallel` to; Intel's and LLVM's
libraries have it too on Linux. Where PyTorch's library has no such entry (macOS, Windows) there is
no team, and the caller uses a pool of its own.
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_forked = False


def _leave() -> None:
    """A forked child inherits OpenMP's records but not its threads, and would wait for them."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)


@cache
def _entry() -> Any:
    """`GOMP_parallel` of the very library that PyTorch is linked to, or None."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not hasattr(os, "RTLD_NOLOAD") or not path.exists():
        return None
    try:
        entry = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY).GOMP_parallel
    except (OSError, AttributeError):
        return None
    entry.argtypes = (_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    entry.restype = None
    return entry


def available() -> bool:
    return not _forked and _entry() is not None


def on_each_thread(body: Callable[[], None], n_threads: int) -> None:
    """Call `body` once on each thread of a team, the calling thread among them, and wait.

    Raises:
        Whatever `body` raised first.
    """
    failures: list[BaseException] = []

    def guarded(_: Any) -> None:
        try:
            body()
        except BaseException as e:  # must not cross the C frames; raised again below
            failures.append(e)

    _entry()(_Body(guarded), None, n_threads, 0)
    if failures:
        raise failures[0]
