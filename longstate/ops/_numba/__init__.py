"""The base of the CPU kernels. Only `cpu*.py` files import it, on first use.

`compiled` has the compiler options and the cache on disk, `math` the functions, `rows` the reading
and writing of numbers in any precision, `threads` the parallel loop, `tiles` the engine of the
input-steered scans.
"""

from longstate.ops._numba.compiled import apart as apart
from longstate.ops._numba.compiled import exact as exact
from longstate.ops._numba.compiled import inlined as inlined
from longstate.ops._numba.compiled import inlined_exact as inlined_exact
from longstate.ops._numba.compiled import kernel as kernel
from longstate.ops._numba.threads import parallel_for as parallel_for
