"""Results as something to read: one self-contained HTML page."""

from longstate._environment import environment as environment
from longstate.reports.forecast import ForecastReport as ForecastReport
from longstate.reports.forecast import headline as headline
from longstate.reports.forecast import render as render
from longstate.reports.forecast import write as write
from longstate.reports.run import describe as describe
