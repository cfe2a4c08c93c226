from longstate import bench as bench
from longstate import datasets as datasets
from longstate import interop as interop
from longstate import layers as layers
from longstate import memory as memory
from longstate import models as models
from longstate import ops as ops
from longstate import reports as reports
from longstate import stream as stream
from longstate import systems as systems
from longstate import testing as testing
from longstate import train as train
from longstate._citations import cite as cite
from longstate._saved import load as load
from longstate._saved import save as save
from longstate.errors import InputError as InputError
from longstate.models import ForecastModel as ForecastModel
from longstate.models import LanguageModel as LanguageModel
from longstate.models import LanguageSpec as LanguageSpec
from longstate.models import generate as generate
from longstate.models import prepare_for_decoding as prepare_for_decoding
from longstate.stream import ForecastStream as ForecastStream
from longstate.stream import Stream as Stream
from longstate.train import Forecaster as Forecaster
from longstate.train import TextModel as TextModel

__version__: str
