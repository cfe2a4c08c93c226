"""Rate-distortion: the fewest bits that describe a source to within an error.

    R(D) = min I(X; X^)   subject to   E d(X, X^) <= D

Exact for a Gaussian vector under squared error, by reverse water-filling (Shannon 1959, Cover and
Thomas 10.3.3), and for a finite alphabet by the algorithm of Blahut and Arimoto (1972).

Axes: n numbers of the vector, x letters of the source, y letters of its description.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory._result import Result
from longstate.systems._numbers import in_float64


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianRate(Result):
    """Bits for a Gaussian vector.

    Args:
        bits: R(D), of the whole vector.
        per_number (n): bits of each component.
        distortion (n): error of each component; they sum to D.
        water: variance below which a component is not described.
    """

    bits: float
    per_number: Float[Tensor, " n"]
    distortion: Float[Tensor, " n"]
    water: float

    def rows(self) -> tuple[list[str], list[list[str]]]:
        pairs = zip(self.per_number.tolist(), self.distortion.tolist(), strict=True)
        body = [[str(i), number(b), number(d)] for i, (b, d) in enumerate(pairs)]
        return ["number", "bits", "squared error"], body


def gaussian_rd(variance: Float[Tensor, " n"], distortion: float) -> GaussianRate:
    """R(D) of independent Gaussian numbers under the sum of their squared errors.

    Args:
        variance (n): at least 0.
        distortion: D, the allowed sum of squared errors, above 0.

    Raises:
        InputError: there is no number, a variance is negative or not finite, or D is not above 0.
    """
    v = in_float64(variance).flatten()
    if not len(v) or not bool(((v >= 0) & v.isfinite()).all()):
        raise InputError("variance must hold at least one number, all finite and at least 0")
    if not 0 < distortion < float("inf"):
        raise InputError(f"distortion must be above 0 and finite; got {distortion}")
    water = _water(v, distortion)
    bits = 0.5 * torch.log2((v / water).clamp(min=1))
    total, kept = float(bits.sum()), int((bits > 0).sum())
    return GaussianRate(
        kind="exact",
        scope="Gaussian source, squared error; an upper bound for other sources",
        sentence=f"{total:.4g} bits describe these {len(v)} numbers to within a squared error of "
        f"{distortion:.4g}; {len(v) - kept} of them need not be described at all.",
        bits=total,
        per_number=bits,
        distortion=v.clamp(max=water),
        water=water,
    )


def _water(v: Tensor, distortion: float) -> float:
    """The level w with sum min(w, v_i) = D, in closed form on the sorted variances."""
    if distortion >= float(v.sum()):
        return float(v.max().clamp(min=torch.finfo(v.dtype).tiny))
    v = v.sort().values
    under = torch.cat([v.new_zeros(1), v.cumsum(0)[:-1]])  # sum of those below the level v_i
    level = (distortion - under) / torch.arange(len(v), 0, -1, dtype=v.dtype)
    fits = level[level <= v]  # none where D is the whole variance but for rounding
    return float(fits[0] if len(fits) else v[-1])


@dataclass(frozen=True, eq=False, kw_only=True)
class DiscreteRate(Result):
    """One point of the rate-distortion curve of a finite source.

    Args:
        bits: R(D), at most `gap` above the true value.
        distortion: D.
        gap: bits between the upper and the lower bound at the last step.
        channel (x, y): the optimal p(y | x).
    """

    bits: float
    distortion: float
    gap: float
    channel: Float[Tensor, "x y"]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        body = [[number(self.distortion), number(self.bits), f"{self.gap:.1e}"]]
        return ["distortion", "bits", "gap"], body


def blahut_arimoto(
    p: Float[Tensor, " x"],
    d: Float[Tensor, "x y"],
    slope: float,
    *,
    tolerance: float = 1e-9,
    steps: int = 10_000,
) -> DiscreteRate:
    """The point of R(D) at which dR/dD = -slope.

    Args:
        p (x): probabilities of the letters.
        d (x, y): distortion of describing x by y.
        slope: above 0, in nats per unit of distortion; a larger slope gives a smaller distortion.
        tolerance: gap between the bounds at which to stop, in bits.
        steps: maximum number of iterations; if it is reached, the result is an upper bound, with
            its largest error in `gap`.

    Raises:
        InputError: p is not a distribution, d does not fit it or is not finite, or the slope is not
            above 0.
    """
    p, d = in_float64(p), in_float64(d)
    if p.dim() != 1 or not bool((p >= 0).all()) or abs(float(p.sum()) - 1) > 1e-5:
        raise InputError("p must hold probabilities: one axis, at least 0, with sum 1")
    if d.dim() != 2 or len(d) != len(p) or not bool(d.isfinite().all()):
        raise InputError(f"d must be finite, of shape ({len(p)}, y); got {tuple(d.shape)}")
    if not 0 < slope < float("inf"):
        raise InputError(f"slope must be above 0 and finite; got {slope}")
    p = p / p.sum()  # single precision may have come in
    log_p, log_q = p.log(), torch.full((d.shape[1],), -float(d.shape[1])).double().log_softmax(0)
    gap = float("inf")
    for _ in range(steps):
        joint = log_q - slope * d
        log_z = joint.logsumexp(1)
        # gain of each y; its log is at most 0 for the optimal q (Csiszar 1974)
        gain = torch.logsumexp((log_p - log_z)[:, None] - slope * d, 0)
        gap = float(gain.max() - (log_q.exp() * gain.exp() * gain).sum()) / _LN2
        if gap < tolerance:
            break
        log_q = log_q + gain
    channel = (joint - log_z[:, None]).exp()
    distortion = float((p[:, None] * channel * d).sum())
    marginal = (p[:, None] * channel).sum(0)
    ratio = torch.xlogy(channel, channel / marginal.clamp(min=1e-300))
    bits = float((p[:, None] * ratio).sum()) / _LN2
    return DiscreteRate(
        kind="exact" if gap < tolerance else "upper_bound",
        scope="this source and distortion",
        sentence=f"{bits:.4g} bits are necessary and sufficient for a mean distortion of "
        f"{distortion:.4g}, to within {max(gap, 0.0):.1e} bits.",
        bits=bits,
        distortion=distortion,
        gap=max(gap, 0.0),
        channel=channel,
    )


_LN2 = float(torch.log(torch.tensor(2.0, dtype=torch.float64)))
