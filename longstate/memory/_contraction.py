"""How fast a selective layer forgets its initial state, on average over data.

Two runs with the same input forget their different initial states exponentially if the mean over
time of the log of the factor of one step is negative (Brandt 1986; Diaconis and Freedman 1999): an
average, not a supremum. For a state with its own decay this is the mean of log decay. The coupling
test runs two initial states and measures how fast they approach each other.

Axes: b batch, t time, c channels, n state.
"""

import math
from dataclasses import dataclass

import torch

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory._result import THIS_DATA, Result
from longstate.systems import Trace

SHORTEST = 16  # least number of samples for an average


@dataclass(frozen=True, eq=False, kw_only=True)
class Contraction(Result):
    """Exponents per step; negative ones mean that the layer forgets.

    Args:
        exponent: mean log decay of the slowest state: the prediction.
        low, high: its interval (5 to 95 %), by a bootstrap of blocks of time.
        coupled: slope measured between two initial states.
    """

    exponent: float
    low: float
    high: float
    coupled: float

    def rows(self) -> tuple[list[str], list[list[str]]]:
        body = [
            ["predicted", number(self.exponent), f"{number(self.low)} .. {number(self.high)}"],
            ["measured", number(self.coupled), ""],
        ]
        return ["exponent per step", "", "interval"], body


def average_contraction(trace: Trace, *, draws: int = 500, seed: int = 0) -> Contraction:
    """The exponent with which a layer forgets its initial state on recorded data.

    Args:
        trace: at least 16 samples long.
        draws: number of draws of the bootstrap.
        seed: of the bootstrap and of the two initial states.

    Raises:
        InputError: the trace is too short.
    """
    trace = trace.double()
    b, t, c, n = trace.decay.shape
    if t < SHORTEST:
        raise InputError(f"an average needs {SHORTEST} samples; the trace has {t}")
    g = torch.Generator().manual_seed(seed)
    gap = torch.randn(b, c, n, generator=g, dtype=torch.float64)
    path, total = [], torch.zeros(b, dtype=torch.float64)
    for i in range(t):
        gap = trace.carry(i, gap)
        size = gap.flatten(1).norm(dim=1).clamp(min=1e-300)
        total = total + size.log()
        path.append(total)
        gap = gap / size[:, None, None]  # so that a long trace does not underflow
    rates = torch.stack(path).diff(dim=0).mean(1)
    coupled = float(rates[t // 2 :].mean())
    if trace.erase is None:
        each = trace.decay.abs().clamp(min=1e-300).log().flatten(2)  # (b, t, cn)
        slowest = int(each.mean((0, 1)).argmax())
        series = each[..., slowest].mean(0)
    else:
        series = rates
    length = max(2, round(math.sqrt(len(series))))
    starts = torch.randint(
        len(series) - length + 1, (draws, -(-len(series) // length)), generator=g
    )
    means = series.unfold(0, length, 1).mean(1)[starts].mean(1).sort().values
    exponent = float(series.mean())
    return Contraction(
        kind="estimate",
        scope=THIS_DATA,
        sentence=f"In the slowest state, the distance of two initial states is multiplied by "
        f"{math.exp(exponent):.6g} in each step.",
        exponent=exponent,
        low=float(means[round(0.05 * (draws - 1))]),
        high=float(means[round(0.95 * (draws - 1))]),
        coupled=coupled,
    )
