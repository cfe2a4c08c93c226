from typing import Any

from longstate.ops._numba.compiled import SAFE
from longstate.ops._numba.math import exp_pair, slope_series, turn
from longstate.ops._threads import KERNEL

__all__ = ["EXACT", "exp_pair", "slope_series", "turn"]

EXACT: dict[str, Any] = {**KERNEL, "fastmath": SAFE}
