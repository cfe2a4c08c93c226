from typing import Any

from longstate.ops._numba.compiled import _NoOverlap
from longstate.ops._numba.math import LN2, exp, exp2_product, sigmoid, softplus
from longstate.ops._numba.rows import load, read_out, store
from longstate.ops._threads import KERNEL

__all__ = [
    "LN2", "ROWS", "exp", "exp2_product", "load", "read_out", "sigmoid", "softplus", "store",
]  # fmt: skip

ROWS: dict[str, Any] = {**KERNEL, "pipeline_class": _NoOverlap, "forceinline": True}
