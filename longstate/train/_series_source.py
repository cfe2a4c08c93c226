"""Series from files, and what a run remembers of the files that it was trained on.

Axes: n cases, c channels, t time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from longstate.errors import InputError
from longstate.train._stamps import irregular


@dataclass(frozen=True)
class Columns:
    """The columns of a CSV file in long form. All others are channels."""

    case: str = "case"
    time: str = "time"
    label: str = "label"


@dataclass(frozen=True)
class Source:
    """What a run remembers of its files. rate: samples per second, None if unknown. dated: whether
    the stamps were dates, which are read in seconds; None if stamps are not read."""

    columns: Columns = field(default_factory=Columns)
    rate: int | None = None
    dated: bool | None = None

    def check_rate(self, rate: int | None) -> None:
        """Refuse files of another sample rate, where a model runs at that of its training only.

        Raises:
            InputError: both rates are known, and differ.
        """
        if None not in (rate, self.rate) and rate != self.rate:
            raise InputError(
                f"the files have {rate} samples per second; the model was trained on {self.rate}. "
                "Convert the files"
            )

    def interval(self, rate: int | None, given: float | None = None) -> float:
        """The sampling interval of other files as a multiple of that of the training.

        Args:
            rate: samples per second of the files.
            given: what the user says that it is.

        Returns:
            What the sample rates make it, if both are known; else what was given, or 1.

        Raises:
            InputError: what was given is not what the sample rates make it.
        """
        if rate is None or self.rate is None:
            return 1.0 if given is None else given
        found = self.rate / rate
        if given is not None and given != found:
            raise InputError(
                f"--rate is {given:g}; but the files have {rate} samples per second, and the model "
                f"was trained on {self.rate}, which is a rate of {found:g}. Leave --rate out"
            )
        return found


STAMPS = 0
"""The channel of the stamps of `with_stamps`."""


class SeriesData(NamedTuple):
    """X: an array (c, t) for each case. y (n): labels, None if the files have none. names (n).
    rate: samples per second, None if the files do not tell. times: the stamps (t) of each case
    since its first one, None if the files have none. dated: whether they are dates, in seconds."""

    X: list[np.ndarray]
    y: np.ndarray | None
    names: list[str]
    rate: int | None
    times: list[np.ndarray] | None = None
    dated: bool | None = None

    def take(self, places: Sequence[int]) -> "SeriesData":
        """Some of the cases."""
        y = None if self.y is None else self.y[list(places)]
        times = None if self.times is None else [self.times[i] for i in places]
        X, names = [self.X[i] for i in places], [self.names[i] for i in places]
        return self._replace(X=X, y=y, names=names, times=times)

    def source(self, columns: Columns) -> Source:
        """What a run remembers of them, before stamps are read."""
        return Source(columns, self.rate)

    @property
    def irregular(self) -> bool:
        """Whether the stamps are irregular."""
        return self.times is not None and irregular(self.times)

    def with_stamps(self, columns: Columns) -> "SeriesData":
        """X with the stamps as one more channel, the first one; see `STAMPS`.

        Raises:
            InputError: there are no stamps.
        """
        if self.times is None:
            raise InputError(
                f"the stamps are read from a column of a .csv file, and there is no column "
                f"{columns.time!r}; name it with --time"
            )
        X = [np.concatenate([t[None], x]) for t, x in zip(self.times, self.X, strict=True)]
        return self._replace(X=X)
