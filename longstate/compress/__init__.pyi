from longstate.compress._reduce import reduce as reduce
from longstate.compress._report import METHODS as METHODS
from longstate.compress._report import Reduced as Reduced
from longstate.compress._report import ReducedLayer as ReducedLayer
from longstate.compress._report import Reduction as Reduction
