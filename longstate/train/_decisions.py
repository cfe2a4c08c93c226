"""Decisions while samples come.

Axes: s series side by side, t time, c channels, k classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from longstate.errors import InputError
from longstate.models._series import SeriesModel, SeriesState
from longstate.train._stamps import check_stamps


class Decisions:
    """Running series and their calibrated probabilities. `Classifier.stream` makes it.

        stream = classifier.stream()
        for sample in samples:
            p = stream.push(sample)

    Args:
        network: the causal network.
        classes (k): in the order of the probabilities.
        temperature: calibrates them.
        series: number of series side by side.
        rate: the sampling interval as a multiple of that of the training.
    """

    def __init__(
        self,
        network: SeriesModel,
        classes: np.ndarray,
        temperature: float,
        series: int,
        rate: float = 1.0,
    ):
        self.network, self.classes_, self.series = network, classes, series
        self._temperature, self._rate = temperature, rate
        self._state: SeriesState = network.init_state(series)
        self.position = 0

    @torch.no_grad()
    def push(self, samples: Any) -> np.ndarray:
        """The probabilities after each new sample.

        Args:
            samples: one sample (c), or (c, t); with several series (s, c) or (s, c, t). NaN is
                missing. With the channel of the stamps, if the classifier was fitted with one.

        Returns:
            (k) for one sample, (t, k) for several; with several series (s, k) or (s, t, k).

        Raises:
            InputError: the shape does not fit, a number is infinite, or stamps do not increase.
        """
        x = torch.as_tensor(np.asarray(samples, dtype=np.float64))
        c = self.network.scale.mean.shape[0] + (self.network.time is not None)
        wide = x if self.series > 1 else x[None]
        single = wide.dim() == 2
        wide = wide[..., None] if single else wide
        if wide.dim() != 3 or wide.shape[:2] != (self.series, c) or wide.shape[2] == 0:
            front = f"{self.series}, " if self.series > 1 else ""
            raise InputError(
                f"samples must be ({front}{c}) for one sample, or ({front}{c}, time); got "
                f"{tuple(x.shape)}"
            )
        if bool(wide.isinf().any()):
            raise InputError("samples contain infinity; use NaN for missing values")
        self._check_stamps(wide)
        outputs, self._state = self.network(wide.transpose(1, 2), self._state, self._rate)
        self.position += wide.shape[2]
        p = (outputs.double() / self._temperature).softmax(-1)
        p = p[:, 0] if single else p
        return (p if self.series > 1 else p[0]).numpy()

    def _check_stamps(self, samples: Tensor) -> None:
        """Check the stamps of samples (s, c, t), which follow those of earlier calls. A sample that
        is NaN throughout is none."""
        time = self.network.time
        if time is None:
            return
        clock = self._state.clock
        for i, one in enumerate(samples.double()):
            before = clock.last[i : i + 1][: int(clock.begun[i])]
            stamps = one[time.channel, ~one.isnan().all(0)]
            check_stamps(torch.cat([before, stamps]).numpy(), f"series {i} of the stream")
