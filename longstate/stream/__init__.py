"""Samples, tokens or rows as they come, and the state between them as data."""

from typing import TYPE_CHECKING, Any

from longstate.stream.batch import fork, join, select
from longstate.stream.saving import load_state, save_state
from longstate.stream.stream import Snapshot, Stream

if TYPE_CHECKING:
    from longstate.stream.forecast import ForecastStream, Streamed

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
        from longstate.stream import forecast

        return getattr(forecast, name)
    raise AttributeError(f"module 'longstate.stream' has no attribute {name!r}")
