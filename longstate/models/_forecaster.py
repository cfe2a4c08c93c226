"""The forecasting model: a linear regression, and a state space model for its residual.

    z   = (target - mean) / std,   mean and std of the training part
    x   = z - z_last                                     (b, w, c)
    line = W [x, covariates, known, calendar]            (b, h, c), in closed form, not trained
    r   = head(backbone([x then line, ...known]))        (b, h, c), zero before training
    forecast = mean + std * (z_last + line + r), with the transform undone, within the bounds

The line is a ridge regression whose penalty may grow with the lag. Plain ridge, the baseline, is
stored beside it and is not part of the forecast. `longstate.train._baselines` solves for both.
The backbone runs over the window and the horizon. In the horizon its input is the covariates that
are known in advance, the calendar, and the line's forecast in place of the target. Quantiles are
the line plus a spread measured on validation data plus a learned part, sorted so that they do not
cross. Because the head starts at zero, training starts exactly at the line.

Subtracting the last value is reversible instance normalisation (Kim et al. 2022) without the
division; ridge regression after it is NLinear (Zeng et al. 2023) in closed form.

In a panel, one model for many series, each series has its own mean and std. Static numbers and the
embeddings of text columns are added to the input of the backbone at each row; the line does not
read them. The embedding of a text that is not in the training is zero.

Axes: b batch, w window, h horizon, c targets, p covariates, k known, m calendar, q quantiles,
d channels, a static numbers, e text columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate import _tensorfile as tensorfile
from longstate._facts import read
from longstate.errors import InputError
from longstate.layers._base import Layer
from longstate.models._choice import Choice, with_all_parts
from longstate.models._elapsed import as_feature, steps_between
from longstate.models._line import Forecast, Line, Window
from longstate.models._remarks import missing_rows
from longstate.models._saving import build, check_blocks, describe_layers, layer_maker
from longstate.models._scale import Scale, Units
from longstate.models._spec import ForecastSpec, ModelFacts
from longstate.models._stack import Stack, repeat


class ForecastModel(nn.Module):
    """The forecasting model. Inputs and outputs are in the data's own units.

    Args:
        spec: columns and lengths.
        layer: makes one mixing layer from `d_model`, for example `S4D`; or a pattern of several,
            which is repeated.
        d_model: channels of the stack.
        n_layers: blocks.
        dropout: in each block, in training.
    """

    spread: Tensor

    def __init__(
        self,
        spec: ForecastSpec,
        layer: Callable[[int], Layer] | Sequence[Callable[[int], Layer]],
        *,
        d_model: int = 32,
        n_layers: int = 2,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.spec = spec
        c, q = len(spec.targets), len(spec.quantiles)
        self.scale = Scale(c, spec.transform, series=len(spec.series))
        self.covariate_scale = Scale(len(spec.covariates))
        self.known_scale = Scale(len(spec.known))
        self.line, self.ridge = Line(spec), Line(spec)
        self.register_buffer("spread", torch.zeros(spec.horizon, c, q))
        self.choice: Choice | None
        self.register_module("choice", None)  # made after the training
        inputs = c + 1 + len(spec.covariates) + len(spec.known) + spec.n_calendar
        self.encode = nn.Linear(inputs, d_model)
        pattern = [layer] if callable(layer) else layer
        mixers = repeat(pattern, d_model, n_layers)
        self.backbone = Stack(mixers, gate=spec.gate, dropout=dropout)
        self.head = nn.Linear(d_model, c * (1 + q))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if spec.static:
            self.static_scale = Scale(len(spec.static))
            self.static = nn.Linear(len(spec.static), d_model, bias=False)
        if spec.categories:
            self.embed = nn.ModuleList(
                nn.Embedding(1 + len(one.levels), d_model, padding_idx=0) for one in spec.categories
            )
            for weight in self.embed.parameters():
                nn.init.zeros_(weight)

    if TYPE_CHECKING:  # nn.Module.__call__ returns Any

        def __call__(self, window: Window, scaled: bool = False) -> Forecast: ...

    def save(self, path: str | Path) -> None:
        """Write description and weights to one safetensors file, atomically.

        Raises:
            InputError: a layer is not from `longstate.layers`, or the file cannot be written.
        """
        facts = {
            "spec": asdict(self.spec),
            "layers": describe_layers(self.backbone),
            "d_model": self.encode.out_features,
            "dropout": next(m.p for m in self.modules() if isinstance(m, nn.Dropout)),
        }
        tensorfile.save(path, "forecast model", dict(self.state_dict()), facts)

    @classmethod
    def load(cls, path: str | Path) -> "ForecastModel":
        """Read a file of `save`. The model is in evaluation mode.

        Raises:
            InputError: the file is of another kind, or damaged.
        """
        tensors, raw = tensorfile.load(path, "forecast model")
        tensors = with_all_parts(tensors)
        facts = read(ModelFacts, raw, f"the description in {path}")
        spec = ForecastSpec.of(facts.spec, f"{path}: spec")
        makers = [layer_maker(x, f"{path}: layers[{i}]") for i, x in enumerate(facts.layers)]
        check_blocks(len(makers), tensors, path)

        def make() -> ForecastModel:
            layers = iter(makers)
            model = cls(
                spec,
                lambda _: next(layers)(),
                d_model=facts.d_model,
                n_layers=len(makers),
                dropout=facts.dropout,
            )
            model.choice = Choice.of(spec, tensors)
            return model

        return build(make, tensors, path)

    def forward(self, window: Window, scaled: bool = False) -> Forecast:
        """The network's forecast, in the data's own units or in scaled units."""
        forecast = self.scaled(window)
        return forecast if scaled else self.unscaled(forecast, window)

    def chosen(self, window: Window, method: str | None = None) -> Forecast:
        """The forecast of the choice, in the data's own units; that of the network if there is no
        choice, as in files of older versions.

        Args:
            window: the input.
            method: one of `PARTS` alone; None for the choice.

        Raises:
            InputError: there is no such method.
        """
        if self.choice is not None:
            return self.unscaled(self.choice.forecast(self, window, method), window)
        if method not in (None, "network"):
            raise InputError(
                f"this forecaster has no method {method!r}, because it was trained by an older "
                "version; train it again"
            )
        return self(window)

    def units(self, window: Window) -> Units:
        """The scale of each window: its own in a panel."""
        return self.scale.units if window.units is None else window.units

    def unscaled(self, forecast: Forecast, window: Window) -> Forecast:
        """A forecast in scaled units as one in the data's own units, within the bounds."""
        point, quantiles = forecast
        levels = self.raw(quantiles.movedim(-1, 0), window)
        return Forecast(self.raw(point, window), levels.movedim(0, -1))

    def raw(self, scaled: Float[Tensor, "... c"], window: Window) -> Float[Tensor, "... c"]:
        """Convert scaled units to the data's own units, within the bounds."""
        return self.bounded(self.units(window).inverse(scaled))

    def bounded(self, x: Tensor) -> Tensor:
        """Values in the data's own units, moved into the bounds of the forecasts."""
        if self.spec.lower is None and self.spec.upper is None:
            return x
        return x.clamp(self.spec.lower, self.spec.upper)

    def within(self, scaled: Float[Tensor, "... c"], window: Window) -> Float[Tensor, "... c"]:
        """Scaled units, moved into the bounds of the forecasts."""
        for bound, limit in ((self.spec.lower, torch.maximum), (self.spec.upper, torch.minimum)):
            if bound is not None:
                raw = window.target.new_full(window.target[:, :1].shape, bound)
                scaled = limit(scaled, self.units(window).scale(raw).to(scaled.dtype))
        return scaled

    @torch.no_grad()
    def checked(self, window: Window, method: str | None = None) -> tuple[Forecast, str | None]:
        """One checked forecast (b = 1), and a note on missing rows of the window, or None. See
        `chosen`.

        Raises:
            InputError: only the last row of the window is observed, or the forecast is not finite.
        """
        rows, seen = window.observed.shape[1], int(window.observed.any(-1).sum())
        lacks = missing_rows(seen, rows)
        forecast = self.chosen(window, method)
        if not all(bool(torch.isfinite(x).all()) for x in forecast):
            raise InputError(
                "the forecast is not finite; the largest number in its input is "
                f"{float(window.target.abs().max()):g}"
            )
        return forecast, lacks

    def scaled(self, window: Window) -> Forecast:
        """The forecast in scaled units, in which the loss and the scores are computed."""
        last, x, scaled = self.normalise(window)
        line = self.line(self.line.features(x, scaled))
        residual = self._residual(x, line, scaled).unflatten(-1, (x.shape[2], -1))
        point = last + line + residual[..., 0]
        quantiles = (last + line)[..., None] + self.spread + residual[..., 1:]
        return Forecast(point, quantiles.sort(dim=-1).values)

    def scaled_line(self, window: Window) -> Float[Tensor, "b h c"]:
        """The line alone, in scaled units: the model before training."""
        return self._alone(self.line, window)

    def scaled_ridge(self, window: Window) -> Float[Tensor, "b h c"]:
        """Plain ridge regression, in scaled units: the baseline on the same inputs."""
        return self._alone(self.ridge, window)

    def _alone(self, line: Line, window: Window) -> Tensor:
        last, x, scaled = self.normalise(window)
        return last + line(line.features(x, scaled))

    def normalise(self, window: Window) -> tuple[Tensor, Tensor, Window]:
        """Last value (b, 1, c), window minus last value (b, w, c), and the scaled window."""
        dtype = self.line.weight.dtype
        z = self.units(window).scale(window.target).to(dtype)
        scaled = window._replace(
            target=z,
            covariates=self.covariate_scale(window.covariates).to(dtype),
            known=self.known_scale(window.known).to(dtype),
            calendar=window.calendar.to(dtype),
        )
        last = z[:, -1:]
        return last, z - last, scaled

    def _residual(self, x: Tensor, line: Tensor, scaled: Window) -> Tensor:
        b, w, _ = x.shape
        h = self.spec.horizon
        ahead = x.new_zeros(b, w + h, 1)
        ahead[:, w:] = 1
        covariates = nn.functional.pad(scaled.covariates, (0, 0, 0, h))
        target = torch.cat([x, line], dim=1)
        calendar, mask, dt = scaled.calendar, _mask(scaled.observed, h), None
        if self.spec.irregular:
            dt, calendar = steps_between(calendar[..., 0], mask), as_feature(calendar)
        u = torch.cat([target, ahead, covariates, scaled.known, calendar], -1)
        u = self.encode(u.to(self.encode.weight.dtype))
        u = self._labelled(u, scaled, w)
        y, _ = self.backbone(u, mask=mask, dt=dt)
        return self.head(y[:, w:]).to(x.dtype)

    def _labelled(self, u: Tensor, window: Window, w: int) -> Tensor:
        """The input of the backbone (b, w + h, d), with static numbers and embeddings added."""
        if window.static is not None and self.spec.static:
            numbers = self.static_scale(window.static).to(u.dtype)
            u = u + self.static(numbers)[:, None]
        if window.codes is None or not self.spec.categories:
            return u
        pairs = zip(self.spec.categories, self.embed, strict=True)
        for codes, (one, embed) in zip(window.codes.unbind(-1), pairs, strict=True):
            v = embed(codes)
            if one.role == "covariate":
                v = nn.functional.pad(v[:, :w], (0, 0, 0, v.shape[1] - w))
            u = u + v
        return u


def _mask(observed: Bool[Tensor, "b w c"], horizon: int) -> Bool[Tensor, "b wh"] | None:
    """The layers' mask over window and horizon (wh = w + horizon). Rows without any target are
    False. None if nothing is missing."""
    rows = observed.any(dim=-1)
    if bool(rows.all()):
        return None
    return nn.functional.pad(rows, (0, horizon), value=True)
