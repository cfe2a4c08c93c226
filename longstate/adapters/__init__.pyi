from longstate.adapters._nixtla import NixtlaForecaster as NixtlaForecaster
from longstate.adapters._sktime import SktimeForecaster as SktimeForecaster
