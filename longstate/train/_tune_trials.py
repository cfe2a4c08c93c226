"""The settings that a search tries.

Trial 0 has the given settings. Trial k depends on the seed and k alone.
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from longstate._numbers import score
from longstate.train._settings import Size, Training

if TYPE_CHECKING:
    from longstate.train._forecast import Forecaster

LAYERS = ("s4d", "s5", "mamba")
SHARE = 4
"""The training of a trial takes this part of the time at most: minutes / SHARE."""


@dataclass(frozen=True)
class Settings:
    """The settings of one trial."""

    window: int | None
    layers: str
    d_model: int
    n_layers: int
    d_state: int
    dropout: float
    learning_rate: float

    def words(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Args:
        number: from 0, the given settings.
        settings: of the trial.
        minutes: that its training might take.
        error: mean squared error of the choice on validation, scaled units; None where the trial
            failed or has not ended.
        seconds: that it took.
        why: it failed, if it did.
    """

    number: int
    settings: Settings
    minutes: float
    error: float | None = None
    seconds: float = 0.0
    why: str | None = None

    def words(self) -> str:
        found = f"error {score(self.error)}" if self.error is not None else self.why or "stopped"
        return f"Trial {self.number}: {self.settings.words()}: {found}"

    @property
    def waits(self) -> bool:
        """Whether it has begun and not ended."""
        return self.error is None and self.why is None


def next_trial(base: "Forecaster", trials: list[Trial], minutes: float) -> Trial:
    """The trial after these: the given settings, then random ones.

    Args:
        base: with the given settings.
        trials: that ended. minutes: of the whole search.
    """
    number, given = len(trials), _given(base)
    most = min(minutes / SHARE, base.training.minutes or minutes)
    if number == 0:
        return Trial(0, given, most)
    draw = np.random.default_rng([base.seed, number])
    window = trials[0].settings.window
    assert window is not None  # the first trial tells it
    pick = {
        "window": (window, max(2, window // 4), max(2, window // 2), 2 * window),
        "layers": tuple(dict.fromkeys((given.layers, *LAYERS))),
        "d_model": (16, 32, 64),
        "n_layers": (1, 2, 3),
        "d_state": (16, 64),
        "dropout": (0.0, 0.1, 0.3),
        "learning_rate": (1e-3, 2e-3, 5e-3, 1e-2),
    }
    chosen: dict[str, Any] = {n: values[draw.integers(len(values))] for n, values in pick.items()}
    return Trial(number, Settings(**chosen), most)


def _given(base: "Forecaster") -> Settings:
    size = base.size
    rate, layers = base.training.learning_rate, ",".join(base.layers)
    return Settings(
        base.window, layers, size.d_model, size.n_layers, size.d_state, size.dropout, rate
    )


def forecaster_of(base: "Forecaster", trial: Trial) -> "Forecaster":
    s = trial.settings
    size = Size(d_model=s.d_model, n_layers=s.n_layers, d_state=s.d_state, dropout=s.dropout)
    training: Training = replace(
        base.training, learning_rate=s.learning_rate, minutes=trial.minutes
    )
    return type(base)(
        base.horizon,
        window=s.window,
        layers=s.layers,
        quantiles=base.quantiles,
        season=base.season,
        size=size,
        training=training,
        seed=base.seed,
    )
