"""Time repeated calls, and measure the limits of the machine."""

import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from longstate.bench._settings import DTYPES, Settings

_SHORTEST = 0.002  # seconds of one timing: much longer than the overhead of clock and GPU
_LONG_ENOUGH = 0.05  # seconds of one product that is large enough to reach the limit
_LARGEST = 8192  # most rows of that product
_ARRAY = 128 * 2**20  # bytes, much larger than any cache


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median, middle half and best of `repeats` timings.

    A timing is that of one call, or of several when one is too short for the clock.
    """

    median: float
    low: float
    high: float
    best: float
    repeats: int


def repeat(call: Callable[[], object], device: str, seconds: float) -> Timing:
    """Repeat `call`, which must be warm, for `seconds`; three timings at least, unless they take
    much longer than that."""
    clock = _clock(device)

    def timing(calls: int) -> float:
        began = clock()
        for _ in range(calls):
            call()
        return (clock() - began) / calls

    calls = 1
    while (
        calls * timing(calls) < _SHORTEST
    ):  # the first one also loads the operands into the caches
        calls *= 4
    times: list[float] = []
    while (spent := calls * sum(times)) < seconds or (len(times) < 3 and spent < 5 * seconds):
        times.append(timing(calls))
    if len(times) == 1:
        low = median = high = times[0]
    else:
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high, min(times), len(times))


def _clock(device: str) -> Callable[[], float]:
    """A clock in seconds that waits until the device has finished."""
    if torch.device(device).type == "cpu":
        return perf_counter

    def clock() -> float:
        torch.accelerator.synchronize(device)
        return perf_counter()

    return clock


@dataclass(frozen=True)
class Limits:
    """The limits of the machine.

    Attributes:
        products: operations per second of a large square matrix product, by type.
        transfers: bytes per second for arrays much larger than the caches, by kind of transfer.
    """

    products: dict[str, float]
    transfers: dict[str, float]

    @property
    def bandwidth(self) -> float:
        return max(self.transfers.values())

    def better(self, other: "Limits") -> "Limits":
        """The larger of both values, for each limit."""

        def larger(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
            return {name: max(a[name], b[name]) for name in a}

        return Limits(
            larger(self.products, other.products), larger(self.transfers, other.transfers)
        )

    def moved(self, other: "Limits") -> float:
        """The largest relative difference of a limit."""
        ours, theirs = (x.products | {"": x.bandwidth} for x in (self, other))
        return max(abs(ours[k] - theirs[k]) / max(ours[k], theirs[k]) for k in ours)


def limits(settings: Settings) -> Limits:
    """Measure the limits, with the current number of threads."""
    products = {}
    for name in ("float32", "float64", settings.dtype):
        try:
            products[name] = _product(DTYPES[name], settings)
        except (RuntimeError, TypeError):  # the device has no such type
            continue
    return Limits(products, _transfers(settings))


def _product(dtype: torch.dtype, settings: Settings) -> float:
    size = 512
    while True:
        a = torch.ones(size, size, dtype=dtype, device=settings.device)
        product = partial(torch.mm, a, a)
        product()  # warms up
        if size >= _LARGEST or repeat(product, settings.device, _SHORTEST).best >= _LONG_ENOUGH:
            return 2 * size**3 / repeat(product, settings.device, settings.seconds).best
        size *= 2


def _transfers(settings: Settings) -> dict[str, float]:
    a, b, c = torch.ones(3, _ARRAY // 4, device=settings.device)
    calls = {
        "copy": (2, lambda: c.copy_(a)),
        "sum": (1, lambda: a.sum()),
        "triad": (3, lambda: torch.add(a, b, alpha=3.0, out=c)),
    }
    return {
        name: arrays * a.nbytes / repeat(call, settings.device, settings.seconds).best
        for name, (arrays, call) in calls.items()
    }


def device_name(device: str) -> str:
    """Name of the processor or the accelerator."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if torch.device(device).type == "cpu" and cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
