"""How much a linear layer can amplify: three gains, each proved for all inputs.

    H2          energy of the impulse response, its root: the gain from white noise to its output
    H-infinity  the largest singular value of the frequency response: energy in to energy out
    l1          the largest row sum of |impulse response|: amplitude in to amplitude out

A grid of frequencies bounds H-infinity from below only. Here the circle is cut into intervals, each
with an upper bound from the distance of the poles, and the highest are cut again until the bounds
meet (branch and bound). Where the poles' directions are nearly dependent (S4), a gain is attained
at some frequency if and only if a Hamiltonian matrix has an imaginary eigenvalue (Bruinsma and
Steinbuch 1990): none at a level proves that level, up to the rounding of the eigenvalues.

Axes: n poles, i inputs, o outputs, f frequencies, any leading batch axes (channels).
"""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.memory._gramians import System, gramians, real_matrices
from longstate.memory._plot import draw
from longstate.memory._result import Result, digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORST_BASIS = 100.0  # condition number of eigenvectors from which on poles prove nothing
_ROUNDS, _MOST_INTERVALS = 60, 1 << 14
_IMAGINARY = 1e-9  # relative real part below which an eigenvalue counts as imaginary
_LONGEST = 1 << 16  # samples of an impulse response that are summed one by one


@dataclass(frozen=True, eq=False, kw_only=True)
class Gains(Result):
    """Gains of a linear system, one for each channel.

    Args:
        h2 (...): exact.
        h_infinity, h_infinity_below (...): certified upper and lower bounds of the same number.
        l1 (...): upper bound, with a geometric bound on the tail.
    """

    h2: Float[Tensor, "*batch"]
    h_infinity: Float[Tensor, "*batch"]
    h_infinity_below: Float[Tensor, "*batch"]
    l1: Float[Tensor, "*batch"]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        names = {"H2": self.h2, "H-infinity": self.h_infinity, "l1": self.l1}
        body = [
            [name, digits(float(v.median())), digits(float(v.max()))] for name, v in names.items()
        ]
        return ["gain", "median", "largest"], body

    def plot(self) -> "Figure":
        def paint(ax):
            for name, v in (("H2", self.h2), ("H-infinity", self.h_infinity), ("l1", self.l1)):
                ax.plot(v.flatten().sort(descending=True).values, label=name)
            ax.set_yscale("log")
            ax.legend()

        return draw(self, "Gains", "channel, sorted", "gain", paint)


