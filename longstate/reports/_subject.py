"""The subject of a memory report: a model from a folder or a file, and data for it.

The path may be anything that `longstate.load` opens: a run of `longstate train`, a checkpoint of
transformers or mamba-ssm, the file of a model or a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from longstate._formats import refuse_format
from longstate._saved import load
from longstate.errors import InputError
from longstate.memory._recording import Data
from longstate.models import ForecastModel, LanguageModel
from longstate.models._series import SeriesModel
from longstate.train import Forecaster, SeriesData, TextModel, read_table
from longstate.train._forecast_frame import first_unseen
from longstate.train._series_estimator import SeriesEstimator
from longstate.train._series_files import read_as_trained
from longstate.train._windows import Windows

if TYPE_CHECKING:
    import pandas as pd

TEXT = """\
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of
Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair, we
had everything before us, we had nothing before us, we were all going direct to Heaven, we were all
going direct the other way.
"""
"""Default text for a text model: the first words of A Tale of Two Cities (Dickens, 1859)."""

VALIDATION = "validation.npy"
"""File with the first tokens of a text run's validation part, written by the training."""
_IRREGULAR = (
    "The model reads the times of its samples. What is said here of its layers is for samples at "
    "the usual interval (dt = 1); `longstate certify --dt LOW HIGH` is for intervals of a range."
)
_MOST_BYTES = 1 << 22  # bytes of a text that are read, at most
_BYTES = 256


@dataclass(frozen=True)
class Subject:
    """A model to examine.

    Args:
        name: its name in the report.
        model: in evaluation mode, on the CPU.
        unit: name of its samples, in the plural: "tokens", "rows", "samples".
        length: of its training sequences, in these units. None: unknown.
        folder: its folder, which may contain a tokenizer.
        forecaster: the forecaster of the model, if any.
        found: the object that `longstate.load` returned.
    """

    name: str
    model: nn.Module
    unit: str
    length: int | None
    folder: Path
    forecaster: Forecaster | None = None
    found: object = None

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens of a text model."""
        return self.model.spec.vocab_size if isinstance(self.model, LanguageModel) else None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What limits all statements about the model: one that reads times has no regular step."""
        m = self.model
        stamped = isinstance(m, SeriesModel) and m.time is not None
        if stamped or (isinstance(m, ForecastModel) and m.spec.irregular):
            return (_IRREGULAR,)
        return ()

    def read(self, data: Path | None) -> "Reading":
        """Data for the model.

        Args:
            data: for a text model a text, or integers below the vocabulary's size in a `.npy` file;
                for a forecaster a CSV file with the columns of its training; for a classifier or
                a regressor series as `longstate.train.read_series` reads them. None: the validation
                text of a text run, or a short default text; no data for other models.

        Raises:
            InputError: the file is missing or does not fit.
        """
        if self.vocabulary is not None:
            return _read_tokens(self, self.vocabulary, data)
        if data is None:
            return Reading("no data", None, None)
        if isinstance(self.found, SeriesEstimator):
            return _read_series(self.found, data)
        if self.forecaster is None:
            raise InputError(
                f"{self.name} cannot read {data}: only a run of `longstate train` and language "
                "models read data"
            )
        return _read_rows(self.forecaster, data)


