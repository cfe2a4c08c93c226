"""The ops, with the operands that layers pass to them, and their references.

Sizes, besides batch b, length t and d = d_model: in a selective block D = 2 d channels, 16 states,
4 taps, heads of 64 channels with 128 states; 32 complex modes (64 real states) for each channel of
a channel-wise layer; d complex modes for all channels together in a shared one; 4 heads with 8
states for Chimera, of one variate.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from longstate import ops
from longstate.bench._settings import Draw, Settings
from longstate.bench._subject import (
    Mode,
    Subject,
    exact,
    forward_and_backward,
    largest_error,
    leaf,
    results,
)
from longstate.layers import S4, S4D
from longstate.layers._channelwise import matrices
from longstate.layers.chimera import HEADS
from longstate.systems import DenseSystem, DiagonalSystem, DPLRSystem

_MODES, _STATES, _COLUMNS, _TAPS, _CHIMERA_STATES = 32, 16, 128, 4, 8

Operands = dict[str, Any]
"""Arguments by name; gradients are taken of all tensors."""


def _diagonal_scan(draw: Draw, s: Settings) -> Operands:
    return {
        "a": draw.decays(s.d_model),
        "x": draw.complex_normal(s.batch, s.length, s.d_model),
    }


def _diagonal_channel_scan(draw: Draw, s: Settings) -> Operands:
    return _channels(draw, s, S4D(s.d_model, d_state=2 * _MODES).system())


def _dense_channel_scan(draw: Draw, s: Settings) -> Operands:
    return _channels(draw, s, S4(s.d_model, d_state=2 * _MODES).system())


def _dplr_channel_scan(draw: Draw, s: Settings) -> Operands:
    layer = S4(s.d_model, d_state=2 * _MODES)
    system = layer.continuous_system().bilinear(layer.log_dt.exp())
    low_rank = {"P": draw.like(system.P.detach()), "Q": draw.like(system.Q.detach())}
    return _channels(draw, s, system) | low_rank


def _allpass_channel_scan(draw: Draw, s: Settings) -> Operands:
    return {
        "u": draw.normal(s.batch, s.length, s.d_model),
        "rho": draw.uniform(0.0, 0.8, s.d_model),
        "C": draw.normal(s.d_model, 2 * _MODES),
    }


def _channels(
    draw: Draw, s: Settings, system: DiagonalSystem | DPLRSystem | DenseSystem
) -> Operands:
    A, B, C = (draw.like(x.detach()) for x in matrices(system))
    return {"u": draw.normal(s.batch, s.length, s.d_model), "A": A, "B": B, "C": C}


def _expm_scan(draw: Draw, s: Settings) -> Operands:
    return {
        "M": draw.normal(s.batch, s.length, 1, s.d_model, s.d_model) / (4 * s.d_model) ** 0.5,
        "v": draw.normal(s.batch, s.length, 1, s.d_model),
    }


def _chimera_scan(draw: Draw, s: Settings) -> Operands:
    sites, channels = (s.batch, s.length, 1, HEADS, s.d_model), (HEADS, s.d_model, _CHIMERA_STATES)
    frequency = torch.pi * torch.arange(_CHIMERA_STATES).expand(channels)
    return {
        "x": draw.normal(*sites),
        "s": draw.uniform(0.001, 0.1, *sites),
        "r": draw.uniform(0.1, 1.0, *sites),
        "select": draw.normal(*sites[:4], 6, _CHIMERA_STATES),
        "a": draw.like(torch.complex(torch.full(channels, -0.5), frequency)),
        "c": draw.uniform(1.0, 8.0, *channels),
        "coupling": draw.uniform(-0.5, 0.5, 2, *channels),
    }


def _zoh_scan(draw: Draw, s: Settings) -> Operands:
    return {
        "A": draw.decays(s.d_model).log() / 2,
        "dt": draw.uniform(0.5, 2.0, s.batch, s.length),
        "u": draw.normal(s.batch, s.length, s.d_model),
        "B": draw.complex_normal(s.d_model, s.d_model) * s.d_model**-0.5,
    }


def _zoh_channel_scan(draw: Draw, s: Settings) -> Operands:
    found = _channels(draw, s, S4D(s.d_model, d_state=2 * _MODES).continuous_system())
    dt = draw.uniform(0.5, 2.0, s.batch, s.length)
    return found | {"A": found["A"] / 100, "dt": dt}


def _oscillator_scan(draw: Draw, s: Settings) -> Operands:
    return {
        "A": draw.uniform(0.01, 1.0, s.d_model),
        "u": draw.normal(s.batch, s.length, s.d_model),
        "B": draw.complex_normal(s.d_model, s.d_model) * s.d_model**-0.5,
    }


def _short_conv(draw: Draw, s: Settings) -> Operands:
    return {
        "x": draw.half(s.batch, s.length, s.d_inner),
        "weight": draw.normal(s.d_inner, _TAPS),
        "bias": draw.normal(s.d_inner),
    }


def _gated_norm(draw: Draw, s: Settings) -> Operands:
    inside = (s.batch, s.length, s.d_inner)
    return {
        "y": draw.half(*inside),
        "z": draw.half(*inside),
        "weight": draw.normal(s.d_inner),
    }


def _selective_scan(draw: Draw, s: Settings) -> Operands:
    inside = (s.batch, s.length, s.d_inner)
    return {
        "u": draw.normal(*inside),
        "dt": draw.normal(*inside),
        "A": draw.like(-torch.arange(1.0, _STATES + 1).repeat(s.d_inner, 1)),
        "B": draw.normal(s.batch, s.length, _STATES),
        "C": draw.normal(s.batch, s.length, _STATES),
        "D": draw.normal(s.d_inner),
        "z": draw.half(*inside),
        "dt_bias": draw.uniform(-6.0, -2.0, s.d_inner),
    }


def _longhorn_scan(draw: Draw, s: Settings) -> Operands:
    inside = (s.batch, s.length, s.d_inner)
    return {
        "x": draw.normal(*inside),
        "beta": draw.normal(*inside),
        "k": draw.normal(s.batch, s.length, _STATES),
        "q": draw.normal(s.batch, s.length, _STATES),
        "D": draw.normal(s.d_inner),
        "z": draw.half(*inside),
    }


def _chunk_scan(draw: Draw, s: Settings) -> Operands:
    h = s.d_inner // s.d_head
    step = draw.uniform(0.001, 0.1, s.batch, s.length, h)
    return {
        "x": draw.normal(s.batch, s.length, h, s.d_head),
        "log_a": -step * draw.uniform(1.0, 16.0, h),
        "B": draw.normal(s.batch, s.length, 1, _COLUMNS),
        "C": draw.normal(s.batch, s.length, 1, _COLUMNS),
        "weight": step,
        "D": draw.normal(h),
    }


def subjects() -> list[Subject]:
    """Every op, in the order in which it is measured."""
    selective = partial(ops.selective_scan, dt_softplus=True)
    longhorn = partial(ops.longhorn_scan, beta_sigmoid=True)
    return [
        _subject(ops.diagonal_scan, _diagonal_scan),
        _subject(ops.zoh_scan, _zoh_scan),
        _subject(ops.zoh_channel_scan, _zoh_channel_scan),
        _subject(ops.expm_scan, _expm_scan),
        _subject(ops.chimera_scan, _chimera_scan),
        _subject(ops.oscillator_scan, _oscillator_scan),
        _subject(ops.diagonal_channel_scan, _diagonal_channel_scan),
        _subject(ops.dense_channel_scan, _dense_channel_scan),
        _subject(ops.dplr_channel_scan, _dplr_channel_scan),
        _subject(ops.allpass_channel_scan, _allpass_channel_scan),
        _subject(partial(ops.short_conv, activation="silu"), _short_conv),
        _subject(ops.gated_norm, _gated_norm),
        _subject(selective, _selective_scan),
        _subject(partial(longhorn, update="diagonal"), _longhorn_scan, "diagonal"),
        _subject(partial(longhorn, update="exact"), _longhorn_scan, "exact"),
        _subject(ops.chunk_scan, _chunk_scan),
    ]


def _subject(
    op: Callable, operands: Callable[[Draw, Settings], Operands], variant: str = ""
) -> Subject:
    function = op.func if isinstance(op, partial) else op
    folder = function.__module__.split(".")[2]
    plain = partial(op, impl="reference")

    def check(settings: Settings) -> float:
        # longer than a chunk of 64 samples, with inner channels wider than a tile of 64
        small = replace(settings, batch=2, length=70, d_model=36)
        given = _leaves(operands(Draw(small), small))
        wide = {k: exact(v) if isinstance(v, Tensor) else v for k, v in given.items()}
        found = results(lambda: op(**given), _tensors(given).values())
        expected = results(lambda: plain(**wide), _tensors(wide).values())
        return largest_error(found, expected, settings)

    def prepare(settings: Settings) -> list[Mode]:
        given = _leaves(operands(Draw(settings), settings))
        tokens = settings.length * settings.batch
        return forward_and_backward(lambda: op(**given), _tensors(given), (), tokens)

    name = f"{function.__name__} {variant}".strip()
    modes = ("forward", "forward+backward")
    return Subject("op", name, (function.__name__, folder), modes, check, prepare)


def _leaves(operands: Operands) -> Operands:
    return {k: leaf(v) if isinstance(v, Tensor) else v for k, v in operands.items()}


def _tensors(operands: Operands) -> dict[str, Tensor]:
    return {k: v for k, v in operands.items() if isinstance(v, Tensor)}
