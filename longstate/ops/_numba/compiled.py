"""How a function is compiled to a CPU kernel: options, and the cache on disk.

Numba's cache on disk compares a kernel with its own file only. A kernel also holds the code of the
functions that it calls, from other files. So kernels are kept with a digest of every source file
of `longstate.ops`: after an edit or an upgrade they are compiled again, and replace the old ones.
Numba also numbers the files of a kernel in an index, and two processes that compile for different
arguments at once can take the same number: each then reads the other's code. Here a file is named
after its kernel and the types of the arguments, and holds both.
"""

import hashlib
import pickle
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.serialize import dumps

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
    return _part(function, fastmath=FAST, **_INLINED)


def inlined_exact(function: _F) -> _F:
    """The same, where the order of operations matters."""
    return _part(function, fastmath=SAFE, **_INLINED)


def pasted(function: _F) -> _F:
    """Put the lines of a function into its callers: for views, which `inlined` cannot return."""
    return _compiled(function, inline="always")


def apart(function: _F) -> _F:
    """Compile an inner loop as a separate function, also when the caller is `inlined`: Numba passes
    the options of a caller on to the functions that it calls. The order of additions, and so the
    last bit of a result, depends on the code that a loop is compiled with."""
    return _part(function, fastmath=FAST, forceinline=False, _nrt=True)


def exact(function: _F) -> _F:
    """Compile a function in which the order of operations matters."""
    return _compiled(function, fastmath=SAFE)


def _compiled(function: _F, **options: Any) -> _F:
    options["no_cfunc_wrapper"] = True  # what C would call; nothing here is called by C
    made: Any = numba.njit(nogil=True, boundscheck=False, error_model="numpy", **options)(function)
    made._compile_for_args = announced(made._compile_for_args)
    try:
        made._cache = _Cache(function)
    except RuntimeError:  # neither this folder nor the user's cache folder can be written
        _announce_no_cache()
    return made


def _part(function: _F, **options: Any) -> _F:
    """Compile a function that only kernels call, without the code for calls from Python: to make
    and to optimise it takes about a sixth of the time that a kernel is compiled."""

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError(f"{function.__qualname__} can be called by kernels only")

    made: Any = _compiled(function, no_cpython_wrapper=True, **options)
    made._compile_for_args = refuse
    made._insert = lambda *_: None  # what a kernel has compiled; Python would call it, and crash
    return made


class _Cache(FunctionCache):
    """Numba's cache, with files of our own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        line = f"-{self._impl.locator.get_disambiguator()}."
        name = self._impl.filename_base.replace(line, ".")  # so that new files replace old ones
        self._cache_file = _Files(Path(self._cache_path), name)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # the folder is full or has become read-only
            _announce_no_cache()


class _Files(IndexDataCacheFile):
    """What is kept of one kernel: a file for each signature, which is read and written whole."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def _path(self, key: tuple[Any, ...]) -> Path:
        signature_and_processor = hashlib.sha256(str(key[:2]).encode()).hexdigest()[:16]
        return self._folder / f"{self._name}.{signature_and_processor}.nbc"

    def save(self, key: tuple[Any, ...], data: Any) -> None:
        path = self._path(key)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            part.write_bytes(dumps(digest()) + dumps(key) + dumps(data))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def load(self, key: tuple[Any, ...]) -> Any:
        """None if there is no such file, or if it is cut off, older, or of another kernel."""
        try:
            with self._path(key).open("rb") as file:
                if pickle.load(file) == digest() and pickle.load(file) == key:
                    return pickle.load(file)
        except (OSError, EOFError, pickle.UnpicklingError):
            pass
        return None

    def flush(self) -> None:
        for path in self._folder.glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)


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
