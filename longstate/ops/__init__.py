"""Tensors in, tensors out: the recurrences, each with a reference, a Numba and a Triton form."""

from longstate.ops.diagonal_scan import diagonal_scan as diagonal_scan
from longstate.ops.zoh_scan import zoh_scan as zoh_scan
