"""The largest input for which a stable linear state still shrinks.

    A' P A - P = -I                       V(x) = x' P x
    |u| <= g |x|   implies   V(A x + B u) <= V(x) - (1 - theta) |x|^2
    g: the root of 2 |A' P B| g + |B' P B| g^2 = theta

and for all input sequences with |u| <= U, from a zero state, |x| <= limit * U. Both follow from
V(Ax + Bu) - V(x) = -|x|^2 + 2 x'A'PBu + u'B'PBu: the condition of event-triggered control, for
sampled systems. It is only sufficient: the state may also shrink for larger inputs.

Axes: n state in real coordinates, any leading batch axes (channels).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory._gramians import System, gramians, real_matrices
from longstate.memory._result import Result
from longstate.systems import DenseSystem


@dataclass(frozen=True, eq=False, kw_only=True)
class EventThreshold(Result):
    """Thresholds of a linear system, one for each channel.

    Args:
        ratio (...): g.
        shrink (...): largest factor of V in a step within the threshold.
        limit (...): largest |x|, from a zero state, for inputs of length 1.
        P (..., n, n): matrix of V, in coordinates (Re x, Im x).
    """

    ratio: Float[Tensor, "*batch"]
    shrink: Float[Tensor, "*batch"]
    limit: Float[Tensor, "*batch"]
    P: Float[Tensor, "*batch n n"]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        names = {"|u| / |x|": self.ratio, "V, at most times": self.shrink, "|x| / |u|": self.limit}
        body = [
            [name, *(number(float(f(v.flatten()))) for f in (torch.median, torch.min, torch.max))]
            for name, v in names.items()
        ]
        return ["", "median", "lowest", "highest"], body


def event_threshold(system: System, theta: float = 0.5) -> EventThreshold:
    """The threshold of a discrete, stable system.

    Args:
        system: discrete, with real inputs and outputs.
        theta: share of the decrease of V that inputs may compensate, between 0 and 1.

    Raises:
        InputError: theta is out of its range, or the system is continuous, complex or not stable.
    """
    if not 0 < theta < 1:
        raise InputError(f"theta must lie between 0 and 1; got {theta}")
    if not system.discrete:
        raise InputError("the system is continuous; call discretize(rule, dt) first")
    A, B, _ = real_matrices(system)
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    alone = DenseSystem(A, eye, eye, torch.zeros_like(eye), discrete=True)
    P = gramians(alone).observe
    # V falls by |x|^2 minus the error of the computed P, which reduces the share of the inputs
    rest = A.mT @ P @ A - P + eye
    size = torch.linalg.matrix_norm
    off = size(rest) + 4 * len(eye) * 2.0**-52 * size(P) * (1 + size(A) ** 2)
    left = (theta - off).clamp(min=0)
    cross, own = _norm(A.mT @ P @ B), _norm(B.mT @ P @ B)
    # the root in a form that is accurate also if own is small
    ratio = left / (cross + (cross.square() + own * left).sqrt()).clamp(min=1e-300)
    values = torch.linalg.eigvalsh(P)
    low, high = values[..., 0], values[..., -1]
    after = torch.maximum(1 / ratio, _norm(A) / ratio + _norm(B))
    least = float(ratio.min())
    return EventThreshold(
        kind="certified",
        scope="all inputs",
        sentence=f"If an input is at most {number(least)} times as long as the state, no state "
        "grows, in the norm of its Lyapunov function.",
        ratio=ratio,
        shrink=1 - (1 - theta) / high,
        limit=(high / low).sqrt() * after,
        P=P,
    )


def _norm(M: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(M, 2)
