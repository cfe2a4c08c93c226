from longstate._environment import environment as environment
from longstate.reports import memory as memory
from longstate.reports import reduction as reduction
from longstate.reports._forecast import ForecastReport as ForecastReport
from longstate.reports._forecast import headline as headline
from longstate.reports._forecast import render as render
from longstate.reports._forecast import write as write
from longstate.reports._run import describe as describe
