"""Estimates of mutual information from samples, if there are no labels and no closed form.

`ksg` counts neighbours (Kraskov, Stoegbauer, Grassberger 2004, first estimator):

    I = psi(k) + psi(S) - mean of psi(n_x + 1) + psi(n_y + 1)

n_x: number of samples whose x is nearer than the k-th neighbour in (x, y), in the maximum norm.
With more than three dimensions it is inaccurate, and refused: project first.

`infonce` compares scores of pairs that belong together with other pairs (van den Oord et al. 2018):

    I >= log2 K + mean over i of log2 (f(x_i, y_i) / sum over j of f(x_i, y_j))

a lower bound for any f that was not fitted to these samples. It is never above log2 K, so near that
cap it gives no information, and is refused.

Axes: s samples, m and n dimensions, k samples of a batch.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import InputError
from longstate.memory._result import Result
from longstate.systems._numbers import in_float64

_MOST_DIMENSIONS = 3
_MARGIN = 0.5  # nats below the cap
_ROWS = 256  # rows of distances at once


@dataclass(frozen=True, eq=False, kw_only=True)
class Shared(Result):
    """Mutual information.

    Args:
        bits: the value.
        error: its standard error; NaN if unknown.
        cap: largest value that the method can give, in bits.
    """

    bits: float
    error: float
    cap: float

    def rows(self) -> tuple[list[str], list[list[str]]]:
        return ["", "bits", "+-", "cap"], [
            ["", f"{self.bits:.4f}", f"{self.error:.4f}", f"{self.cap:.4f}"]
        ]


def ksg(x: Float[Tensor, "s m"], y: Float[Tensor, "s n"], *, neighbours: int = 4) -> Shared:
    """Estimate of I(x; y) from independent samples.

    Args:
        x (s, m), y (s, n): m + n at most 3. They need equal scales, because distances are compared.
        neighbours: k. A larger k gives less noise and more bias.

    Raises:
        InputError: too many dimensions, too few samples, values that are not finite, or equal
            samples.
    """
    x, y = _checked(x, y)
    s, d = len(x), x.shape[1] + y.shape[1]
    if d > _MOST_DIMENSIONS:
        raise InputError(
            f"ksg is for at most {_MOST_DIMENSIONS} dimensions together; got {d}; project first, "
            "or use probe"
        )
    if not 1 <= neighbours < s / 2:
        raise InputError(f"neighbours must lie between 1 and half of the {s} samples")
    total = 0.0
    for i in range(0, s, _ROWS):
        # the first of the sorted distances is that to itself, 0
        apart_x, apart_y = (_apart(v[i : i + _ROWS], v) for v in (x, y))
        reach = torch.maximum(apart_x, apart_y).kthvalue(neighbours + 1, dim=1).values[:, None]
        if bool((reach == 0).any()):
            raise InputError("some samples are equal; ksg needs continuous values")
        counts = ((v < reach).sum(1).double() for v in (apart_x, apart_y))
        total += float(sum(torch.digamma(n) for n in counts).sum())  # type: ignore[union-attr]
    digamma = torch.digamma(torch.tensor([neighbours, s], dtype=torch.float64)).sum()
    bits = (float(digamma) - total / s) / math.log(2)
    cap = (float(digamma) - 2 * float(torch.digamma(torch.tensor(float(neighbours))))) / math.log(2)
    return Shared(
        kind="estimate",
        scope=f"this data; {s} samples, assumed to be independent",
        sentence=f"The estimate is {bits:.3f} bits; with this number of samples it is at most "
        f"{cap:.2f}.",
        bits=bits,
        error=math.nan,
        cap=cap,
    )


def infonce(scores: Float[Tensor, "b k k"]) -> Shared:
    """Lower bound of I(x; y) from scores of pairs, up to the standard error.

    Args:
        scores (b, k, k): log f(x_i, y_j) in nats, in b batches of k samples; the pairs of the
            diagonal belong together. f must not have been fitted to these samples.

    Raises:
        InputError: the shape does not fit, fewer than 2 batches or samples, a score is not finite;
            or the value lies within half a nat of log2 K: take larger batches.
    """
    if scores.dim() != 3 or scores.shape[1] != scores.shape[2] or min(scores.shape) < 2:
        raise InputError(
            f"scores must be (b, k, k) with b and k at least 2; got {tuple(scores.shape)}"
        )
    v = in_float64(scores)
    if not bool(v.isfinite().all()):
        raise InputError("scores hold NaN or infinity")
    k = v.shape[1]
    gains = v.log_softmax(-1).diagonal(dim1=1, dim2=2).mean(1) + math.log(k)
    value, cap = float(gains.mean()), math.log(k)
    if value > cap - _MARGIN:
        raise InputError(
            f"the value, {value / math.log(2):.2f} bits, is within half a nat of the cap "
            f"log2 {k} = {math.log2(k):.2f}, which it cannot pass; use larger batches"
        )
    bits = min(value, cap) / math.log(2)
    return Shared(
        kind="lower_bound",
        scope="this data, up to the standard error; scores not fitted to it",
        sentence=f"At least {bits:.3f} bits; batches of {k} can show at most {math.log2(k):.2f}.",
        bits=bits,
        error=float(gains.std() / math.sqrt(len(gains))) / math.log(2),
        cap=math.log2(k),
    )


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
        raise InputError(
            f"x and y must be (s, m) and (s, n); got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, y = in_float64(x), in_float64(y)
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise InputError("x or y holds NaN or infinity")
    return x, y


def _apart(some: Tensor, every: Tensor) -> Tensor:
    return (some[:, None] - every).abs().amax(-1)
