"""Labelled series in files.

- `.ts`, the format of aeon and sktime: unequal lengths, `?` for missing, several channels.
- CSV, Parquet or Arrow in long form: one row for each sample, with columns for the case, the time
  and the label.
- `.wav`: a folder with one folder per class, or a folder and a table of files and labels.

Axes: n cases, c channels, t time.
"""

import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from longstate._files import missing
from longstate._formats import TABLE, refuse_format, start_of, table_format
from longstate.errors import InputError, near
from longstate.models._time_text import passed
from longstate.train._data_file import read_table
from longstate.train._series_source import Columns, SeriesData, Source
from longstate.train._series_times import in_order

_USUAL = Columns()
_MISSING = {"?", "nan", "NaN", "NAN", ""}


def read_series(
    paths: str | Path | Sequence[str | Path],
    columns: Columns = _USUAL,
    labels: str | Path | None = None,
    *,
    labelled: bool = True,
    dated: bool | None = None,
) -> SeriesData:
    """Read cases from a file or a folder, or from several.

    Args:
        paths: files `.ts` or `.wav`, CSV, Parquet or Arrow files, or folders with `.wav` files.
        columns: of a CSV, Parquet or Arrow file.
        labels: a CSV, Parquet or Arrow file with the columns `file` and `label`, for `.wav` files.
        labelled: whether every case needs a label.
        dated: whether the times of the training were dates; None if it read no stamps.

    Raises:
        InputError: a path does not exist or cannot be read; the message names the line.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    table = None if labels is None else _label_table(Path(labels))
    parts = [_read(Path(path), columns, table, dated) for path in listed]
    rates = sorted({part.rate for part in parts if part.rate is not None})
    if len(rates) > 1:
        raise InputError(f"the files have sample rates of {rates} per second; one is needed")
    X = [x for part in parts for x in part.X]
    if not X:
        raise InputError(f"there are no cases in {', '.join(map(str, listed))}")
    names = [name for part in parts for name in part.names]
    without = [str(path) for path, part in zip(listed, parts, strict=True) if part.y is None]
    if labelled and without:
        raise InputError(f"{without[0]} has no labels; in a table label (--label) names them")
    y = None if without else np.concatenate([np.asarray(part.y) for part in parts])
    kinds = {part.dated for part in parts}
    if {True, False} <= kinds:
        raise InputError(
            f"some of the files have dates in column {columns.time!r}, and some numbers"
        )
    times = None if None in kinds else [t for part in parts for t in part.times or ()]
    rate = rates[0] if rates else None
    return SeriesData(X, y, names, rate, times, None if times is None else kinds.pop())


def read_as_trained(
    source: Source,
    paths: str | Path | Sequence[str | Path],
    labels: str | Path | None = None,
    *,
    labelled: bool = True,
) -> SeriesData:
    """`read_series` with the columns of a run, and with the stamps if the run read them."""
    found = read_series(paths, source.columns, labels, labelled=labelled, dated=source.dated)
    return found if source.dated is None else found.with_stamps(source.columns)


def _read(
    path: Path, columns: Columns, table: dict[str, str] | None, dated: bool | None
) -> SeriesData:
    if not path.exists():
        raise missing(path, "file or folder")
    if path.is_dir():
        return _read_folder(path, table)
    kind = path.suffix.lower()
    if kind == ".wav":
        return _read_waves([path], [path.name], table)
    if kind == ".ts":
        return read_ts(path)
    if TABLE.search(path.name) or table_format(path):
        return _read_long(path, columns, dated)
    raise InputError(
        f"{path} is of no known kind; .ts, .csv, .parquet, .arrow or .wav was expected, or a folder"
    )


def read_ts(path: str | Path) -> SeriesData:
    """Read a `.ts` file.

    Raises:
        InputError: it is no such file, has timestamps, or a line cannot be read.
    """
    path = Path(path)
    header: dict[str, str] = {}
    X, y = [], []
    for number, line in _lines(path):
        if line.startswith("@") and "@data" not in header:
            name, _, value = line.partition(" ")
            header[name.lower()] = value.strip().lower()
            if header.get("@timestamps", "false") == "true":
                raise InputError(
                    f"{path} has timestamps, which are read from .csv files only; write a table "
                    "with the columns case, time, label and the channels, or the values alone with "
                    "@timeStamps false"
                )
            continue
        if "@data" not in header:
            raise InputError(f"{path} line {number}: expected a line with @, as in a .ts file")
        values, label = _ts_case(path, number, line, header)
        X.append(values)
        y.append(label)
        if len(X[-1]) != len(X[0]):
            raise InputError(
                f"{path} line {number} has {len(X[-1])} channels; the first case has {len(X[0])}"
            )
    if "@data" not in header:
        raise InputError(f"{path} is no .ts file: it has no line @data")
    if not X:
        raise InputError(f"{path} has no cases after @data")
    names = [f"{path.stem} {i}" for i in range(len(X))]
    if not _ts_labelled(header):
        return SeriesData(X, None, names, None)
    numbers = header.get("@targetlabel", "false").startswith("true")
    found: Any = [_number(path, label) for label in y] if numbers else y
    return SeriesData(X, np.array(found), names, None)


def _ts_labelled(header: dict[str, str]) -> bool:
    return any(header.get(n, "false").startswith("true") for n in ("@classlabel", "@targetlabel"))


def _ts_case(path: Path, number: int, line: str, header: dict[str, str]) -> tuple[np.ndarray, str]:
    parts = line.split(":")
    label = parts.pop().strip() if _ts_labelled(header) else ""
    try:
        channels = [[_value(v.strip()) for v in part.split(",")] for part in parts]
    except ValueError as e:
        raise InputError(f"{path} line {number} has a value that is no number: {e}") from None
    if not channels:
        raise InputError(f"{path} line {number} has a label and no values")
    longest = max(map(len, channels))
    whole = [c + [np.nan] * (longest - len(c)) for c in channels]
    return np.array(whole), label


def _value(text: str) -> float:
    return np.nan if text in _MISSING else float(text)


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path} has a target that is no number: {text!r}") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are neither empty nor comments."""
    try:
        refuse_format(path, start_of(path), "a .ts file")
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not line.startswith("#"):
                    yield number, line.strip()
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None


