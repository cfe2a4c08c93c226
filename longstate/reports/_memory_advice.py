"""Advice: the first box of the page about a model's memory.

Each line has figures and ends with a command. A state belongs to one sequence, so its bytes are
needed once for every session of a server.
"""

import math
from typing import NamedTuple

import torch

from longstate._numbers import number
from longstate.memory import Certificate
from longstate.reports._memory_examine import Measured, MemoryReport

_ENOUGH = 0.99  # share of the sum of a channel's Hankel singular values that a smaller state keeps
_WORTH = 0.1  # share of a state; a smaller saving is not worth a training
_DEAD = 1e-6  # share of the median channel's gain from past to future; below it a channel is dead
_BYTES = 4  # bytes of a number of a state, which is float32 at least


class Advice(NamedTuple):
    """One thing to do.

    Attributes:
        text: the finding, with figures, and the advice.
        command: the command to type; empty if there is none.
    """

    text: str
    command: str


def advice(report: MemoryReport) -> list[Advice]:
    """The advice, most useful first; never empty."""
    numbers = sum(m.states for m in report.layers)
    size = f"One sequence's state is {_size(numbers * _BYTES)} ({numbers:,} numbers in float32)."
    said = [*_failed(report.certificate, report.name), *_smaller(report, size)]
    said += _dead(report) + _beyond(report) + _more_data(report)
    if not said:
        said.append(Advice(f"{size} No change is suggested.", ""))
    return said


def _failed(found: Certificate | None, name: str) -> list[Advice]:
    if found is None or found.passed:
        return []
    first = next(c for c in found.claims if c.holds is False)
    return [
        Advice(
            f"{first.layer} fails a claim ({first.what}): the effect of an input may never fade. "
            "Reset its state between sequences, or train with a layer that forgets "
            "(LinOSS(variant='im')).",
            f"longstate certify {_quoted(name)}",
        )
    ]


def suggested_d_state(m: Measured) -> int | None:
    """The smallest even d_state with which every channel keeps 99 % of the sum of its Hankel
    singular values. None if the layer is not linear."""
    if m.spectrum is None:
        return None
    needed = int(m.spectrum.needed(_ENOUGH).max())
    return needed + needed % 2


def _smaller(report: MemoryReport, size: str) -> list[Advice]:
    """Suggest a smaller state if linear layers use only a small part of it."""
    linear = [m for m in report.layers if m.spectrum is not None]
    used = _selective_use(report)
    if not linear:
        return [a._replace(text=f"{size} {a.text}") for a in used]
    now = max(m.spectrum.values.shape[-1] for m in linear if m.spectrum is not None)
    need = max(suggested_d_state(m) or now for m in linear)
    if need > (1 - _WORTH) * now:
        fits = f"its worst channel needs {need} of {now} directions for 99 % of what passes"
        return [Advice(f"{size} Of the linear layers d_state fits: {fits}.", ""), *used]
    numbers = sum(m.states for m in report.layers)
    saved = sum(round(m.states * (1 - need / now)) for m in linear) * _BYTES
    return [
        Advice(
            f"{size} For 99 % of what passes through the worst channel {need} of {now} directions "
            f"are enough. d_state={need} saves {_size(saved)} of a state "
            f"({100 * saved / (_BYTES * numbers):.0f} %), in a new training or by reduce.",
            _reduce(report, need / now),
        ),
        *used,
    ]


def _selective_use(report: MemoryReport) -> list[Advice]:
    """How much of the state of selective layers was in use on the data."""
    shares = {
        m.name: float(m.effective.along.max()) / m.effective.d_state
        for m in report.layers
        if m.effective is not None
    }
    if not shares:
        return []
    said = [f"{name} {100 * share:.0f} %" for name, share in shares.items()]
    shown = ", ".join(said[:4]) + (f" and {len(said) - 4} more" if len(said) > 4 else "")
    used = f"The largest share of its numbers in use on this data was {shown}."
    if max(shares.values()) > 1 - _WORTH:
        return [Advice(used, "")]
    return [
        Advice(
            f"{used} A smaller state may be enough: measure it, or train with a smaller d_state.",
            _reduce(report, max(shares.values())),
        )
    ]


def _reduce(report: MemoryReport, keep: float) -> str:
    """The command that keeps at least this share of each state."""
    share = max(math.ceil(100 * keep), 1) / 100
    return f"longstate reduce {_quoted(report.name)} --keep {share:g} --out NEW"


def _dead(report: MemoryReport) -> list[Advice]:
    """Channels through which nothing passes."""
    found = []
    for m in report.layers:
        if m.spectrum is None:
            continue
        passes = m.spectrum.values.reshape(-1, m.spectrum.values.shape[-1]).sum(-1)
        dead = int((passes <= _DEAD * passes.median().clamp(min=1e-300)).sum())
        if dead and len(passes) > 1:
            found.append(f"{dead} of {len(passes)} of {m.name}")
    if not found:
        return []
    return [
        Advice(
            f"Dead channels, whose state has no effect on the output: {', '.join(found)}. A "
            "smaller d_model would lose nothing.",
            "",
        )
    ]


def _beyond(report: MemoryReport) -> list[Advice]:
    """States that reach further back than the training sequences."""
    if report.length is None:
        return []
    steps = [m.scales.steps.flatten() for m in report.layers if m.scales is not None]
    if not steps:
        return []
    share = float((torch.cat(steps) > report.length).double().mean())
    if share < 0.1:
        return []
    return [
        Advice(
            f"{100 * share:.0f} % of the states reach further back than the {report.length:,} "
            f"{report.unit} of a training sequence, so their behaviour there was not trained. "
            f"Train on longer sequences (twice: {2 * report.length:,}), or reset the state every "
            f"{report.length:,} {report.unit}.",
            "",
        )
    ]


def _more_data(report: MemoryReport) -> list[Advice]:
    unmeasured = [m for m in report.layers if m.scales is None]
    if not unmeasured:
        return []
    return [
        Advice(
            f"{len(unmeasured)} of {len(report.layers)} layers depend on their input and were not "
            "measured.",
            f"longstate memory {_quoted(report.name)} --data FILE",
        )
    ]


def _quoted(name: str) -> str:
    return name if all(c.isalnum() or c in "._-/" for c in name) else f"'{name}'"


def _size(count: float) -> str:
    """A number of bytes with a unit."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{number(count)} {unit}"
        count /= 1024
    return f"{number(count)} GiB"
