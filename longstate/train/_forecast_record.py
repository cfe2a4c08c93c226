"""The description in the file of a forecaster, beside its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longstate._environment import environment
from longstate._facts import read, value_of
from longstate.errors import InputError, expect
from longstate.models import ForecastSpec
from longstate.models._block import Gate
from longstate.train import _checkpoint as checkpoint
from longstate.train._checkpoint import CHECKPOINT
from longstate.train._chosen import Chosen
from longstate.train._history import TrainingHistory
from longstate.train._keeping import TrainingFacts
from longstate.train._old_names import ADDED
from longstate.train._settings import Size, Training
from longstate.train._table import Table
from longstate.train._windows import Split


@dataclass(frozen=True)
class ForecastRecord:
    """A forecaster's description and the record of its training.

    Args:
        spec: of the forecast; `ForecastSpec.of` reads it.
        layers, size, training, seed: as `Forecaster` takes them.
        history: of the training.
        seen_rows: rows of training and validation. seen_digest: of these rows.
        seen_until: the last of their times, where there are times.
        split: shares of training, validation and test.
        notes: sentences about the data.
        environment: versions that it was trained with.
        made: the layers, from `describe_layer`, if they do not follow from `size`.
        choice: how the forecast was chosen.

    Raises:
        InputError: a value is out of its range.
    """

    spec: dict[str, Any]
    layers: str
    size: Size
    training: Training
    seed: int
    history: TrainingHistory
    seen_rows: int
    seen_digest: str
    seen_until: str | None
    split: tuple[float, ...]
    notes: tuple[str, ...]
    environment: dict[str, str]
    made: list[dict[str, Any]] | None = None
    choice: Chosen | None = None

    def __post_init__(self) -> None:
        expect(self.seen_rows >= 0, f"seen_rows must be at least 0; got {self.seen_rows}")
        expect(len(self.history.looks) > 0, "history must hold at least one look")
        blocks = self.size.n_layers if self.made is None else len(self.made)
        expect(blocks == self.size.n_layers, f"made must hold {self.size.n_layers} layers")

    def check_until(self, spec: ForecastSpec) -> None:
        """Check that `seen_until` is a time of the forecast's calendar."""
        if self.seen_until is None or spec.calendar is None:
            return
        try:
            spec.calendar.untext(self.seen_until)
        except (ValueError, TypeError, ArithmeticError) as e:
            raise InputError(f"seen_until is no time: {e}") from None


def facts_of(
    table: Table, parts: Split, split: Sequence[float], remarks: Sequence[str]
) -> dict[str, Any]:
    """The fields of `ForecastRecord` that are known before a training, as JSON values."""
    seen = parts.validation
    return {
        "seen_rows": seen,
        "seen_digest": table.digest(seen),
        "seen_until": table.moment(seen - 1),
        "split": list(split),
        "notes": [*remarks, *table.notes],
        "environment": environment(),
    }


def begun_run(out: str | Path | None) -> dict[str, Any]:
    """Window and gate of the training that was stopped in this folder; nothing if there is none."""
    path = None if out is None else Path(out) / CHECKPOINT
    if path is None or not path.exists():
        return {}
    identity = read(TrainingFacts, checkpoint.load(path, "training")[1], f"{path}").identity
    gate = value_of(identity.get("gate", ADDED["gate"]), Gate, f"the gate in {path}")
    window = str(identity.get("window", ""))
    return {"gate": gate, "window": int(window) if window.isdecimal() else None}


def training_notes(history: TrainingHistory) -> list[str]:
    """A remark on a training that ended while it still improved."""
    last = history.looks[-1].step
    if history.ended not in ("finished", "out of time") or history.best_step < last or last == 0:
        return []
    return [
        f"The training was {history.ended} while the validation loss still fell; more epochs (or "
        "minutes, or a larger learning_rate) may give better forecasts."
    ]
