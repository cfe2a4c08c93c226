"""What an evaluation keeps of each window: a few numbers, for what sums do not tell.

Axes: n windows, b batch, h horizon, c targets.
"""

import numpy as np
import torch
from torch import Tensor

from longstate.train._windows import Windows


class WindowErrors:
    """Errors of each window in scaled units; nan where no value was observed."""

    def __init__(self) -> None:
        self._squared: list[np.ndarray] = []
        self._first: list[np.ndarray] = []
        self._changes: dict[str, list[np.ndarray]] = {}

    def add(self, errors: dict[str, Tensor], present: Tensor) -> None:
        """Add a batch.

        Args:
            errors: method -> (b, h, c); "model" first.
            present (b, h, c): 1 where a value was observed, 0 elsewhere.
        """
        error = torch.where(present > 0, errors["model"], torch.nan)
        self._squared.append((error**2).nanmean(1).float().numpy())
        self._first.append(error[:, 0].float().numpy())
        count = present.sum((1, 2))
        own = (present * errors["model"] ** 2).sum((1, 2))
        for method, other in errors.items():
            change = ((present * other**2).sum((1, 2)) - own) / count
            self._changes.setdefault(method, []).append(change.numpy())

    @property
    def first(self) -> np.ndarray:
        """(n, c): errors of the model one step ahead."""
        return np.concatenate(self._first)

    def noise(self, method: str, count: float) -> float | None:
        """Standard error of the difference of the squared errors of a method and of the model.

        Args:
            method: its name.
            count: number of windows without a common row; fewer than 2 tell nothing.
        """
        changes = np.concatenate(self._changes[method])
        if len(changes) < 2 or count < 2:
            return None
        return float(changes.std(ddof=1)) / count**0.5

    def worst(self, windows: Windows, count: int) -> list[tuple[int, int]]:
        """Window and target of the largest mean squared errors, the largest first. Windows of one
        series have no common row of their horizons."""
        squared = np.nan_to_num(np.concatenate(self._squared), nan=-1.0)
        found: list[tuple[int, int]] = []
        free = np.ones(len(squared), dtype=bool)
        series, at = windows.places.of(windows.origins), windows.origins
        while len(found) < count and (squared[free] >= 0).any():
            i, j = np.unravel_index(np.where(free[:, None], squared, -1).argmax(), squared.shape)
            found.append((int(i), int(j)))
            free &= (series != series[i]) | (abs(at - at[i]) >= windows.spec.horizon)
        return found
