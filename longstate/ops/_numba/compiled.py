"""How a function is compiled to a CPU kernel: options, and the cache on disk.

Numba's cache on disk compares a kernel with its own file only. A kernel also holds the code of the
functions that it calls, from other files. So kernels are kept under a digest of every source file
of `longstate.ops`: after an edit or an upgrade they are compiled again, and replace the old ones.
"""

import hashlib
import re
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.compiler import CompilerBase, DefaultPassBuilder

_ANNOUNCE_AFTER = 2.0  # seconds
_F = TypeVar("_F", bound=Callable[..., Any])

SAFE = {"contract"}
"""Fast-math where the order of operations matters: only a * b + c may be rounded once."""

FAST = {"contract", "reassoc", "arcp", "nsz", "afn"}
"""Fast-math elsewhere: all of it but `nnan` and `ninf`, so that NaN and infinity propagate."""


class _NoOverlap(CompilerBase):
    """Tell LLVM that array arguments do not overlap, as `restrict` does in C.

    Without it LLVM compares every pair of arrays before a loop, and a loop over ten arrays falls
    back to scalars when one comparison cannot be decided.
    """

    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


_INLINED: dict[str, Any] = {"pipeline_class": _NoOverlap, "forceinline": True, "_nrt": False}


def kernel(function: _F) -> _F:
    """Compile a kernel, or a function that kernels call."""
    return _compiled(function, fastmath=FAST)


def inlined(function: _F) -> _F:
    """Compile an inner loop into its callers.

    No array that it writes may overlap another. It makes no arrays but views of its arguments;
    their references are not counted, which would take longer than a short loop.
    """
    return _compiled(function, fastmath=FAST, **_INLINED)


def inlined_exact(function: _F) -> _F:
    """The same, where the order of operations matters."""
    return _compiled(function, fastmath=SAFE, **_INLINED)


def pasted(function: _F) -> _F:
    """Put the lines of a function into its callers: for views, which `inlined` cannot return."""
    return _compiled(function, inline="always")


def apart(function: _F) -> _F:
    """Compile an inner loop as a separate function, also when the caller is `inlined`: Numba passes
    the options of a caller on to the functions that it calls. The order of additions, and so the
    last bit of a result, depends on the code that a loop is compiled with."""
    return _compiled(function, fastmath=FAST, forceinline=False, _nrt=True)


def exact(function: _F) -> _F:
    """Compile a function in which the order of operations matters."""
    return _compiled(function, fastmath=SAFE)


def kernel_for(kind: type, function: _F) -> _F:
    """Compile a kernel once more, for arguments of one class, and keep it under that class's name.

    Numba reads all that it keeps of a kernel at once, and needs every class in it.
    """
    return _compiled(function, f"{kind.__module__}.{kind.__qualname__}", fastmath=FAST)


def _compiled(function: _F, suffix: str = "", **options: Any) -> _F:
    made: Any = numba.njit(nogil=True, boundscheck=False, error_model="numpy", **options)(function)
    made._compile_for_args = announced(made._compile_for_args)
    try:
        made._cache = _Cache(function, suffix)
    except RuntimeError:  # neither this folder nor the user's cache folder can be written
        _announce_no_cache()
    return made


class _Cache(FunctionCache):
    """Numba's cache, which also looks at the digest of all sources."""

    def __init__(self, function: Callable[..., Any], suffix: str) -> None:
        super().__init__(function)
        name = _without_line(self._impl) + re.sub(r"\W+", "_", suffix)
        self._cache_file = IndexDataCacheFile(self._cache_path, name, digest())
        self._cache_file._version = digest()  # compared before anything else is read

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # the folder is full or has become read-only
            _announce_no_cache()


def _without_line(implementation: Any) -> str:
    """The name of a kernel's files. Without the line, so that new files replace old ones."""
    line = f"-{implementation.locator.get_disambiguator()}."
    return implementation.filename_base.replace(line, ".")


@cache
def digest() -> str:
    """Of the sources of all kernels, and of Numba's version."""
    found = hashlib.sha256(numba.__version__.encode())
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


@cache
def _announce_no_cache() -> None:
    print(
        "longstate: no folder to keep compiled CPU kernels in; every process compiles its own. "
        "Set NUMBA_CACHE_DIR to a folder that can be written.",
        file=sys.stderr,
    )


def announced(compile_: Callable[..., Any]) -> Callable[..., Any]:
    """Say on stderr that a kernel is compiled, if that takes long."""

    def run(*args: Any, **options: Any) -> Any:
        done = threading.Event()
        threading.Thread(target=_announce, args=(done,), daemon=True).start()
        try:
            return compile_(*args, **options)
        finally:
            done.set()

    return run


def _announce(done: threading.Event) -> None:
    began = time.monotonic()
    if not done.wait(_ANNOUNCE_AFTER):
        kept = "" if _announce_no_cache.cache_info().currsize else " (once; cached on disk)"
        print(f"longstate: compiling a CPU kernel{kept} ...", file=sys.stderr)
        done.wait()
        print(f"longstate: compiled in {time.monotonic() - began:.0f} s", file=sys.stderr)