def _read_long(path: Path, columns: Columns, dated: bool | None) -> SeriesData:
    frame = read_table(path)
    frame = frame.reset_index(level=[name for name in frame.index.names if name is not None])
    own = [str(name) for name in frame.columns]
    if columns.case not in own:
        raise InputError(
            f"{path} has no column {columns.case!r} that tells the cases apart; "
            f"{near(columns.case, own)}"
        )
    time: str | None = columns.time if columns.time in own else None
    label: str | None = columns.label if columns.label in own else None
    channels = [name for name in own if name not in (columns.case, time, label)]
    if not channels:
        raise InputError(f"{path} has no column for a channel beside {', '.join(own)}")
    stamps = None
    if time is not None:
        frame, stamps = in_order(path, frame, columns.case, time, dated)
        frame = frame.reset_index(drop=True)
    X, y, names, times = [], [], [], []
    for name, rows in frame.groupby(columns.case, sort=False):
        if stamps is not None:
            times.append(passed(stamps[rows.index]))
        hint = "; if it is the class, name it with label (--label)" if label is None else ""
        X.append(np.stack([_numbers(rows[c], f"{path}, case {name}", hint) for c in channels]))
        names.append(str(name))
        if label is not None:
            own_labels = rows[label].dropna().unique()
            if len(own_labels) != 1:
                raise InputError(
                    f"{path}, case {name}: column {label!r} must hold one label; it holds "
                    f"{len(own_labels)}"
                )
            y.append(own_labels[0])
    found = SeriesData(X, None if label is None else np.array(y), names, None)
    if stamps is None:
        return found
    return found._replace(times=times, dated=isinstance(stamps, pd.DatetimeIndex))


def _numbers(channel: pd.Series, where: str, hint: str) -> np.ndarray:
    try:
        return channel.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as e:
        raise InputError(f"{where}: column {channel.name!r} holds no numbers ({e}){hint}") from None


def _read_folder(folder: Path, table: dict[str, str] | None) -> SeriesData:
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and any(_waves(p)))
    if table is None and inside:
        files = [file for part in inside for file in _waves(part)]
        classes = {str(file.relative_to(folder)): file.parent.name for file in files}
        return _read_waves(files, list(classes), classes)
    if not (files := list(_waves(folder))):
        raise InputError(f"{folder} holds no .wav files, and no folders with .wav files")
    return _read_waves(files, [str(file.relative_to(folder)) for file in files], table)


def _waves(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if p.suffix.lower() == ".wav")


def _label_table(path: Path) -> dict[str, str]:
    frame = read_table(path)
    for name in ("file", "label"):
        if name not in frame.columns:
            raise InputError(f"{path} has no column {name!r}; it needs the columns file and label")
    return dict(zip(frame["file"].astype(str), frame["label"].astype(str), strict=True))


def _read_waves(
    files: Sequence[Path], names: list[str], table: dict[str, str] | None
) -> SeriesData:
    found = [read_wave(file) for file in files]
    rates = {rate: file for (_, rate), file in zip(found, files, strict=True)}
    if len(rates) > 1:
        said = " and ".join(f"{file} has {rate}" for rate, file in list(rates.items())[:2])
        raise InputError(f"sample rates differ: {said} samples per second; convert the files")
    y = None
    if table is not None:
        without = [name for name in names if name not in table]
        if without:
            raise InputError(f"{without[0]} has no label in the table; {near(without[0], table)}")
        y = np.array([table[name] for name in names])
    return SeriesData([x for x, _ in found], y, names, next(iter(rates)))


def read_wave(path: Path) -> tuple[np.ndarray, int]:
    """The samples (c, t) of a WAV file, from -1 to 1, and the samples per second.

    Raises:
        InputError: the file is empty, damaged, or not of whole numbers (PCM).
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, count = file.getparams()[:4]
            raw = file.readframes(count)
    except (OSError, EOFError, wave.Error) as e:
        raise InputError(f"{path} is no WAV file of PCM: {str(e) or 'cut short'}") from None
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if not raw:
        raise InputError(f"{path} holds no samples")
    if width == 1:  # unsigned
        values = (np.frombuffer(raw, np.uint8).astype(np.float64) - 128) / 128
    else:
        bytes_ = np.frombuffer(raw, np.uint8).reshape(-1, width)
        wide = np.zeros((len(bytes_), 4), np.uint8)
        wide[:, 4 - width :] = bytes_  # the most significant bytes come last
        values = wide.view("<i4")[:, 0] / 2.0**31
    return values.reshape(-1, channels).T, rate
