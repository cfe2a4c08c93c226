"""Samples, tokens or rows as they come, and the state between them as data."""

from typing import TYPE_CHECKING, Any

from longstate.stream._batch import fork, join, select
from longstate.stream._saving import load_state, save_state
from longstate.stream._stream import Snapshot, Stream

if TYPE_CHECKING:
    from longstate.stream._forecast import ForecastStream, Streamed

__all__ = [
    "ForecastStream",
    "Snapshot",
    "Stream",
    "Streamed",
    "fork",
    "join",
    "load_state",
    "save_state",
    "select",
]


def __getattr__(name: str) -> Any:
    """Forecasting loads pandas on first use; a stream of samples does without."""
    if name in ("ForecastStream", "Streamed"):
        from longstate.stream import _forecast as forecast

        return getattr(forecast, name)
    raise AttributeError(f"module 'longstate.stream' has no attribute {name!r}")
