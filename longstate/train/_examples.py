"""The windows that a report draws."""

import numpy as np
import torch
from torch import Tensor

from longstate.train._evaluation import Example
from longstate.train._windows import Batch, Windows

DRAWN = 8  # series of a panel, of each kind


def examples_of(
    windows: Windows, batch: Batch, points: dict[str, Tensor], quantiles: Tensor
) -> tuple[Example, ...]:
    """One for each target.

    Args:
        windows: the source of the batch. batch: of one window.
        points: method -> (1, h, c). quantiles (1, h, c, q): of the model. In the data's own units.
    """
    spec, origin, table = windows.spec, int(batch.rows[0]), windows.table
    kept = min(spec.window, 2 * spec.horizon)
    past = torch.where(batch.window.observed, batch.window.target, torch.nan)[0, -kept:]
    truth = torch.where(batch.present, batch.future, torch.nan)[0]
    rows = range(origin - kept, origin + spec.horizon)
    of = windows.places.names[int(windows.places.of(batch.rows)[0])]
    return tuple(
        Example(
            target=f"{name} of {of}" if table.panel else name,
            times=tuple(table.label(row) for row in rows),
            past=tuple(past[:, j].tolist()),
            truth=tuple(truth[:, j].tolist()),
            forecasts={m: tuple(p[0, :, j].tolist()) for m, p in points.items()},
            quantiles={
                level: tuple(quantiles[0, :, j, k].tolist())
                for k, level in enumerate(spec.quantiles)
            },
        )
        for j, name in enumerate(spec.targets)
    )


def picked(names: list[str]) -> dict[str, str]:
    """Series to draw, and why: the first and the last ones, and some of the others at random, which
    are the same for the same series.

    Args:
        names: of all series, the largest error first.
    """
    last = max(DRAWN, len(names) - DRAWN)
    rest = names[DRAWN:last]
    chance = sorted(np.random.default_rng(0).permutation(len(rest))[:DRAWN])
    return {
        **dict.fromkeys(names[:DRAWN], "largest error"),
        **dict.fromkeys((rest[i] for i in chance), "random"),
        **dict.fromkeys(names[last:], "smallest error"),
    }
