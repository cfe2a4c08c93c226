"""Linear systems as small frozen values, and the rules and matrices that make them."""

from longstate.systems.dense import DenseSystem as DenseSystem
from longstate.systems.diagonal import DiagonalSystem as DiagonalSystem
from longstate.systems.discretize import Bilinear as Bilinear
from longstate.systems.discretize import Discretization as Discretization
from longstate.systems.discretize import GeneralizedBilinear as GeneralizedBilinear
from longstate.systems.discretize import OscillatorDiscretization as OscillatorDiscretization
from longstate.systems.discretize import OscillatorImplicit as OscillatorImplicit
from longstate.systems.discretize import OscillatorImplicitExplicit as OscillatorImplicitExplicit
from longstate.systems.discretize import ZeroOrderHold as ZeroOrderHold
from longstate.systems.dplr import DPLRSystem as DPLRSystem
from longstate.systems.hippo import Hippo as Hippo
from longstate.systems.hippo import HippoSpectrum as HippoSpectrum
from longstate.systems.hippo import diagonalize as diagonalize
from longstate.systems.hippo import fout as fout
from longstate.systems.hippo import lagt as lagt
from longstate.systems.hippo import legs as legs
from longstate.systems.hippo import legt as legt
from longstate.systems.hippo import s4d_inv as s4d_inv
from longstate.systems.hippo import s4d_legs as s4d_legs
from longstate.systems.hippo import s4d_lin as s4d_lin
from longstate.systems.hippo import s4d_real as s4d_real
from longstate.systems.online_memory import LegSMemory as LegSMemory
from longstate.systems.selection import Selection as Selection
from longstate.systems.trace import Convolution as Convolution
from longstate.systems.trace import Trace as Trace
