"""Ctrl-C ends a command wherever it comes."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

MOMENT = 0.02  # seconds between attempts
PATIENCE = 10.0  # seconds that an import may go on after Ctrl-C


@contextlib.contextmanager
def interrupts(outermost: CodeType) -> Iterator[None]:
    """Context manager: a Ctrl-C that Python should not or cannot raise where it comes is raised a
    moment later, instead of a broken import or nothing at all.

    - Within an import that code below `outermost` began it waits for the end, for `PATIENCE` at
      most: a library of compiled code that was left half initialised cannot be imported again, and
      one that meets the interrupt may go on without a part of itself.
    - In a destructor, or in a callback from compiled code, Python prints it and forgets it.

    Outside the main thread, and where Ctrl-C is ignored or has a handler, only the second holds.
    """
    later: list[threading.Timer] = []
    asked: list[float] = []

    def again() -> None:
        later[:] = [threading.Timer(MOMENT, _interrupt)]
        later[0].start()

    def handler(signum: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] < PATIENCE and _importing(frame, outermost):
            again()
        else:
            asked.clear()
            raise KeyboardInterrupt

    def unraisable(found: Any) -> None:
        if isinstance(found.exc_value, KeyboardInterrupt):
            again()
        else:
            hook(found)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = hook
        for timer in later:
            timer.cancel()


def _importing(frame: FrameType | None, outermost: CodeType) -> bool:
    """Whether this frame, or one that called it below `outermost`, imports a module."""
    while frame is not None and frame.f_code is not outermost:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _interrupt() -> None:
    """Send the main thread a Ctrl-C, which also wakes it from a system call."""
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGINT)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
