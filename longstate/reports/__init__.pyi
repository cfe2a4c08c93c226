from longstate._environment import environment as environment
from longstate.reports import memory as memory
from longstate.reports.forecast import ForecastReport as ForecastReport
from longstate.reports.forecast import headline as headline
from longstate.reports.forecast import render as render
from longstate.reports.forecast import write as write
from longstate.reports.run import describe as describe
