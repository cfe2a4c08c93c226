"""Examine the memory of a model, layer by layer.

Linear layers are analysed from their system, for all inputs; selective layers are traced on the
data. The information of a text model's state about single tokens is probed with random letters: in
real text a token can be guessed from its neighbours, which says little about lags.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from longstate._environment import environment
from longstate.errors import InputError
from longstate.memory import (
    Certificate,
    EffectiveState,
    HankelSpectrum,
    HiddenAttention,
    MemoryCurve,
    Probes,
    Timescales,
    by_lag,
    certify,
    effective_state,
    hankel,
    hidden_attention,
    layers_of,
    memory_curve,
    probe,
    record,
    timescales,
    widened,
)
from longstate.memory._attention import choose_channels
from longstate.reports._forecast_memory import chosen
from longstate.reports._subject import Reading, Subject
from longstate.systems import Trace

FLOOR = "bf16"  # with which the state of a linear layer is read
ROWS, LENGTH = 4, 512  # stretches of text, and tokens of each
SQUARE = 96  # side of a hidden attention matrix
LETTERS, SEQUENCES, STEPS = 16, 1200, 48  # of the random text for probes
LAGS = (0, 1, 2, 3, 4, 6, 8, 12, 20, 40)
_CHANNELS = 16  # whose attention is drawn
_ROOM = 1 << 20  # of a Gramian at one position


@dataclass(frozen=True)
class Measured:
    """The results of one layer; None for those that do not apply or could not be computed.

    Args:
        name, type: of the layer.
        states: number of real numbers in its state of one sequence.
    """

    name: str
    type: str
    states: int
    scales: Timescales | None = None
    spectrum: HankelSpectrum | None = None
    curve: MemoryCurve | None = None
    effective: EffectiveState | None = None
    attention: HiddenAttention | None = None
    known: Probes | None = None


@dataclass(frozen=True)
class MemoryReport:
    """The contents of the page about a model's memory.

    Args:
        name: of the model.
        what: the data, in words.
        unit: name of the samples of the model, in the plural.
        length: of the training sequences, None if unknown.
        layers: in their order.
        certificate: of the model. None if it cannot be certified.
        notes: what could not be measured, and why.
        words: text of the first tokens of the data; empty if unknown.
        environment: versions.
    """

    name: str
    what: str
    unit: str
    length: int | None
    layers: tuple[Measured, ...]
    certificate: Certificate | None
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=environment)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """A table: one row for each layer."""
        head = ["layer", "type", "numbers", f"half forget within, {self.unit}"]
        head += [f"slowest reaches, {self.unit}", "in use"]
        return head, [[m.name, m.type, f"{m.states:,}", *_reach(m), _use(m)] for m in self.layers]


def _reach(m: Measured) -> tuple[str, str]:
    if m.scales is None:
        return "-", "-"
    steps = m.scales.steps.flatten()
    return _steps(float(steps.median())), _steps(float(steps.max()))


def _steps(x: float) -> str:
    return "for ever" if x == float("inf") else f"{x:,.1f}" if x < 100 else f"{x:,.0f}"


def _use(m: Measured) -> str:
    """Share of the state's directions that are in use."""
    if m.spectrum is not None:
        n = m.spectrum.values.shape[-1]
        return f"{100 * float(m.spectrum.entropy_rank.mean()) / n:.0f} %"
    if m.effective is not None:
        return f"{100 * float(m.effective.along.mean()) / m.effective.d_state:.0f} %"
    return "-"


def examine(
    subject: Subject, reading: Reading, *, progress: Callable[[str], None] | None = None
) -> MemoryReport:
    """Certify and measure every layer.

    Args:
        subject: the model.
        reading: data for it.
        progress: called with each layer's name before it is certified, measured, and probed.

    Raises:
        InputError: no layer of the model can be looked at, or a weight is not finite.
    """
    notes = list(subject.remarks)
    data = reading.data(ROWS, min(subject.length or LENGTH, LENGTH))
    traces = {} if data is None else record(subject.model, data)
    certificate = _try(lambda: certify(subject.model, data, progress=progress), notes)
    layers = []
    for name, layer, _ in layers_of(subject.model):
        if progress is not None:
            progress(name)
        if hasattr(layer, "system"):
            layers.append(_linear(name, layer, subject.length, notes))
        elif name in traces:
            layers.append(_selective(name, layer, traces[name], subject.length, notes))
        else:
            layers.append(Measured(name, type(layer).__name__, _numbers(layer)))
            notes.append(f"{name} depends on its input; give --data to measure it.")
    if not layers:
        raise InputError(f"{subject.name} has no layer whose memory can be measured")
    if reading.tokens is not None:
        layers = _probed(subject, reading.tokens, layers, notes, progress)
    return MemoryReport(
        subject.name, reading.what, subject.unit, subject.length, tuple(layers), certificate,
        tuple(notes), reading.words(SQUARE),
    )  # fmt: skip


