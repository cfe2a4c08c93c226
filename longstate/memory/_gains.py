"""How much a linear layer can amplify: three gains, each for all inputs.

    H2          square root of the energy of the impulse response: gain for white noise
    H-infinity  largest singular value of the frequency response: gain of energy
    l1          largest row sum of |impulse response|: gain of amplitude

Each is of the whole operator: for a bidirectional layer of both directions together, whose maxima
may be at the same frequency. The bounds are in `longstate.memory._h_infinity` and `_response`.

Axes: n poles, i inputs, o outputs, f frequencies, any leading batch axes (channels).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.memory._gramians import System, gramians, real_matrices
from longstate.memory._grid_bound import by_grid
from longstate.memory._h_infinity import Matrices, Peak, Poles, by_matrices, by_poles
from longstate.memory._plot import draw
from longstate.memory._powers import Powers
from longstate.memory._response import row_sums
from longstate.memory._result import Result
from longstate.systems import DiagonalSystem, TwoSidedSystem
from longstate.systems._numbers import in_float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, kw_only=True)
class Gains(Result):
    """Gains of a linear system, one for each channel.

    Args:
        h2 (...): exact.
        h_infinity, h_infinity_below (...): certified upper and lower bounds of the same number.
        peak (...): angular frequency, in radians per sample, at which the lower one is attained.
        l1, l1_below (...): certified upper and lower bounds. They differ by the part beyond the
            summed lags, and by rounding.
    """

    h2: Float[Tensor, "*batch"]
    h_infinity: Float[Tensor, "*batch"]
    h_infinity_below: Float[Tensor, "*batch"]
    peak: Float[Tensor, "*batch"]
    l1: Float[Tensor, "*batch"]
    l1_below: Float[Tensor, "*batch"]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        names = {"H2": self.h2, "H-infinity": self.h_infinity, "l1": self.l1}
        body = [
            [name, number(float(v.median())), number(float(v.max()))] for name, v in names.items()
        ]
        return ["gain", "median", "largest"], body

    def plot(self) -> "Figure":
        def paint(ax):
            for name, v in (("H2", self.h2), ("H-infinity", self.h_infinity), ("l1", self.l1)):
                ax.plot(v.flatten().sort(descending=True).values, label=name)
            ax.set_yscale("log")
            ax.legend()

        return draw(self, "Gains", "channel, sorted", "gain", paint)


def gains(system: System | TwoSidedSystem, *, tolerance: float = 1e-3) -> Gains:
    """The gains of a discrete, stable system, direct path included.

    Args:
        system: discrete. Leading axes are channels, each with its own gains.
        tolerance: relative distance of the two bounds of H-infinity at which to stop.

    Raises:
        InputError: the system is continuous, complex or not stable.
    """
    both = isinstance(system, TwoSidedSystem)
    ahead = system.ahead if isinstance(system, TwoSidedSystem) else system
    behind = system.behind if isinstance(system, TwoSidedSystem) else None
    parts = [ahead] if behind is None else [ahead, behind]
    energy = sum((_energy(part) for part in parts), torch.zeros((), dtype=torch.float64))
    sums = [row_sums(part) for part in parts]
    found = sum((s.found for s in sums), torch.zeros((), dtype=torch.float64))
    rest = sum((s.rest for s in sums), torch.zeros((), dtype=torch.float64))
    high = (found + rest).amax(-1)
    peaks = _peaks(ahead, behind, tolerance, high.shape)
    low = torch.tensor([p.low for p in peaks], dtype=torch.float64).reshape(high.shape)
    above = torch.tensor([p.high for p in peaks], dtype=torch.float64).reshape(high.shape)
    # |G(w)| is at most the norm of its entries, and each entry is at most its sum over all lags
    above = torch.minimum(above, torch.linalg.vector_norm(found + rest, dim=-1))
    return Gains(
        kind="certified",
        scope="all inputs, both directions together" if both else "all inputs",
        sentence=f"In the worst channel the energy of any input grows at most by a factor of "
        f"{number(float(above.max()) ** 2)}, and its amplitude by "
        f"{number(float(high.max()))}.",
        h2=energy.clamp(min=0).sqrt().expand(high.shape),
        h_infinity=above,
        h_infinity_below=low,
        peak=torch.tensor([p.frequency for p in peaks], dtype=torch.float64).reshape(high.shape),
        l1=high,
        l1_below=(found - rest).clamp(min=0).amax(-1),
    )


def _energy(system: System) -> Tensor:
    """Energy (...) of the impulse response."""
    P, _ = gramians(system)  # raises for systems without gains
    _, B, C = real_matrices(system)
    D = in_float64(system.D)
    own = (C @ P @ C.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    return own + (2 * (C @ B) * D + D * D).sum((-2, -1))


def _peaks(ahead: System, behind: System | None, tolerance: float, batch: torch.Size) -> list[Peak]:
    """H-infinity of every channel."""
    D = _flat(in_float64(ahead.D), batch, 2)
    if isinstance(ahead, DiagonalSystem) and (behind is None or isinstance(behind, DiagonalSystem)):
        first, second = _poles(ahead, batch), None if behind is None else _poles(behind, batch)
        return [
            by_poles(first[k], None if second is None else second[k], D[k], tolerance)
            for k in range(len(D))
        ]
    one, total = _matrices(ahead, batch)
    two, later = (None, total) if behind is None else _matrices(behind, batch)
    found = []
    for k in range(len(D)):
        other = None if two is None else two[k]
        most = max(float(total[k]), float(later[k]))
        peak = by_matrices(one[k], other, D[k], most, tolerance)
        if peak.high > peak.low * (1 + 4 * tolerance) and D[k].numel() == 1:
            grid = by_grid(one[k], other, D[k])
            best = max(peak, grid, key=lambda p: p.low)
            peak = best._replace(high=min(peak.high, grid.high))
        found.append(peak)
    return found


def _flat(v: Tensor, batch: torch.Size, axes: int) -> Tensor:
    """`v` with one leading axis: the channels."""
    own = v.shape[v.dim() - axes :]
    return v.expand(*batch, *own).reshape(-1, *own)


def _poles(system: DiagonalSystem, batch: torch.Size) -> list[Poles]:
    real_matrices(system)  # raises for a complex system without conjugates
    A, B, C = (v.detach().cpu().to(torch.complex128) for v in (system.A, system.B, system.C))
    if system.conjugate:
        A = torch.cat([A, A.conj()], dim=-1)
        B, C = torch.cat([B, B.conj()], dim=-2), torch.cat([C, C.conj()], dim=-1)
    each = zip(_flat(A, batch, 1), _flat(B, batch, 2), _flat(C, batch, 2), strict=True)
    return [Poles(*v) for v in each]


def _matrices(system: System, batch: torch.Size) -> tuple[list[Matrices], Tensor]:
    """Real matrices of each channel, and a bound (channels) of the sum of the powers of A."""
    A, B, C = real_matrices(system)
    powers = Powers(A)
    total = _flat(powers.total(powers.growth()[0])[..., None], batch, 1)[:, 0]
    each = zip(*(_flat(v, batch, 2) for v in (A, B, C)), strict=True)
    return [Matrices(*v) for v in each], total
