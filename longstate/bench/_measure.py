"""Measure the requested ops and layers, row by row, until finished or interrupted."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from longstate._environment import environment
from longstate.bench import _layers as _layers
from longstate.bench import _ops as _ops
from longstate.bench._products import ProductCounter
from longstate.bench._settings import Settings
from longstate.bench._subject import Mode, Subject, WrongResult
from longstate.bench._timing import Limits, Timing, device_name, limits, repeat
from longstate.errors import InputError, near


@dataclass(frozen=True)
class Row:
    """One op or layer in one mode. Without `timing`, `note` says why.

    Attributes:
        kind, name, mode: what was measured.
        shapes: of its operands.
        error: largest error of the check, relative to the largest value.
        timing: seconds of a call.
        tokens, bytes: samples of a call, and the least bytes that it must move.
        products: operations of its matrix products, by type.
        wrong: whether the check failed.
        note: why there is no timing.
    """

    kind: str
    name: str
    mode: str
    shapes: dict[str, list[int]] = field(default_factory=dict)
    error: float | None = None
    timing: Timing | None = None
    tokens: int = 0
    bytes: int = 0
    products: dict[str, int] = field(default_factory=dict)
    wrong: bool = False
    note: str = ""

    def bandwidth_fraction(self, limits: Limits) -> float | None:
        return None if not self.timing else self.bytes / limits.bandwidth / self.timing.median

    def product_fraction(self, limits: Limits) -> float | None:
        """None when there are no products, or no limit for their type."""
        if not self.timing or not self.products or not set(self.products) <= set(limits.products):
            return None
        least = sum(n / limits.products[dtype] for dtype, n in self.products.items())
        return least / self.timing.median

    def to_dict(self, limits: Limits) -> dict[str, Any]:
        found = {k: v for k, v in asdict(self).items() if k != "timing"}
        t = self.timing
        return found | {
            "ms": None if t is None else 1e3 * t.median,
            "ms_low": None if t is None else 1e3 * t.low,
            "ms_high": None if t is None else 1e3 * t.high,
            "repeats": 0 if t is None else t.repeats,
            "tokens_per_s": None if t is None else self.tokens / t.median,
            "bandwidth_fraction": self.bandwidth_fraction(limits),
            "product_fraction": self.product_fraction(limits),
        }


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        settings: of the run.
        environment: versions and processors.
        device_name: name of the processor or accelerator.
        limits: of the machine, the better of two measurements.
        limits_moved: largest relative difference of the two; None when the run was interrupted.
        rows: in the order measured.
        complete: False when it was interrupted.
    """

    settings: Settings
    environment: dict[str, str]
    device_name: str
    limits: Limits
    limits_moved: float | None
    rows: tuple[Row, ...]
    complete: bool

    def to_json(self) -> str:
        """One line of JSON; the keys are documented in `longstate.bench`."""
        found = {
            "environment": self.environment,
            "settings": asdict(self.settings),
            "device_name": self.device_name,
            "limits": {
                "products_gflops": {k: v / 1e9 for k, v in self.limits.products.items()},
                "bandwidth_gbs": self.limits.bandwidth / 1e9,
                "transfers_gbs": {k: v / 1e9 for k, v in self.limits.transfers.items()},
                "moved": self.limits_moved,
            },
            "rows": [row.to_dict(self.limits) for row in self.rows],
            "complete": self.complete,
        }
        return json.dumps(found, allow_nan=False)


class Progress(NamedTuple):
    """Number of finished rows and of all rows, and the current work."""

    done: int
    total: int
    doing: str


Show = Callable[[Progress], None]


def run(
    settings: Settings,
    *,
    ops: Sequence[str] = (),
    layers: Sequence[str] = (),
    show: Show = lambda progress: None,
) -> Result:
    """Measure ops and layers by name; everything when no name is given.

    An interrupt (Ctrl-C) ends the run; rows measured so far are kept.

    Args:
        settings: device, type and sizes.
        ops: names of functions in `longstate.ops`, or of their folders.
        layers: names of classes in `longstate.layers`.
        show: called before each piece of work.

    Raises:
        InputError: a name does not exist.
    """
    chosen = choose("op", ops, _ops.subjects()) + choose("layer", layers, _layers.subjects())
    chosen = chosen or [*_ops.subjects(), *_layers.subjects()]
    total = sum(len(subject.modes) for subject in chosen)
    rows: list[Row] = []
    moved = None

    def say(doing: str) -> None:
        show(Progress(len(rows), total, doing))

    with _threads(settings.threads):
        made_with = environment()
        say("the machine's limits")
        found = limits(settings)
        try:
            for subject in chosen:
                for row in _measure(subject, settings, say):
                    rows.append(row)  # one by one: an interrupt keeps them
            say("the machine's limits again")
            again = limits(settings)
            moved, found = found.moved(again), found.better(again)
        except KeyboardInterrupt:
            pass
    name, complete = device_name(settings.device), moved is not None
    return Result(settings, made_with, name, found, moved, tuple(rows), complete)


def choose(kind: str, names: Iterable[str], subjects: list[Subject]) -> list[Subject]:
    """Those subjects that have one of these names, in any case.

    Raises:
        InputError: none has.
    """
    known = {alias.lower() for s in subjects for alias in (s.name, *s.aliases)}
    wanted = {name.lower() for name in names}
    for name in names:
        if name.lower() not in known:
            options = dict.fromkeys(a for s in subjects for a in (*s.aliases, s.name))
            raise InputError(f"there is no {kind} {name!r} to measure; {near(name, options)}")
    return [s for s in subjects if wanted & {a.lower() for a in (s.name, *s.aliases)}]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(subject: Subject, settings: Settings, say: Callable[[str], None]) -> Iterator[Row]:
    """A row for every mode. A failure of any kind gives a row with a note; the others continue."""
    left = list(subject.modes)
    error = None
    try:
        say(f"{subject.name}: checking, and compiling on the first run")
        error = subject.check(settings)
        for mode in subject.prepare(settings):
            say(f"{subject.name}: {mode.name}")
            yield _row(subject, mode, error, settings)
            left.remove(mode.name)
    except Exception as problem:
        wrong = isinstance(problem, WrongResult)
        note = str(problem) if wrong else _sentence(problem, settings)
        for name in left:
            yield Row(subject.kind, subject.name, name, error=error, wrong=wrong, note=note)


def _row(subject: Subject, mode: Mode, error: float, settings: Settings) -> Row:
    with ProductCounter() as counter:
        outputs = tree_leaves(mode.run())  # compiles, and warms up
    if not all(bool(x.isfinite().all()) for x in outputs):
        raise WrongResult("wrong: not finite at this shape; no speed")
    del outputs
    products = {str(k).removeprefix("torch."): v for k, v in counter.operations.items() if v}
    return Row(
        subject.kind,
        subject.name,
        mode.name,
        mode.shapes,
        error,
        repeat(mode.run, settings.device, settings.seconds),
        mode.tokens,
        mode.bytes,
        products,
    )


def _sentence(problem: Exception, settings: Settings) -> str:
    reason = (str(problem).strip().splitlines() or [""])[0]
    where = f"in {settings.dtype} on {settings.device}"
    return f"cannot run {where} ({type(problem).__name__}: {reason})"