def gains(system: System, *, tolerance: float = 1e-3) -> Gains:
    """The gains of a discrete, stable system, direct path included.

    Args:
        system: discrete. Leading axes are channels, each with gains of its own.
        tolerance: relative distance of the two bounds of H-infinity at which to stop.

    Raises:
        InputError: the system is continuous, complex or not stable.
    """
    P, _ = gramians(system)  # refuses what has no gains
    A, B, C = real_matrices(system)
    D = system.D.detach().double().cpu()
    batch = torch.broadcast_shapes(*(v.shape[:-2] for v in (A, B, C, D)))
    channels = [v.expand(*batch, *v.shape[-2:]).reshape(-1, *v.shape[-2:]) for v in (A, B, C, D)]
    bounds = [_h_infinity(a, b, c, d, tolerance) for a, b, c, d in zip(*channels, strict=True)]
    low, high = (torch.tensor(v, dtype=torch.float64).reshape(batch) for v in zip(*bounds))  # noqa: B905
    first = C @ B
    energy = (C @ P @ C.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    l1 = _l1(system, A, B, C)
    return Gains(
        kind="certified",
        scope="all inputs",
        sentence=f"No input's energy grows by more than a factor {digits(float(high.max()) ** 2)}, "
        f"and no amplitude by more than {digits(float(l1.max()))}, in the worst channel.",
        h2=(energy + (2 * first * D + D * D).sum((-2, -1))).clamp(min=0).sqrt(),
        h_infinity=high,
        h_infinity_below=low,
        l1=l1,
    )


def _h_infinity(
    A: Tensor, B: Tensor, C: Tensor, D: Tensor, tolerance: float
) -> tuple[float, float]:
    """Lower and upper bound of one channel. Real, so that half of the circle is enough."""
    poles, V = torch.linalg.eig(A)
    near, width = poles.angle().abs(), (1 - poles.abs()).clamp(min=1e-12)
    edges = torch.cat(
        [torch.linspace(0, math.pi, 33, dtype=torch.float64)]
        + [(near + k * width).clamp(0, math.pi) for k in (-4, -1, 0, 1, 4)]
    ).unique()
    if float(torch.linalg.cond(V)) > _WORST_BASIS:
        return _by_hamiltonian(A, B, C, D, edges, tolerance)
    return _by_poles(
        poles, torch.linalg.solve(V, B.to(V.dtype)), C.to(V.dtype) @ V, D, edges, tolerance
    )


def _by_poles(
    p: Tensor, B: Tensor, C: Tensor, D: Tensor, edges: Tensor, tolerance: float
) -> tuple[float, float]:
    """Branch and bound on G(w) = sum_n C_n B_n / (1 - p_n e^-iw) + D."""
    weight = torch.linalg.vector_norm(C, dim=0) * torch.linalg.vector_norm(B, dim=1) * p.abs()
    angle, size = p.angle(), p.abs()
    start, stop, low = edges[:-1], edges[1:], 0.0
    for _ in range(_ROUNDS):
        middle, half = (start + stop) / 2, (stop - start) / 2
        z = 1 / (1 - p * torch.polar(torch.ones_like(middle), -middle)[:, None])
        value = torch.linalg.matrix_norm((C * z[:, None]) @ B + D, 2)
        # from the pole to the nearest point of the interval, the short way round
        turn = torch.remainder(middle[:, None] - angle + math.pi, 2 * math.pi) - math.pi
        off = (turn.abs() - half[:, None]).clamp(min=0)
        distance2 = (1 - size) ** 2 + 4 * size * (off / 2).sin().square()
        upper = value + half * (weight / distance2).sum(1)
        low = max(low, float(value.max()))
        alive = upper > low * (1 + tolerance)
        if not bool(alive.any()) or int(alive.sum()) > _MOST_INTERVALS:
            break
        start, middle, stop = start[alive], middle[alive], stop[alive]
        start, stop = torch.cat([start, middle]), torch.cat([middle, stop])
    return low, max(low * (1 + tolerance), float(upper.max()))


def _by_hamiltonian(
    A: Tensor, B: Tensor, C: Tensor, D: Tensor, edges: Tensor, tolerance: float
) -> tuple[float, float]:
    """Raise the level to the middle of the frequencies that attain it, until none does."""
    eye = torch.eye(len(A), dtype=A.dtype)

    def largest(w: Tensor) -> float:
        z = torch.polar(torch.ones_like(w), -w)[:, None, None]
        R = torch.linalg.solve(eye - A * z, B.to(z.dtype))
        return float(torch.linalg.matrix_norm(C.to(z.dtype) @ R + D, 2).max())

    # as x_{k+1} = A x_k + B u_k, and from the circle to the imaginary axis by z = (1 + s) / (1 - s)
    inverse, first, read = torch.linalg.inv(A + eye), D + C @ B, C @ A
    A_, B_, C_ = inverse @ (A - eye), math.sqrt(2) * inverse @ B, math.sqrt(2) * read @ inverse
    D_ = first - read @ inverse @ B
    low = largest(edges)
    for _ in range(_ROUNDS):
        level = low * (1 + tolerance)
        R = torch.linalg.inv(level**2 * torch.eye(D_.shape[1], dtype=A.dtype) - D_.mT @ D_)
        F = A_ + B_ @ R @ D_.mT @ C_
        low_left = -C_.mT @ (torch.eye(len(C_), dtype=A.dtype) + D_ @ R @ D_.mT) @ C_
        H = torch.cat([torch.cat([F, B_ @ R @ B_.mT], 1), torch.cat([low_left, -F.mT], 1)], 0)
        values = torch.linalg.eigvals(H)
        on_axis = values.real.abs() <= _IMAGINARY * values.abs().clamp(min=1e-12)
        w = (2 * values.imag[on_axis].abs().atan()).sort().values
        if not len(w):
            return low, level
        w = torch.cat([w.new_zeros(1), w, w.new_full((1,), math.pi)])
        higher = largest((w[1:] + w[:-1]) / 2)
        if higher <= level:  # a touch, or rounding: nothing above the level, a little margin
            return max(low, higher), level * (1 + tolerance)
        low = higher
    return low, math.inf


def _l1(system: System, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Largest row sum of |response| (...), with what lies beyond the computed part bounded.

    The rest after L steps is at most |C| S |A^L| / (1 - |A^L|) |B|, where S bounds the sum of the
    |A^l| of the first L steps: it is the product of 1 + |A^(2^i)|. Norms are largest row sums.
    """
    power, length, before = A, 1, torch.ones_like(A[..., 0, 0])
    while length < _LONGEST and float(_rows(power).max()) > 1e-15:
        before, power, length = before * (1 + _rows(power)), power @ power, 2 * length
    shrink = _rows(power)
    parts: dict[str, Any] = {f.name: getattr(system, f.name) for f in fields(system)}
    double: dict[str, Any] = {
        name: _wide(v) if isinstance(v, Tensor) else v for name, v in parts.items()
    }
    total = type(system)(**double).impulse_response(length).abs().sum((-3, -1))
    rest = _rows(C) * before * torch.where(shrink < 1, shrink / (1 - shrink), torch.inf) * _rows(B)
    return total.amax(-1) + rest


def _wide(v: Tensor) -> Tensor:
    v = v.detach().cpu()
    return v.to(torch.complex128) if v.is_complex() else v.double()


def _rows(v: Tensor) -> Tensor:
    """Largest row sum of absolute values (...)."""
    return v.abs().sum(-1).amax(-1)
