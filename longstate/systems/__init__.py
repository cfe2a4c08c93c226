"""Linear systems as small frozen values, and the rules that make them."""

from longstate.systems.dense import DenseSystem as DenseSystem
from longstate.systems.diagonal import DiagonalSystem as DiagonalSystem
from longstate.systems.discretize import Bilinear as Bilinear
from longstate.systems.discretize import GeneralizedBilinear as GeneralizedBilinear
from longstate.systems.discretize import OscillatorImplicit as OscillatorImplicit
from longstate.systems.discretize import OscillatorImplicitExplicit as OscillatorImplicitExplicit
from longstate.systems.discretize import ZeroOrderHold as ZeroOrderHold
from longstate.systems.dplr import DPLRSystem as DPLRSystem
