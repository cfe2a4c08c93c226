"""Layers that mix along time, one file per paper, all under one contract (`Layer`)."""

from longstate._lazy import public as _public
from longstate.layers._base import Layer as Layer
from longstate.layers._prescribed import Prescription as Prescription
from longstate.layers._prescribed import prescribe as prescribe
from longstate.layers._prescribed import prescription as prescription
from longstate.layers._prescribed import release as release
from longstate.layers._steps import intervals as intervals
from longstate.layers.attention import Attention as Attention
from longstate.layers.cfc import CfC as CfC
from longstate.layers.chimera import Chimera as Chimera
from longstate.layers.convs5 import ConvS5 as ConvS5
from longstate.layers.dss import DSS as DSS
from longstate.layers.falcon_mamba import FalconMamba as FalconMamba
from longstate.layers.gated_ssm import GatedSSM as GatedSSM
from longstate.layers.grud import GRUD as GRUD
from longstate.layers.hope import HOPE as HOPE
from longstate.layers.linear_cde import LinearCDE as LinearCDE
from longstate.layers.linoss import LinOSS as LinOSS
from longstate.layers.longhorn import Longhorn as Longhorn
from longstate.layers.longvq import LongVQ as LongVQ
from longstate.layers.mamba import Mamba as Mamba
from longstate.layers.mamba2 import Mamba2 as Mamba2
from longstate.layers.mamba3 import Mamba3 as Mamba3
from longstate.layers.recurrent import GRU as GRU
from longstate.layers.recurrent import LSTM as LSTM
from longstate.layers.recurrent import Elman as Elman
from longstate.layers.recurrent import LinearRNN as LinearRNN
from longstate.layers.s4 import S4 as S4
from longstate.layers.s4d import S4D as S4D
from longstate.layers.s5 import S5 as S5
from longstate.layers.smr import SMR as SMR
from longstate.layers.spiking import Spiking as Spiking
from longstate.layers.tensor_power import TensorPower as TensorPower
from longstate.layers.timed import Timed as Timed


def __dir__() -> list[str]:
    return _public(globals())
