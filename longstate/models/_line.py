"""The input and the output of a forecast, and a line: a linear map from the one to the other.

Axes: b batch, w window, h horizon, c targets, p covariates, k known, m calendar, q quantiles,
f features of a line, a static numbers, e text columns.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from longstate.models._scale import AtLeastFloat32, Units
from longstate.models._spec import ForecastSpec


class Window(NamedTuple):
    """The input of a forecast, in the data's own units; float64, so that large values keep digits.

    Gaps in the target hold the last observed value and are False in `observed`.

    Args:
        units: of the series of each window, (b, 1, c), in a panel; None where one model has one
            scale.
        static: numbers that a series has once; None if there are none.
        codes: of the text columns, 0 if unknown; None if there are none.
    """

    target: Float[Tensor, "b w c"]
    observed: Bool[Tensor, "b w c"]
    covariates: Float[Tensor, "b w p"]
    known: Float[Tensor, "b w+h k"]
    calendar: Float[Tensor, "b w+h m"]
    units: Units | None = None
    static: Float[Tensor, "b a"] | None = None
    codes: Int[Tensor, "b w+h e"] | None = None


class Forecast(NamedTuple):
    """A forecast; `point` is the mean. Without quantiles q is 0."""

    point: Float[Tensor, "b h c"]
    quantiles: Float[Tensor, "b h c q"]


class Line(AtLeastFloat32):
    """A linear map from all inputs of the window to the horizon, one per target.

    Its weights are buffers: they are solved in closed form and not trained.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, spec: ForecastSpec):
        super().__init__()
        self.spec = spec
        c, h, w = len(spec.targets), spec.horizon, spec.window
        # The calendar enters at the last row only: harmonics at other rows are linear in it.
        n = w + w * len(spec.covariates) + (w + h) * len(spec.known) + spec.n_calendar
        self.register_buffer("weight", torch.zeros(c, n, h))
        self.register_buffer("bias", torch.zeros(c, h))

    def lags(self) -> Float[Tensor, " f"]:
        """The lag of each feature, in rows: 1 for the last row and for the future. The calendar has
        the lag of the whole window, because models overfit to it."""
        w, h = self.spec.window, self.spec.horizon
        past = torch.arange(w, 0, -1, dtype=torch.float64)
        known = nn.functional.pad(past, (0, h), value=1.0)
        # `flatten(1)` puts the columns of one row next to each other.
        columns = [past, past.repeat_interleave(len(self.spec.covariates))]
        columns += [known.repeat_interleave(len(self.spec.known))]
        return torch.cat([*columns, past[:1].expand(self.spec.n_calendar)])

    def features(self, x: Tensor, scaled: Window) -> Float[Tensor, "c b f"]:
        """Features from x (b, w, c), the scaled target minus its last value, and from `scaled`."""
        shared = torch.cat(
            [
                scaled.covariates.flatten(1),
                scaled.known.flatten(1),
                scaled.calendar[:, x.shape[1] - 1],
            ],
            dim=1,
        )
        own = x.permute(2, 0, 1)
        return torch.cat([own, shared.expand(own.shape[0], -1, -1)], dim=2)

    def forward(self, features: Float[Tensor, "c b f"]) -> Float[Tensor, "b h c"]:
        return torch.baddbmm(self.bias[:, None], features, self.weight).permute(1, 2, 0)
