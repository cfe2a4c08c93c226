from longstate.continual._few_shot import BranchLosses as BranchLosses
from longstate.continual._few_shot import DualBranch as DualBranch
from longstate.continual._few_shot import Simplex as Simplex
from longstate.continual._few_shot import branch_losses as branch_losses
from longstate.continual._null_space import Kept as Kept
from longstate.continual._null_space import NullSpace as NullSpace
