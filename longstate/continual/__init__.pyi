from longstate.continual._null_space import Kept as Kept
from longstate.continual._null_space import NullSpace as NullSpace
