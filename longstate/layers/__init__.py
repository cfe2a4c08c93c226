"""Layers that mix along time, one file per paper, all under one contract (`Layer`)."""

from longstate.layers.base import Layer as Layer
from longstate.layers.dss import DSS as DSS
from longstate.layers.linoss import LinOSS as LinOSS
from longstate.layers.s4 import S4 as S4
from longstate.layers.s4d import S4D as S4D
from longstate.layers.s5 import S5 as S5