def _try(measure: Callable[[], Any], notes: list[str], name: str = "") -> Any:
    """Call `measure`. An InputError becomes a note, and the result is None."""
    try:
        return measure()
    except InputError as e:
        notes.append(f"{name}: {e}." if name else f"{e}.")
        return None


def _linear(name: str, layer: Any, length: int | None, notes: list[str]) -> Measured:
    with torch.no_grad():
        system = widened(layer).system()
        lags = int(min(max(2 * (length or 256), 64), 512))
        scales = _try(lambda: timescales(system, reference=length), notes, name)
        spectrum = _try(lambda: hankel(system), [], name)
        if spectrum is None:  # an undamped state: only a stretch of time has an answer
            spectrum = _try(lambda: hankel(system, length or 1024), notes, name)
        return Measured(
            name,
            type(layer).__name__,
            _numbers(layer),
            scales,
            spectrum,
            _try(lambda: memory_curve(system, lags, noise=FLOOR), notes, name),
            attention=_try(lambda: hidden_attention(system, length=SQUARE), notes, name),
        )


def _numbers(layer: Any) -> int:
    """Number of real numbers in the layer's state of one sequence."""
    leaves = tree_leaves(layer.init_state(1))
    return sum(v.numel() * (2 if v.is_complex() else 1) for v in leaves)


def _selective(
    name: str, layer: Any, trace: Trace, length: int | None, notes: list[str]
) -> Measured:
    c, n = trace.decay.shape[2:]
    one = trace.part(rows=slice(1))
    few = max(1, min(c, _ROOM // (n * n)))
    some = one if few == c else choose_channels(one, _spread(c, few))
    if few < c:
        notes.append(f"{name}: the state in use is that of {few} of its {c:,} channels.")
    small = choose_channels(one.part(times=slice(SQUARE)), _spread(c, min(c, _CHANNELS)))
    return Measured(
        name,
        type(layer).__name__,
        _numbers(layer),
        _try(lambda: timescales(trace, reference=length), notes, name),
        effective=_try(lambda: effective_state(some, positions=48), notes, name),
        attention=_try(lambda: hidden_attention(small), notes, name),
    )


def _spread(count: int, chosen: int) -> list[int]:
    return np.linspace(0, count - 1, chosen).round().astype(int).tolist()


def _probed(
    subject: Subject,
    tokens: Tensor,
    layers: list[Measured],
    notes: list[str],
    progress: Callable[[str], None] | None,
) -> list[Measured]:
    """Probe the states of some layers for the letter at each lag."""
    letters = torch.bincount(tokens).argsort(descending=True, stable=True)[:LETTERS]
    if int(torch.bincount(tokens)[letters[-1]]) == 0 or len(letters) < LETTERS:
        notes.append(f"The data has fewer than {LETTERS} different tokens; no probe was made.")
        return layers
    draw = torch.Generator().manual_seed(0)
    classes = torch.randint(LETTERS, (SEQUENCES, STEPS), generator=draw)
    model: Any = subject.model
    with torch.no_grad():
        states = [model(letters[part])[1] for part in classes.split(50)]
    for _, m in chosen(layers):
        if progress is not None:
            progress(f"{m.name}, probes")
        i = next(i for i, block in enumerate(model.blocks) if m.name == f"blocks.{i}.mixer")
        flat = [
            torch.cat([v.flatten(1).double() for v in map(_real, tree_leaves(s[i]))], 1)
            for s in states
        ]
        labels = by_lag(classes, list(LAGS))
        known = _try(partial(probe, torch.cat(flat), labels), notes, m.name)
        layers[layers.index(m)] = replace(m, known=known)
    return layers


def _real(v: Tensor) -> Tensor:
    return torch.view_as_real(v) if v.is_complex() else v
