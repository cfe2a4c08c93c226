"""Linear systems as frozen dataclasses, discretisation rules, and HiPPO matrices."""

from longstate._lazy import public as _public
from longstate.systems._balance import hankel_size as hankel_size
from longstate.systems._balance import nuclear_norm as nuclear_norm
from longstate.systems._dense import DenseSystem as DenseSystem
from longstate.systems._diagonal import DiagonalSystem as DiagonalSystem
from longstate.systems._discretize import Bilinear as Bilinear
from longstate.systems._discretize import Discretization as Discretization
from longstate.systems._discretize import GeneralizedBilinear as GeneralizedBilinear
from longstate.systems._discretize import ZeroOrderHold as ZeroOrderHold
from longstate.systems._dplr import DPLRSystem as DPLRSystem
from longstate.systems._gate_selection import GateSelection as GateSelection
from longstate.systems._hippo import Hippo as Hippo
from longstate.systems._hippo import HippoSpectrum as HippoSpectrum
from longstate.systems._hippo import diagonalize as diagonalize
from longstate.systems._hippo import fout as fout
from longstate.systems._hippo import lagt as lagt
from longstate.systems._hippo import legs as legs
from longstate.systems._hippo import legt as legt
from longstate.systems._hippo import s4d_inv as s4d_inv
from longstate.systems._hippo import s4d_legs as s4d_legs
from longstate.systems._hippo import s4d_lin as s4d_lin
from longstate.systems._hippo import s4d_real as s4d_real
from longstate.systems._online_memory import LegSMemory as LegSMemory
from longstate.systems._selection import Selection as Selection
from longstate.systems._trace import Convolution as Convolution
from longstate.systems._trace import Trace as Trace
from longstate.systems._two_sided import TwoSidedSystem as TwoSidedSystem


def __dir__() -> list[str]:
    return _public(globals())
