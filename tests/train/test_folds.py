import numpy as np

from longstate.models import ForecastSpec
from longstate.train._folds import folds, independent
from longstate.train._table import Columns, make_table
from longstate.train._windows import Split
from tests.train.helpers import hourly


def made(rows, horizon=4):
    table = make_table(hourly(rows)[["y"]], Columns(("y",)))
    spec = ForecastSpec(("y",), (), (), None, None, (), 12, horizon, 1, ())
    parts = Split(round(0.7 * rows), round(0.8 * rows), rows)
    return folds(table, spec, parts), parts


def test_nothing_is_checked_on_rows_that_were_fitted_or_of_the_test_part():
    for rows in (100, 200, 2000):
        found, parts = made(rows)
        for fit, check in found:
            assert fit.origins[-1] + 4 <= check.origins[0]
            assert check.origins[-1] + 4 <= parts.validation
        assert found[-1][0].origins[-1] + 4 == parts.train
        origins = np.concatenate([check.origins for _, check in found])
        assert (np.diff(origins) == 1).all()  # none twice, none left out


def test_a_long_validation_part_suffices_alone():
    assert len(made(1000)[0]) == 1
    assert len(made(700)[0]) == 5


def test_independent_windows():
    found, parts = made(1000)
    assert independent([found[0][1]], 1000) == (parts.validation - parts.train) / 4
    assert independent([found[0][1]], 7) == 7
