"""How much of a linear layer's state is used: the Hankel singular values.

    sigma_i^2 = eigenvalues of P Q

The i-th value is the gain from all past inputs through the i-th best direction of the state to all
future outputs, in any coordinates. A reduction to r directions changes the layer's gain by at least
sigma_{r+1}; balanced truncation changes it by at most twice the sum of the removed values (Glover
1984).

Axes: n values in decreasing order, any leading batch axes (channels).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.memory._gramians import System, factor, gramians
from longstate.memory._plot import draw
from longstate.memory._result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, kw_only=True)
class HankelSpectrum(Result):
    """Hankel singular values, and sizes computed from them.

    Args:
        values (..., n): in decreasing order.
        participation (...): (sum sigma^2)^2 / sum sigma^4.
        entropy_rank (...): exp of the entropy of the shares sigma / sum sigma.
    """

    values: Float[Tensor, "*batch n"]
    participation: Float[Tensor, "*batch"]
    entropy_rank: Float[Tensor, "*batch"]

    def needed(self, share: float) -> Tensor:
        """Number of directions (...) that hold `share` of the sum of all values."""
        whole = self.values.sum(-1, keepdim=True)
        return 1 + (self.values.cumsum(-1) < share * whole).sum(-1).clamp(
            max=self.values.shape[-1] - 1
        )

    def rows(self) -> tuple[list[str], list[list[str]]]:
        n = self.values.shape[-1]
        flat = self.values.reshape(-1, n)
        body = [
            [
                str(i + 1),
                *(number(float(f(flat[:, i]))) for f in (torch.median, torch.min, torch.max)),
            ]
            for i in range(n)
        ]
        return ["value", "median", "lowest", "highest"], body

    def plot(self) -> "Figure":
        flat = self.values.reshape(-1, self.values.shape[-1])

        def paint(ax):
            order = range(1, flat.shape[1] + 1)
            for row in flat[:: max(1, len(flat) // 64)]:
                ax.semilogy(order, row, color="C0", alpha=max(0.15, 1 / len(flat)), linewidth=0.8)
            ax.semilogy(order, flat.median(0).values, color="C0", label="median channel")
            ax.legend()

        return draw(self, "Hankel singular values", "direction", "gain, past to future", paint)


def hankel(system: System, length: int | None = None) -> HankelSpectrum:
    """The Hankel singular values of a discrete system.

    Args:
        system: of a layer without input-dependence, `layer.system()`.
        length: number of steps of past and of future. All when None.

    Raises:
        InputError: see `gramians`.
    """
    P, Q = gramians(system, length)
    values = torch.linalg.svdvals(factor(Q).mT @ factor(P))
    squares, share = values.square(), values / values.sum(-1, keepdim=True).clamp(min=1e-300)
    rank = torch.special.entr(share).sum(-1).exp()
    n, median = values.shape[-1], float(rank.median())
    return HankelSpectrum(
        kind="exact",
        scope="all inputs" if length is None else f"all inputs, within {length} steps",
        sentence=f"Of {n} state directions about {median:.1f} are in use, by the entropy of the "
        "Hankel singular values (median over channels).",
        values=values,
        participation=squares.sum(-1).square() / squares.square().sum(-1).clamp(min=1e-300),
        entropy_rank=rank,
    )
