"""Prescribe how long a layer remembers, or how much it amplifies, for all inputs and all training.

    prescribe(S4D(64), horizon=500, gain=2.0)

A prescription is a parametrisation: the optimiser moves free numbers, and the layer reads decays
and weights that keep the prescription for any values of these. So no step of training can leave
it, and `longstate.memory.certify` confirms it.

    horizon     linear     Re A dt = -exp(free) dt - e, with e = ln 100 / horizon: every decay of a
                           sample is the free one times 0.01^(1 / horizon)
                selective  every step is at least s and every rate exp(free) + e / s
                gate       every gate is at least f and every 1 - A at least (1 - exp(-e)) / f
    gain        C and D times min(1, gain / bound), with the bound
                max |D| + sum over states of |C| |B| / (1 - |A|), twice the sum for conjugate pairs

The bound is one of the gain of amplitude (l1) and of energy (H-infinity). It is reached if all
impulse responses have one sign, and may be several times too large for states that oscillate.

Prescribed gains for recurrent models are known: neural-ssm has layers with a prescribed gain. We
know of no library that prescribes a horizon.

Axes: d channels, n state.
"""

import math
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from longstate.errors import InputError
from longstate.layers._base import Layer

L = TypeVar("L", bound=Layer)

LEFT = 0.01
"""Share of a state that is left after the horizon."""
_MARGIN = 1 + 1e-6  # for rounding
_SEARCHED = 1 + 2e-3  # so that the upper end of a search for the peak over frequencies is below
_RATE = 0.5  # least rate of a selective layer if its least step is free to choose
_LINEAR = {"S4D": "log_decay", "S5": "log_decay", "DSS": "decay"}
_WEIGHTS = {"S4D": "C", "S5": "C", "DSS": "w"}
_SELECTIVE = ("Mamba", "Mamba2")


class Prescription(NamedTuple):
    """What was prescribed for a layer.

    Attributes:
        horizon: samples after which at most 1 % of a state is left. None: not prescribed.
        gain: largest gain of amplitude and of energy. None: not prescribed.
    """

    horizon: float | None
    gain: float | None


