"""Quantiles that follow the truth along a stream: adaptive conformal prediction.

    quantile <- forecast's quantile + shift
    shift    <- shift + rate * width * (level - [truth <= quantile])

for each step ahead, target and level, whenever the truth of an earlier forecast arrives; width is
the mean distance of the outermost quantiles so far. This is the idea of Gibbs and Candes (2021), in
the form of Angelopoulos, Candes and Tibshirani (2023), which moves the quantile and not its level.
In the long run each quantile holds its share of the truth, whatever the data, if the errors are
bounded; over a short time nothing is guaranteed.

Axes: h horizon, c targets, q quantiles, n pending forecasts.
"""

from collections import deque

import torch
from torch import Tensor

from longstate.errors import InputError
from longstate.models import Forecast, ForecastSpec


class Adaptive:
    """Shifts the quantiles of a stream's forecasts.

    Args:
        spec: horizon, targets and quantiles.
        rate: share of the width that an error moves a quantile by; 0 for none.

    Raises:
        InputError: the rate is not from 0 to 1.
    """

    def __init__(self, spec: ForecastSpec, rate: float):
        if not 0 <= rate <= 1:
            raise InputError(f"adapt must be a number from 0 to 1; got {rate!r}")
        self.rate, self._levels = rate, torch.tensor(spec.quantiles, dtype=torch.float64)
        self._bounds = (spec.lower, spec.upper)
        shape = (spec.horizon, len(spec.targets), len(spec.quantiles))
        self.shift = torch.zeros(shape, dtype=torch.float64)
        self._widths = torch.zeros(2, *shape[:2], 1, dtype=torch.float64)  # number and sum
        self._pending: deque[Tensor | None] = deque(maxlen=spec.horizon)
        self._nothing = torch.full(shape, torch.nan, dtype=torch.float64)

    @property
    def active(self) -> bool:
        return self.rate > 0 and len(self._levels) > 0

    def row(self, target: Tensor, observed: Tensor) -> None:
        """A row has come: compare earlier forecasts of it with the truth.

        Args:
            target (c): values. observed (c): False where there is none.
        """
        if not self.active:
            return
        for steps, forecast in enumerate(reversed(self._pending)):
            if forecast is None:
                continue
            quantiles = forecast[steps]
            self._widths[0, steps] += 1
            self._widths[1, steps] += quantiles[:, -1:] - quantiles[:, :1]
            width = self._widths[1, steps] / self._widths[0, steps]
            miss = self._levels - (target[:, None] <= quantiles).double()
            self.shift[steps] += self.rate * width * miss * observed[:, None]
        self._pending.append(None)

    def correct(self, forecast: Forecast) -> Forecast:
        """The forecast after the newest row (b = 1), with shifted quantiles."""
        if not self.active:
            return forecast
        quantiles = (forecast.quantiles.double() + self.shift).sort(dim=-1).values
        if self._bounds != (None, None):
            quantiles = quantiles.clamp(*self._bounds)
        if self._pending:
            self._pending[-1] = quantiles[0]
        return Forecast(forecast.point, quantiles.to(forecast.quantiles.dtype))

    def tensors(self) -> dict[str, Tensor]:
        """The state, for a file."""
        if not self.active:
            return {}
        pending = [self._nothing if x is None else x for x in self._pending]
        held = torch.stack(pending) if pending else self._nothing[None][:0]
        found = {"shift": self.shift, "widths": self._widths, "pending": held}
        return {f"adaptive/{name}": tensor for name, tensor in found.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the state from a file; it starts anew where the file has none.

        Raises:
            InputError: the shapes are not those of this stream, or a number is not finite.
        """
        shift = tensors.get("adaptive/shift", torch.zeros_like(self.shift))
        widths = tensors.get("adaptive/widths", torch.zeros_like(self._widths))
        pending = tensors.get("adaptive/pending", self._nothing[None][:0])
        shapes = (shift.shape, pending.shape[1:], widths.shape)
        if shapes != (self.shift.shape, self.shift.shape, self._widths.shape):
            raise InputError("the shifts of the quantiles are not those of this stream")
        if not (shift.isfinite().all() and widths.isfinite().all() and (widths >= 0).all()):
            raise InputError("the shifts of the quantiles are not finite: the file was changed")
        self.shift, self._widths = shift.clone(), widths.clone()
        held = (None if bool(x.isnan().any()) else x.clone() for x in pending)
        self._pending = deque(held, maxlen=self._pending.maxlen)
