"""Forecasts as the rows of many series arrive: one stream for each series of a panel.

Each series has its own `ForecastStream`: its last `window` rows, its scale, its quantiles. The
series whose last row is the oldest is dropped where there are too many, so memory is bounded.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longstate.errors import InputError
from longstate.models import ForecastModel
from longstate.stream._forecast import ForecastStream, Streamed
from longstate.stream._forecast_saving import load_panel, save_panel
from longstate.stream._identity import describe

MOST_ROWS = 1_000_000  # of all series together


class PanelStream:
    """Streams of forecasts keyed by series: push rows of any series, get forecasts.

    Args:
        model: of a panel, in evaluation mode.
        adapt: as in `ForecastStream`.
        most: number of series that are kept; None takes as many as have a million rows together.

    Raises:
        InputError: the model is not of a panel, or a setting is out of its range.
    """

    def __init__(self, model: ForecastModel, *, adapt: float = 0.0, most: int | None = None):
        if model.spec.id is None:
            raise InputError("this forecaster is of a single series; use ForecastStream")
        if most is not None and most < 1:
            raise InputError(f"most must be at least 1; got {most}")
        self.model, self.spec, self._adapt = model.eval(), model.spec, adapt
        self.most = most or max(1, MOST_ROWS // self.spec.window)
        self._streams: OrderedDict[str, ForecastStream] = OrderedDict()
        self._identity: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Number of series with a row so far."""
        return len(self._streams)

    def push(self, values: Mapping[str, str | float]) -> Streamed | None:
        """Add one row of one series.

        Args:
            values: as in `ForecastStream.push`, and the name of the series in the id column.

        Returns:
            The forecast of this series after the row; None until it has enough rows.

        Raises:
            InputError: the row names no series, or as in `ForecastStream.push`. All streams can be
                used further.
        """
        name = str(values.get(str(self.spec.id), "")).strip()
        if not name:
            raise InputError(f"the column {self.spec.id!r} names no series")
        stream = self._streams.get(name)
        if stream is None:
            stream = ForecastStream(self.model, adapt=self._adapt, series=name)
        streamed = stream.push(values)
        self._streams[name] = stream
        self._streams.move_to_end(name)
        if len(self._streams) > self.most:
            self._streams.popitem(last=False)
        return None if streamed is None else streamed._replace(series=name)

    def save(self, path: str | Path) -> None:
        """Write the rows of all series, atomically, so that the streams can continue later."""
        if self._identity is None:
            self._identity = describe(self.model)
        save_panel(path, self._identity, {name: s.packed() for name, s in self._streams.items()})

    def load(self, path: str | Path) -> None:
        """Continue from a file of `save`, written by streams of the same model.

        Raises:
            InputError: the file is missing, damaged, or of another model. Nothing is changed.
        """
        found: OrderedDict[str, ForecastStream] = OrderedDict()
        for name, kept in load_panel(path, self.model).items():
            found[name] = ForecastStream(self.model, adapt=self._adapt, series=name)
            found[name].take(kept)
        self._streams = found
