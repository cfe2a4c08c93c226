"""Times as users write them, and steps that meet a change of clocks. The oracle is pandas."""

import numpy as np
import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.models._time_text import texts
from tests.train.test_calendar import ahead, table


@pytest.mark.parametrize("freq", ["2h", "6h", "12h"])
@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Europe/Berlin"])
def test_steps_that_meet_a_skipped_hour(freq, zone):
    """The next valid time stands for the skipped one, as in pandas."""
    local = pd.date_range("2018-01-20", "2018-12-20", freq=freq)
    times = local.tz_localize(
        zone, ambiguous=np.ones(len(local), bool), nonexistent="shift_forward"
    )
    made = table(times[:-3])
    assert made.rows == len(times) - 3
    assert list(ahead(made)) == list(times[-3:])


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y"])
def test_firsts_of_months_in_either_order(form):
    months = pd.date_range("2005-01-01", periods=60, freq="MS")
    assert list(ahead(table(months[:-3].strftime(form)))) == list(months[-3:])


@pytest.mark.parametrize("form", ["%m/%Y", "%m.%Y", "Q%q %Y", "Q%q-%Y"])
def test_months_and_quarters_are_written_as_they_were_read(form):
    periods = pd.period_range("2005-01", periods=60, freq="Q" if "%q" in form else "M")
    written = list(periods.strftime(form))
    made = table(written[:-3])
    assert texts(made.calendar, made.times_ahead(3)[-3:]) == written[-3:]


def test_weeks_in_text():
    weeks = pd.period_range("2000-01-01", periods=30, freq="W-WED")
    made = table(weeks[:-3].astype(str))
    assert texts(made.calendar, made.times_ahead(3)[-3:]) == list(weeks[-3:].astype(str))


def test_the_row_that_does_not_fit_a_given_step_is_named():
    days = pd.bdate_range("2021-01-04", periods=50).append(pd.DatetimeIndex(["2021-02-06"]))
    with pytest.raises(InputError, match=r"2021-02-06 .*does not fit its step \(every working day"):
        table(days.sort_values(), step="B")
