"""Ctrl-C, SIGTERM and SIGHUP while a model is trained: what was learnt is written first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """The first signal asks the block to stop, the second does at once what it does elsewhere.

    After the block a Ctrl-C is over: who called goes on with what there is. SIGTERM, with which
    platforms end a process, and SIGHUP of a terminal that has gone are handed on to whoever handled
    them before; without anyone the process exits with the status 128 + their number. Signals that
    are ignored, as under `nohup`, stay ignored. Outside the main thread no signal is caught.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Any] = {}
    came: list[int] = []

    def first(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        asked.set()
        _restore(before)

    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, first)
    try:
        yield asked
    finally:
        _restore(before)
    if came and came[0] != signal.SIGINT:
        if before[came[0]] is signal.SIG_DFL:
            raise SystemExit(128 + came[0])
        signal.raise_signal(came[0])


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
