"""Information of a linear state about the input k steps ago, in bits.

    x_t = A x_{t-1} + B u_t        u white, Gaussian, of variance 1
    y_t = x_t + noise              of covariance N: the state as it is read
    I(u_{t-k}; y_t) = -1/2 log2 det(I - M_k' (P + N)^{-1} M_k)        M_k = A^k B

For one input the number under the logarithm is 1 - m_k, where m_k is the memory coefficient of lag
k (Jaeger 2001). Without noise the m_k of a state of n numbers sum to n for every system. So the
total does not distinguish systems, only the curve does (Ballarin, Grigoryeva, Ortega 2023).

Without noise the bits about one lag are finite, but the bits about the whole past are infinite,
because real numbers have unlimited precision. So a noise level is needed, for example the rounding
of a number format.

Axes: k lags, n state, i inputs, any leading batch axes (channels).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory._gramians import System, gramians, real_matrices
from longstate.memory._plot import draw
from longstate.memory._result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {"fp64": 52, "fp32": 23, "tf32": 10, "fp16": 10, "bf16": 7, "fp8_e4m3": 3, "fp8_e5m2": 2}
"""Number format -> bits of its fraction."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MemoryCurve(Result):
    """Bits about each past input.

    Args:
        bits (..., k): about the input `lag` steps ago, lag = 0 .. k - 1.
        total (...): about the whole past, all lags and inputs together. Infinite without noise.
        capacity (...): sum over these lags of the memory coefficients, at most the size of the
            state times the number of inputs it could separate.
        rank (...): number of directions of the state that inputs or noise reach, in the precision
            of float64; smaller directions are not counted.
        noise: the noise, in words.
    """

    bits: Float[Tensor, "*batch k"]
    total: Float[Tensor, "*batch"]
    capacity: Float[Tensor, "*batch"]
    rank: Tensor
    noise: str

    def horizon(self, bits: float) -> Tensor:
        """The last lag (...) about which at least `bits` are known; -1 if there is none."""
        known = self.bits >= bits
        lags = torch.arange(self.bits.shape[-1]).expand_as(known)
        return torch.where(known, lags, -1).amax(-1)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        flat = self.bits.reshape(-1, self.bits.shape[-1])
        shown = sorted({*range(min(8, flat.shape[1])), *(2**i for i in range(40))})
        body = [
            [str(k), *(number(float(f(flat[:, k]))) for f in (torch.median, torch.min, torch.max))]
            for k in shown
            if k < flat.shape[1]
        ]
        return ["lag", "bits, median", "lowest", "highest"], body

    def plot(self) -> "Figure":
        flat = self.bits.reshape(-1, self.bits.shape[-1])

        def paint(ax):
            for row in flat[:: max(1, len(flat) // 32)]:
                ax.loglog(range(1, len(row) + 1), row.clamp(min=1e-6), alpha=0.3, color="C0")
            ax.loglog(
                range(1, flat.shape[1] + 1), flat.median(0).values.clamp(min=1e-6), color="C0",
                label=f"median; noise: {self.noise}",
            )  # fmt: skip
            ax.legend()

        return draw(self, "Memory curve", "lag + 1, steps", "bits about that input", paint)


def memory_curve(system: System, lags: int, *, noise: float | str) -> MemoryCurve:
    """Bits about the input `lag` steps ago, for white Gaussian input.

    Args:
        system: discrete and stable.
        lags: number of lags, from 0 on.
        noise: standard deviation of the noise with which each number of the state is read, in units
            of the state; or a number format, one of `FORMATS`. A format is modelled by independent
            rounding errors with its spacing at the number's standard deviation; the result is then
            an estimate.

    Raises:
        InputError: lags below 1; a negative noise or an unknown format; see also `gramians`.
    """
    if lags < 1:
        raise InputError(f"lags must be at least 1; got {lags}")
    P, _ = gramians(system)
    variance, label = _floor(noise, P)
    inverse, rank = _inverse(P, variance)
    A, B, _ = real_matrices(system)
    eye = torch.eye(B.shape[-1], dtype=torch.float64)
    moved, bits, known = B.expand(*P.shape[:-1], B.shape[-1]), [], []
    for _ in range(lags):
        seen = moved.mT @ inverse @ moved
        # at most 1 in exact arithmetic; a value above is a rounding error
        left = torch.linalg.eigvalsh(eye - seen).clamp(min=2.0**-100)
        bits.append(-0.5 * left.log2().sum(-1))
        known.append(seen.diagonal(dim1=-2, dim2=-1).sum(-1))
        moved = A @ moved
    curve, capacity = torch.stack(bits, -1), torch.stack(known, -1).sum(-1)
    return MemoryCurve(
        kind="estimate" if isinstance(noise, str) else "exact",
        scope="white Gaussian input",
        sentence=_sentence(curve, label),
        bits=curve,
        total=_joint(P, variance),
        capacity=capacity,
        rank=rank,
        noise=label,
    )


def _floor(noise: float | str, P: Tensor) -> tuple[Tensor, str]:
    """Variances (..., n), and the noise in words."""
    size = P.diagonal(dim1=-2, dim2=-1)
    if isinstance(noise, str):
        if noise not in FORMATS:
            raise InputError(
                f"noise must be a number or one of {', '.join(FORMATS)}; got {noise!r}"
            )
        spacing = 2.0 ** -FORMATS[noise]
        return spacing**2 / 12 * size, f"rounding to {noise}"
    if not 0 <= noise < float("inf"):
        raise InputError(f"noise must be at least 0 and finite; got {noise}")
    return torch.full_like(size, noise**2), f"{noise:g} per number" if noise else "none"


def _inverse(P: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """(P + N)^{-1} on the directions that inputs reach, and their number."""
    S = P + torch.diag_embed(variance)
    scale = S.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
    S = scale[..., :, None] * S * scale[..., None, :]  # so that units do not decide the rank
    values, vectors = torch.linalg.eigh(S)
    cut = values[..., -1:] * S.shape[-1] * torch.finfo(S.dtype).eps
    good = values > cut
    inverse = torch.where(good, 1 / values.clamp(min=1e-300), 0)
    whole = (vectors * inverse[..., None, :]) @ vectors.mT
    return scale[..., :, None] * whole * scale[..., None, :], good.sum(-1)


def _joint(P: Tensor, variance: Tensor) -> Tensor:
    """1/2 log2 det(I + N^{-1} P) (...)."""
    size = P.diagonal(dim1=-2, dim2=-1)
    moves = size > 1e-24 * size.amax(-1, keepdim=True)  # an imaginary part may be 0 for all times
    if bool((moves & (variance == 0)).any()):
        return torch.full(P.shape[:-2], torch.inf, dtype=P.dtype)
    scale = torch.where(moves, variance.rsqrt(), 0)
    ratio = scale[..., :, None] * P * scale[..., None, :]
    return (
        0.5
        * torch.log1p(torch.linalg.eigvalsh(ratio).clamp(min=0)).sum(-1)
        / torch.log(torch.tensor(2.0, dtype=P.dtype))
    )


def _sentence(curve: Tensor, label: str) -> str:
    middle = curve.reshape(-1, curve.shape[-1]).median(0).values
    known = torch.nonzero(middle >= 0.01)
    far = int(known[-1]) if len(known) else -1
    if far < 0:
        return "The median channel has less than 0.01 bits about any single input."
    return (
        f"The median channel has {float(middle[0]):.2f} bits about the current input, and 0.01 "
        f"bits or more about single inputs up to {far} steps ago (noise: {label})."
    )
