"""Handle Ctrl-C, SIGTERM and SIGHUP during a training, so that a checkpoint is written first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Context manager: the first signal sets an event, which asks the block to stop. A second one
    has its usual effect at once.

    After the block, Ctrl-C has no further effect, and the caller continues with the result. SIGTERM
    and SIGHUP are passed on to their earlier handlers; without one the process exits with the
    status 128 + their number. Signals that are ignored, as under `nohup`, stay ignored. Outside the
    main thread no signal is caught.
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