def prescribe(layer: L, *, horizon: float | None = None, gain: float | None = None) -> L:
    """Make a layer keep a horizon or a gain whatever it learns.

    The layer is changed in place. Values that fit stay as they are where the form allows it: free
    decays of a linear layer begin so that the decays themselves do not change, if they are fast
    enough.

    Args:
        layer: for a horizon S4D, S5 ("zoh"), DSS ("exp"), Mamba, Mamba2 or GatedSSM; for a gain
            S4D, S5 or DSS in one direction.
        horizon: samples (at dt = 1) after which at most 1 % of a state is left, for all inputs.
        gain: largest gain of amplitude and of energy, from a zero state, at regular samples.

    Returns:
        The same layer.

    Raises:
        InputError: the layer cannot keep it, has a prescription already, or a number is not above
            0.
    """
    kind = type(layer).__name__
    if parametrize.is_parametrized(layer):
        raise InputError(f"this {kind} has a prescription already; call release(layer) first")
    if horizon is None and gain is None:
        raise InputError("prescribe needs horizon= or gain=")
    for name, value in (("horizon", horizon), ("gain", gain)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be a finite number above 0; got {value!r}")
    _check(layer, kind, horizon, gain)
    if horizon is not None:
        _prescribe_horizon(layer, kind, -math.log(LEFT) / horizon * _MARGIN)
    if gain is not None:
        weights = _WEIGHTS[kind]
        for name in (weights, "D"):
            _register(layer, name, _Scaled(layer, weights, gain))
    vars(layer)["_prescribed"] = Prescription(horizon, gain)
    return layer


def prescription(layer: nn.Module) -> Prescription | None:
    """What was prescribed for a layer; None if nothing was."""
    return vars(layer).get("_prescribed")


def release(layer: L) -> L:
    """Remove a prescription, in place. Decays and weights stay what they are, and are free from now
    on; a smallest step or gate stays an option of the layer.

    Returns:
        The same layer.
    """
    if vars(layer).pop("_prescribed", None) is None:
        return layer
    for name in list(layer.parametrizations):  # type: ignore[arg-type]
        parametrize.remove_parametrizations(layer, str(name))
    for option in ("dt_limit", "floor"):
        if hasattr(layer, option):
            made_with = vars(layer).get("_made_with", {})
            vars(layer)["_made_with"] = {**made_with, option: getattr(layer, option)}
    return layer


def _check(layer: Layer, kind: str, horizon: float | None, gain: float | None) -> None:
    variant = getattr(layer, "variant", "zoh" if kind in _LINEAR else "")
    if horizon is not None:
        fits = kind in (*_SELECTIVE, "GatedSSM") or (kind in _LINEAR and variant in ("zoh", "exp"))
        if not fits:
            raise InputError(
                f"a horizon can be prescribed for S4D and S5 ('zoh'), DSS ('exp'), Mamba, "
                f"Mamba2 and GatedSSM; got {kind} {variant}".rstrip()
            )
    if gain is not None and (kind not in _LINEAR or getattr(layer, "bidirectional", False)):
        raise InputError(
            f"a gain can be prescribed for S4D, S5 and DSS in one direction; got {kind}"
        )


def _prescribe_horizon(layer: Any, kind: str, lost: float) -> None:
    """`lost`: least loss of a sample, as -log of what is left."""
    if kind in _LINEAR:
        _register(layer, _LINEAR[kind], _Damped(layer, lost))
    elif kind == "GatedSSM":
        share = -math.expm1(-lost)
        floor = max(layer.floor, math.sqrt(share))
        if share >= floor:
            raise InputError(
                f"a horizon of {-math.log(LEFT) / lost:g} samples needs a floor above {share:.3g}"
            )
        layer.floor = floor
        _register(layer, "log_rate", _AtLeast(-math.log1p(-share / floor)))
    else:
        least, most = layer.dt_limit
        least = least if least > 0 else lost / _RATE
        if most is not None and most < least:
            raise InputError(
                f"this horizon needs steps of at least {least:.3g}, above dt_limit's {most:g}; "
                "give a dt_limit with a smallest step above 0"
            )
        layer.dt_limit = (least, most)
        _register(layer, "A_log", _AtLeast(lost / least))


def _register(layer: nn.Module, name: str, form: nn.Module) -> None:
    # unsafe: without the first call, which cannot run where a layer is only described (meta device)
    parametrize.register_parametrization(layer, name, form, unsafe=True)


class _AtLeast(nn.Module):
    """log(exp(free) + least): the logarithm of a rate above `least`."""

    def __init__(self, least: float):
        super().__init__()
        self.least = least

    def forward(self, free: Tensor) -> Tensor:
        return torch.logaddexp(free, free.new_tensor(math.log(self.least)))

    def right_inverse(self, log_rate: Tensor) -> Tensor:
        return _less(log_rate, log_rate.new_tensor(math.log(self.least)))


class _Damped(nn.Module):
    """log(exp(free) + lost / dt): the logarithm of a decay that loses at least `lost` in dt."""

    def __init__(self, layer: Layer, lost: float):
        super().__init__()
        self._layer, self.lost = (layer,), lost  # in a tuple: not a part of this module

    def forward(self, free: Tensor) -> Tensor:
        return torch.logaddexp(free, self._least(free))

    def right_inverse(self, log_decay: Tensor) -> Tensor:
        return _less(log_decay, self._least(log_decay))

    def _least(self, like: Tensor) -> Tensor:
        log_dt: Any = self._layer[0].log_dt
        if log_dt.is_meta and not like.is_meta:
            log_dt = torch.zeros_like(log_dt, device=like.device)
        least = math.log(self.lost) - log_dt
        return least.view(-1, *[1] * (like.dim() - 1)).to(like.dtype)


class _Scaled(nn.Module):
    """C or D of a layer whose gain is at most `gain`."""

    def __init__(self, layer: Layer, weights: str, gain: float):
        super().__init__()
        self._layer, self._weights, self.gain = (layer,), weights, gain

    def forward(self, free: Tensor) -> Tensor:
        scale = (self.gain / _MARGIN / self._bound().clamp(min=1e-30)).clamp(max=1)
        return free * scale.view(-1, *[1] * (free.dim() - 1)).to(free.dtype)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value

    def _bound(self) -> Tensor:
        """Bound of the gain with free C and D: (d) of channels by themselves, else (1)."""
        layer: Any = self._layer[0]
        parts = layer.parametrizations if hasattr(layer, "parametrizations") else {}
        free = {
            name: parts[name].original if name in parts else getattr(layer, name)
            for name in (self._weights, "D")
        }
        return _bound(layer, free[self._weights], free["D"])


def _bound(layer: Any, weights: Tensor, D: Tensor) -> Tensor:
    wide = torch.promote_types(D.dtype, torch.float32)
    paired = layer.frequency is not None
    C = weights.to(wide)
    C = torch.view_as_complex(C).abs() if paired else C.abs()
    lost, B = _recurrence(layer, wide, paired)
    sums = (2 if paired else 1) / lost.clamp(min=1e-30)
    D = D.to(wide).abs()
    if B.dim() == lost.dim():  # one input and one output for each channel
        return D + (C * B.abs() * sums).sum(-1)
    rows = (C * (B.abs().sum(1) * sums)).sum(1) + D  # amplitude
    energy = (C.norm(dim=0) * B.norm(dim=1) * sums).sum() + D.max()
    return torch.maximum(rows.max(), _SEARCHED * energy)[None]


def _recurrence(layer: Any, dtype: torch.dtype, paired: bool) -> tuple[Tensor, Tensor]:
    """1 - |A| and B of regular samples, without reading C and D."""
    decay = layer.decay if hasattr(layer, "decay") else layer.log_decay
    real = -decay.to(dtype).exp()
    A = torch.complex(real, layer.frequency.to(dtype)) if paired else real
    dt = layer.log_dt.to(dtype).exp()
    if A.dim() == 2:
        dt = dt[:, None]
    _, scale = layer._rule().diagonal(A, dt)
    lost = -torch.expm1(real * dt)  # not from |A|, whose gradient is lost where A underflows
    given = getattr(layer, "B", None)
    if given is None:
        return lost, scale
    B = torch.view_as_complex(given.to(dtype)) if paired else given.to(dtype)
    return lost, (scale[:, None] if B.dim() > lost.dim() else scale) * B


def _less(log_value: Tensor, log_least: Tensor) -> Tensor:
    """log(exp(log_value) - exp(log_least)), or far below it if nothing is left."""
    gap = (log_least - log_value).clamp(max=-1e-6)
    return log_value + torch.log(-torch.expm1(gap))
