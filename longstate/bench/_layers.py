"""The layers with their default options; a layer is checked against its own steps."""

import copy
from dataclasses import replace

import torch
from torch.utils._pytree import tree_leaves

from longstate import layers
from longstate.bench._settings import Draw, Settings
from longstate.bench._subject import (
    Call,
    Mode,
    Subject,
    exact,
    forward_and_backward,
    largest_error,
    leaf,
    results,
    shapes_of,
    size,
)
from longstate.layers import Layer
from longstate.layers._wrapper import Wrapper

_WARM = 5  # samples before the state from which a step is timed


def subjects() -> list[Subject]:
    """Every layer, in the order in which it is measured."""
    invariant = (layers.S4, layers.S4D, layers.DSS, layers.S5, layers.LinOSS)
    classical = (layers.LinearRNN, layers.Elman, layers.GRU, layers.LSTM)
    cells = (layers.TensorPower, layers.CfC, layers.GRUD)
    return [
        *(_subject(cls, small=8) for cls in invariant),
        _subject(layers.ConvS5, small=8),
        _subject(layers.HOPE, small=8),
        _subject(layers.Chimera, small=8),
        _subject(layers.Mamba),
        _subject(layers.FalconMamba),
        _subject(layers.Mamba2, heads=True),
        _subject(layers.Mamba3, heads=True),
        _subject(layers.Longhorn),
        _subject(layers.Longhorn, "exact"),
        *(_subject(cls, small=8) for cls in (layers.SMR, layers.Timed, layers.Spiking)),
        *(_subject(cls) for cls in (*classical, *cells)),
        _subject(layers.LinearCDE, small=8),
        _subject(layers.GatedSSM),
        _subject(layers.LongVQ),
        _subject(layers.Attention, small=8),
    ]


def _subject(
    cls: type[Layer], update: str = "", *, heads: bool = False, small: int = 36
) -> Subject:
    """`heads`: whether it has heads; `small`: channels of the check (2 * 36 is above 64)."""

    def make(settings: Settings, draw: Draw) -> Layer:
        options: dict = {"variant": update} if update else {}
        if heads:
            options["d_head"] = settings.d_head
        if cls is layers.Timed:
            options["step"] = "linear", "tokens"
        if cls is layers.Attention:
            options["n_heads"] = max(1, settings.d_model // 64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if issubclass(cls, Wrapper):
                layer: Layer = cls(layers.S4D(settings.d_model), **options)
            else:
                layer = cls(settings.d_model, **options)
        return layer.eval().to(draw.device, draw.dtype)

    def check(settings: Settings) -> float:
        s = replace(settings, batch=2, length=35, d_model=small)  # longer than a chunk of 32
        draw = Draw(s)
        layer, u = make(s, draw), leaf(draw.normal(s.batch, s.length, s.d_model))
        wide, u_wide = copy.deepcopy(layer).cpu().double(), exact(u)
        found = results(lambda: layer(u)[0], [u, *layer.parameters()])
        expected = results(by_steps(wide, u_wide), [u_wide, *wide.parameters()])
        return largest_error(found, expected, settings)

    def prepare(settings: Settings) -> list[Mode]:
        draw = Draw(settings)
        layer = make(settings, draw)
        u = leaf(draw.normal(settings.batch, settings.length, settings.d_model))
        modes = forward_and_backward(
            lambda: layer(u), {"u": u}, layer.parameters(), settings.batch * settings.length
        )
        return [*modes, _step(layer, u)]

    name = f"{cls.__name__} {update}".strip()
    modes = ("forward", "forward+backward", "step")
    return Subject("layer", name, (cls.__name__,), modes, check, prepare)


def by_steps(layer: Layer, u: torch.Tensor) -> Call:
    """y of `u` (b, t, d), one sample at a time."""

    def call() -> torch.Tensor:
        state, outputs = layer.init_state(len(u)), []
        for sample in u.unbind(1):
            y, state = layer.step(sample, state)
            outputs.append(y)
        return torch.stack(outputs, 1)

    return call


def _step(layer: Layer, u: torch.Tensor) -> Mode:
    with torch.no_grad():
        _, state = layer(u[:, :_WARM])
    sample = u[:, 0].detach()

    def step():
        with torch.no_grad():
            return layer.step(sample, state)

    # the next state has the size of the state
    moved = size(layer.parameters()) + 2 * size([sample]) + 2 * size(tree_leaves(state))
    return Mode("step", shapes_of({"u": sample}), step, len(sample), moved)
