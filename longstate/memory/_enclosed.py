"""The response of a linear system at one frequency, with its rounding.

The computed solution X of M X = B leaves B - M X, so its error is at most |M^-1| |B - M X|. The
computed inverse Y of M has |M^-1| <= |Y| / (1 - |I - M Y|).

Axes: n state, i inputs, o outputs.
"""

import math

import torch
from torch import Tensor

from longstate.memory._powers import _UNIT


def enclosed(A: Tensor, B: Tensor, C: Tensor, z: complex) -> tuple[Tensor, float]:
    """C (I - A z)^-1 B (o, i), and a bound of its error in the 2-norm.

    Args:
        A (n, n), B (n, i), C (o, n): real, float64.
        z: on the unit circle.
    """
    A, B, C = (m.to(torch.complex128) for m in (A, B, C))
    eye, unit = torch.eye(len(A), dtype=A.dtype), 4 * len(A) * _UNIT
    M = eye - A * z
    Y = torch.linalg.inv_ex(M).inverse
    X = Y @ B
    a, b, c, x, y = (float(torch.linalg.matrix_norm(m)) for m in (A, B, C, X, Y))
    off = float(torch.linalg.matrix_norm(eye - M @ Y)) + unit * (len(A) + (len(A) + a) * y)
    left = float(torch.linalg.matrix_norm(B - M @ X)) + unit * (b + (len(A) + a) * x)
    return C @ X, c * (y / (1 - off) * left + unit * x) if off < 1 else math.inf
