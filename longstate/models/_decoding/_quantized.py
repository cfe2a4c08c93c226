"""A selective layer whose state stays in 8 or 4 bits between samples.

A step of `Mamba` and `Mamba2` reads and writes the rounded state in one kernel, if there is neither
mask nor reset. Everything else unpacks the state, calls the layer, and rounds what it returns; that
gives the same state, because a state that did not change is rounded to itself.

Axes: b batch, t time, i channels outside, d channels inside, n state, w bytes or words of a row.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.errors import InputError
from longstate.layers._base import Layer, State, as_options, check_state, check_step, scaled
from longstate.layers.longhorn import Longhorn
from longstate.layers.mamba import Mamba
from longstate.layers.mamba2 import Mamba2
from longstate.layers.mamba3 import Mamba3
from longstate.models._decoding._mamba import DecodingMamba
from longstate.ops import short_conv
from longstate.ops.quantized_step import (
    Digits,
    Rounded,
    exact_state,
    head_quantized_step,
    round_state,
    seed_of,
    selective_quantized_step,
)


class QuantizedLayer(Layer):
    """The same call as the layer's. Its state has `numbers` and `exponents` in place of `ssm`; see
    `longstate.ops.quantized_step`.

    Args:
        layer: Mamba, Mamba-2, Mamba-3 or Longhorn.
        digits: how its state is rounded after every call.
    """

    def __init__(self, layer: Layer, digits: Digits):
        super().__init__()
        self.layer, self.digits = layer, digits
        self.d_model, self.own_gate = layer.d_model, layer.own_gate

    def init_state(self, batch: int) -> State:
        """That of the layer, rounded."""
        return self._rounded(self.layer.init_state(batch), 0)

    def forward(
        self,
        u: Float[Tensor, "b t i"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t i"], State]:
        """As the layer's; the state is rounded once, after the last sample."""
        if state is not None:
            check_state(self, state, len(u))
            state = self._exact(state)
        y, state = self.layer(u, state, **as_options(dt, mask, reset, rate))
        return y, self._rounded(state, seed_of(self.digits))

    def step(
        self,
        u: Float[Tensor, "b i"],
        state: State,
        *,
        dt: Float[Tensor, " b"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b i"], State]:
        """One sample."""
        state = check_step(self, u, state, dt, mask, reset, rate)
        form = _STEPS.get(type(self.layer))
        own: Any = self.layer
        if mask is None and reset is None and form is not None and _is_plain(own, u):
            numbers, exponents = state["numbers"], state["exponents"]
            y, taps, (numbers, exponents) = form(
                own, u, state["taps"], Rounded(numbers, exponents), scaled(u, dt, rate), self.digits
            )
            return y.to(u.dtype), {"taps": taps, "numbers": numbers, "exponents": exponents}
        options = as_options(dt, mask, reset, rate)
        y, after = self.layer.step(u, self._exact(state), **options)
        return y, self._rounded(after, seed_of(self.digits))

    def _rounded(self, state: State, seed: int) -> State:
        rest = {name: v for name, v in state.items() if name != "ssm"}
        numbers, exponents = round_state(state["ssm"], self.digits, seed)
        return {**rest, "numbers": numbers, "exponents": exponents}

    def _exact(self, state: State) -> State:
        rest = {name: v for name, v in state.items() if name not in ("numbers", "exponents")}
        like = self.layer.init_state(0)["ssm"]
        found = Rounded(state["numbers"], state["exponents"])
        return {**rest, "ssm": exact_state(found, self.digits, like.shape[-1], like.dtype)}

    def extra_repr(self) -> str:
        return f"bits={self.digits.bits}, rounding={self.digits.rounding!r}"


def _is_plain(layer: Any, u: Tensor) -> bool:
    """Whether no gradient is asked for, and the layer computes in float32 or float64."""
    wide = layer.D.dtype in (torch.float32, torch.float64)
    wanted = torch.is_grad_enabled() and (u.requires_grad or layer.D.requires_grad)
    return wide and not wanted


def _conv(layer: Any, v: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    y, taps = short_conv(
        v[:, None], layer.conv1d.weight[:, 0], layer.conv1d.bias, taps, activation="silu"
    )
    return y[:, 0], taps


def _mamba(
    layer: Mamba, u: Tensor, taps: Tensor, state: Rounded, dt: Tensor | None, digits: Digits
) -> tuple[Tensor, Tensor, Rounded]:
    x, z = layer.in_proj(u.to(layer.D.dtype)).chunk(2, dim=-1)
    x, taps = _conv(layer, x, taps)
    low, B, C = layer._steering(x)
    step = layer._within(F.softplus(layer.dt_proj(low)))
    step = step if dt is None else step * dt[:, None].to(step)
    y, state = selective_quantized_step(
        x, step, -layer.A_log.exp(), B, C, layer.D, z, state, digits, seed=seed_of(digits)
    )
    return layer.out_proj(y), taps, state


def _mamba2(
    layer: Mamba2, u: Tensor, taps: Tensor, state: Rounded, dt: Tensor | None, digits: Digits
) -> tuple[Tensor, Tensor, Rounded]:
    z, convolved, step = layer.in_proj(u.to(layer.D.dtype)).split(layer._sizes, -1)
    convolved, taps = _conv(layer, convolved, taps)
    x, B, C = layer._split(convolved)
    step, log_a = layer._step_sizes(step, dt)
    y, state = head_quantized_step(
        x, log_a, step, B, C, layer.D, state, digits, seed=seed_of(digits)
    )
    return layer.out_proj(layer.norm(y.flatten(1), z)), taps, state


_STEPS: dict[type, Any] = {Mamba: _mamba, DecodingMamba: _mamba, Mamba2: _mamba2}
_KINDS = (Mamba, Mamba2, Mamba3, Longhorn)


def quantize_states(model: nn.Module, digits: Digits) -> nn.Module:
    """The model with every selective layer in a `QuantizedLayer`, changed in place; or the layer
    itself in one.

    Raises:
        InputError: there is no such layer, or `digits` cannot be used.
    """
    try:
        round_state(torch.zeros(1, 1), digits)
    except ValueError as error:
        raise InputError(str(error)) from None
    if isinstance(model, _KINDS):
        return QuantizedLayer(model, digits)
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, _KINDS)
    ]
    for parent, name, child in places:
        setattr(parent, name, QuantizedLayer(child, digits))
    if not places:
        raise InputError(
            f"state_bits is for models with a Mamba, Mamba2, Mamba3 or Longhorn layer; this "
            f"{type(model).__name__} has none"
        )
    return model
