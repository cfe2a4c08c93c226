"""What is decided and solved before training starts."""

from collections.abc import Sequence

from longstate.errors import InputError
from longstate.models import ForecastModel, ForecastSpec
from longstate.train._baselines import fit_ridge
from longstate.train._forecast_task import fit_scale, fit_spread
from longstate.train._table import Table
from longstate.train._windows import (
    Split,
    Windows,
    calendar_of,
    check_split,
    season_of,
    split_rows,
)

WINDOW = 336


def plan(
    table: Table,
    horizon: int,
    window: int | None,
    season: int | None,
    quantiles: tuple[float, ...],
    split: Sequence[float],
) -> tuple[ForecastSpec, Split]:
    """Columns, lengths and parts. `window` and `season` None are found from the table.

    Raises:
        InputError: a part is too short.
    """
    check_split(split)
    train_rows = int(table.rows * split[0])
    spec = ForecastSpec(
        targets=table.columns.targets,
        covariates=table.columns.covariates,
        known=table.columns.known,
        time=table.columns.time,
        step=table.step,
        calendar=calendar_of(table, train_rows),
        window=window or max(1, min(WINDOW, (train_rows - horizon) // 2)),
        horizon=horizon,
        season=season or season_of(table, train_rows),
        quantiles=quantiles,
    )
    return spec, split_rows(table, spec, split)


def solve(
    model: ForecastModel, training: Windows, validation: Windows, rows: int
) -> tuple[str, ...]:
    """Set what needs no training: scales, the line, the quantiles' spread.

    Args:
        model: of the same spec as the windows.
        training, validation: windows of the two parts.
        rows: of the training part, from which the scales come.

    Returns:
        The names of constant columns.

    Raises:
        InputError: a target is constant over the training part.
    """
    constant = fit_scale(model, training, rows)
    for name in constant:
        if name in model.spec.targets:
            raise InputError(
                f"the target column {name!r} is constant over the training part; there is nothing "
                "to learn"
            )
    fit_ridge(model, training, validation)
    fit_spread(model, validation)
    return constant
