"""A random search for the settings of a forecaster, judged on validation.

Trial 0 has the given settings, so that the search never ends with worse ones on validation. A
search that was stopped, or killed, goes on where it was.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from longstate._facts import read
from longstate._files import write_whole
from longstate._numbers import score
from longstate.errors import InputError
from longstate.train import _ranks as ranks
from longstate.train._checkpoint import CHECKPOINT, MODEL
from longstate.train._tune_trials import Trial, forecaster_of, next_trial

if TYPE_CHECKING:
    from longstate.train._forecast import Forecaster

RECORD = "tune.json"
SEARCHED = "Search for settings"
MOST_MINUTES = 7 * 24 * 60
MOST_TRIALS = 10_000
MOST_FAILED = 20  # one after the other


@dataclass(frozen=True)
class Tuning:
    """A search for settings before a fit.

    Args:
        minutes: time after which no trial begins, a week at most.
        told: called with each trial that ended.

    Raises:
        InputError: minutes are not above 0.
    """

    minutes: float
    told: Callable[[Trial], None] | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.minutes, int | float) and not isinstance(self.minutes, bool)
        if not number or not 0 < self.minutes <= MOST_MINUTES:
            raise InputError(
                f"minutes of a search must be above 0 and at most {MOST_MINUTES:,}, a week; got "
                f"{self.minutes!r}"
            )


@dataclass(frozen=True)
class _Record:
    """The file of a search: the data and given settings as text, and the trials."""

    identity: dict[str, str]
    trials: tuple[Trial, ...]


class Found(NamedTuple):
    """The result of a search."""

    forecaster: "Forecaster"
    trials: tuple[Trial, ...]
    stopped: bool


def search(
    base: "Forecaster",
    tuning: Tuning,
    identity: dict[str, str],
    out: Path | None,
    fit: Callable[["Forecaster", Path | None], None],
) -> Found:
    """Try settings until the time is over, or Ctrl-C.

    Args:
        base: with the given settings; not changed.
        tuning: time and messages.
        identity: of the data and the given settings, as text.
        out: folder of the search; one there is continued. It always has the best model so far.
        fit: trains a forecaster, with its run in a folder.

    Raises:
        InputError: the given settings cannot be used, or the folder is of another search.
    """
    if ranks.size() > 1:
        raise InputError("a search for settings works in one process; got it with several")
    if out is not None and (out / CHECKPOINT).exists():
        raise InputError(f"{out} holds a training without a search; choose another folder")
    trials = [] if out is None else _saved(out / RECORD, identity)
    trial = trials.pop() if trials and trials[-1].waits else None
    best = type(base).load(out / MODEL) if out is not None and _errors(trials) else None
    stopped = False
    while not stopped and (trial is not None or _goes_on(trials, tuning.minutes)):
        trial = trial or next_trial(base, trials, tuning.minutes)
        _save(out, identity, [*trials, trial])
        one = forecaster_of(base, trial)
        try:
            ended = _ended(trial, one, partial(fit, one, _folder(out, trial.number)))
        except InputError:  # of the given settings
            if out is not None:
                (out / RECORD).unlink()
            raise
        except KeyboardInterrupt:
            if best is None:
                raise
            stopped = True
            break
        stopped = ended.waits
        if best is None or (ended.error is not None and ended.error < min(_errors(trials))):
            best = one
            if out is not None:
                one.save(out / MODEL)
        if not stopped:
            trials.append(ended)
            _save(out, identity, trials)
        if tuning.told is not None:
            tuning.told(ended)
        trial = None
    assert best is not None
    return Found(best, tuple(trials), stopped)


def check_no_search(out: str | Path | None) -> None:
    """Raise InputError if the folder is that of a search."""
    if out is not None and (Path(out) / RECORD).exists():
        raise InputError(
            f"{out} holds a search for settings; tune (--tune) continues it, or choose another "
            "folder"
        )


def _ended(trial: Trial, one: "Forecaster", fit: Callable[[], None]) -> Trial:
    """The trial after its training; without an error where that was interrupted."""
    started = time.monotonic()
    try:
        fit()
    except InputError as e:
        if trial.number == 0:
            raise
        return replace(trial, why=str(e), seconds=time.monotonic() - started)
    if one.history.ended == "interrupted":
        return trial
    choice = one.choice
    assert choice is not None
    seconds = max(one.history.seconds, time.monotonic() - started)
    settings = replace(trial.settings, window=one.model.spec.window)
    return replace(trial, error=choice.error, seconds=seconds, settings=settings)


def _goes_on(trials: list[Trial], minutes: float) -> bool:
    used = sum(trial.seconds for trial in trials)
    failed = trials[-MOST_FAILED:]
    hopeless = len(failed) == MOST_FAILED and not _errors(failed)
    return not trials or (used < 60 * minutes and not hopeless and len(trials) < MOST_TRIALS)


def _errors(trials: Sequence[Trial]) -> list[float]:
    return [trial.error for trial in trials if trial.error is not None]


def _folder(out: Path | None, number: int) -> Path | None:
    return None if out is None else out / "trials" / str(number)


def _saved(path: Path, identity: dict[str, str]) -> list[Trial]:
    """The trials of the search in this file; none if there is no file."""
    if not path.exists():
        return []
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read: {e}") from None
    found = read(_Record, raw, f"{path}")
    for name in identity.keys() | found.identity.keys():
        theirs, ours = found.identity.get(name), identity.get(name)
        if theirs != ours:
            raise InputError(
                f"{path} belongs to another search: its {name} is {theirs}, here it is {ours}; "
                "choose another folder"
            )
    return list(found.trials)


def _save(out: Path | None, identity: dict[str, str], trials: Sequence[Trial]) -> None:
    if out is not None:
        record = _Record(identity, tuple(trials))
        write_whole(out / RECORD, json.dumps(asdict(record), indent=1))


def remark(found: Found) -> str:
    """What the search found, for the notes of the forecaster."""
    good = [trial for trial in found.trials if trial.error is not None]
    if not good:
        return f"{SEARCHED}: stopped before its first trial ended."
    best = min(good, key=lambda trial: trial.error or 0.0)
    return (
        f"{SEARCHED}: of {len(good)} settings the best on validation is trial {best.number} "
        f"({best.settings.words()}): error {score(best.error or 0.0)}, "
        f"{score(good[0].error or 0.0)} with the given ones. The least of several errors is too "
        "good; the evaluation tells what it is worth."
    )
