from typing import Any

from longstate.ops._numba.compiled import FAST
from longstate.ops._numba.threads import parallel_for

__all__ = ["KERNEL", "parallel_for"]

KERNEL: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "boundscheck": False,
    "error_model": "numpy",
    "fastmath": FAST,
}