@dataclass(frozen=True)
class Reading:
    """Opened data.

    Args:
        what: description of the data.
        tokens (t): of a text.
        run: runs the model on the data; None if there is none.
        text: function from tokens to text; None if there is none.
        frame: rows for a forecaster; None if there are none.
        series: cases for a classifier or a regressor; None if there are none.
        estimator: the one that reads them.
    """

    what: str
    tokens: Tensor | None
    run: Callable[[], object] | None
    text: Callable[[list[int]], str] | None = None
    frame: "pd.DataFrame | None" = None
    series: SeriesData | None = None
    estimator: SeriesEstimator | None = None

    def split(self, share: float = 0.75) -> "tuple[Reading, Reading]":
        """A text or series in two: to learn from, and to measure on. Rows of a forecaster as they
        are, twice, because it evaluates on their last part."""
        if self.series is not None:
            n = len(self.series.X)
            judged = np.unique(np.linspace(0, n - 1, max(1, round((1 - share) * n))).astype(int))
            learnt = np.setdiff1d(np.arange(n), judged)
            return self._cases(learnt), self._cases(judged)
        if self.tokens is None:
            return self, self
        at = round(share * len(self.tokens))
        first, second = self.tokens[:at], self.tokens[at:]
        return replace(self, tokens=first), replace(self, tokens=second)

    def whole(self, rows: int, length: int) -> "Data | list[np.ndarray] | None":
        """Data for `reduce` and `heal`: as `data`, but all of the series."""
        return self.data(rows, length) if self.series is None else self.series.X

    def words(self, count: int) -> tuple[str, ...]:
        """Text of each of the first tokens; empty if unknown."""
        if self.tokens is None or self.text is None:
            return ()
        return tuple(self.text([i]) for i in self.tokens[:count].tolist())

    def _cases(self, places: np.ndarray) -> "Reading":
        assert self.series is not None
        some = self.series.take(places.tolist())
        return replace(self, what=f"{len(places)} of {self.what}", series=some)

    def data(self, rows: int, length: int) -> Data | None:
        """Data for `certify` and `record`: for a text, evenly spaced pieces (b, t); of series
        some of the most frequent length."""
        if self.series is not None and self.estimator is not None:
            return max(self.estimator.inputs(self.series.X), key=len)[:rows]
        if self.tokens is None:
            return self.run
        t = min(length, len(self.tokens))
        starts = np.linspace(0, len(self.tokens) - t, min(rows, len(self.tokens) // t)).astype(int)
        return torch.stack([self.tokens[i : i + t] for i in starts.tolist()])


def open_subject(path: str | Path) -> Subject:
    """The model in a folder or a file that `longstate.load` can open.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(path)
    found = load(path)
    name, folder = str(path), path if path.is_dir() else path.parent
    if isinstance(found, Forecaster):
        window = found.model.spec.window
        return Subject(name, found.model, "rows", window, folder, found, found)
    if isinstance(found, TextModel):
        return Subject(name, found.model, "tokens", found.context, folder, found=found)
    if isinstance(found, SeriesEstimator):
        stride = found.network_.stride
        unit = "samples" if stride == 1 else f"frames of {stride} samples"
        return Subject(name, found.network_, unit, None, folder, found=found)
    if isinstance(found, ForecastModel):
        return Subject(name, found, "rows", found.spec.window, folder, found=found)
    unit = "tokens" if isinstance(found, LanguageModel) else "samples"
    return Subject(name, found, unit, None, folder, found=found)


def _read_tokens(subject: Subject, vocabulary: int, data: Path | None) -> Reading:
    own = subject.folder / VALIDATION
    if data is not None and not data.is_file():
        raise _no_file(data)
    if data is not None and data.suffix == ".npy":
        tokens, what = _numbers(data), str(data)
    elif data is None and own.is_file():
        tokens, what = _numbers(own), "the beginning of its validation text"
    elif data is None:
        what = "the first words of A Tale of Two Cities"
        tokens = _encode(subject, vocabulary, TEXT.encode())
    else:
        with data.open("rb") as file:
            text = file.read(_MOST_BYTES)
        refuse_format(data, text[:512], "a text or a .npy file", markup=True)
        tokens, what = _encode(subject, vocabulary, text), str(data)
    if len(tokens) < 2:
        raise InputError(f"{what} holds {len(tokens)} tokens; at least 2 are needed")
    if int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary:
        raise InputError(
            f"{what} holds token {int(tokens.max())}; the model has tokens 0 to {vocabulary - 1}"
        )
    return Reading(what, tokens, None, _decoder(subject, vocabulary))


def _no_file(data: Path) -> InputError:
    if data.is_dir():
        return InputError(f"{data} is a folder; --data is a file")
    return InputError(f"there is no file {data}")


def _decoder(subject: Subject, vocabulary: int) -> Callable[[list[int]], str] | None:
    """The function from tokens to text; None if there is none."""
    file = subject.folder / "tokenizer.json"
    if not file.is_file():
        if vocabulary != _BYTES:
            return None
        return lambda ids: bytes(ids).decode("utf-8", "replace")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    made = Tokenizer.from_file(str(file))
    return lambda ids: str(made.decode(ids))


def _encode(subject: Subject, vocabulary: int, text: bytes) -> Tensor:
    """Tokens of a text: its bytes if there are 256 tokens; otherwise a tokenizer is needed."""
    file = subject.folder / "tokenizer.json"
    if not file.is_file():
        if vocabulary != _BYTES:
            raise InputError(
                f"{subject.name} has {vocabulary:,} tokens and no tokenizer.json beside it; give "
                "--data a .npy file of token numbers"
            )
        return torch.tensor(list(text))
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            f"{file} needs the package tokenizers, which is not installed; give --data a .npy "
            "file of token numbers instead"
        ) from None
    return torch.tensor(Tokenizer.from_file(str(file)).encode(text.decode("utf-8", "replace")).ids)


def _numbers(path: Path) -> Tensor:
    try:
        numbers = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise InputError(f"{path} is not a file of numbers that NumPy reads: {e}") from None
    if not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"{path} must hold whole numbers; it holds {numbers.dtype}")
    return torch.from_numpy(numbers.astype(np.int64).reshape(-1))


def _read_series(estimator: SeriesEstimator, data: Path) -> Reading:
    series = read_as_trained(estimator.source, data, labelled=False)
    estimator.source.check_rate(series.rate)
    what = f"the {len(series.X)} cases of {data}"
    return Reading(what, None, None, series=series, estimator=estimator)


def _read_rows(forecaster: Forecaster, data: Path) -> Reading:
    if not data.is_file():
        raise _no_file(data)
    frame = read_table(data)
    run = partial(forecaster.predict, frame)
    return Reading(f"the last rows of {data}", None, run, frame=frame)


def read_windows(forecaster: Forecaster, frame: "pd.DataFrame", count: int = 512) -> object:
    """Run the model on evenly spaced windows of the rows before those of an evaluation."""
    table, spec = forecaster._table(frame), forecaster.model.spec
    windows = Windows(table, spec, 0, first_unseen(table, forecaster.facts, spec.horizon) or None)
    at = np.unique(np.linspace(0, len(windows) - 1, min(count, len(windows))).astype(int))
    parts = np.array_split(at, -(-len(at) // 64))
    return [forecaster.model(windows.batch(part).window) for part in parts]
