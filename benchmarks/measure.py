"""Common parts of the benchmarks: interleaved timing, ratios with spread, peak memory, the machine.

Candidates run in turn, round after round, so that other load affects all of them; a ratio is
computed within each round, and reported as the median with the range of the middle half.
"""

import datetime
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def rounds(candidates: dict[str, Callable[[], object]], repeats: int = 9) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, after one round that is not counted.

    In each round a candidate runs twice and the second run is timed, so that the caches do not
    contain data of the previous candidate.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(repeats + 1):
        for name, run in candidates.items():
            run()
            began = time.perf_counter()
            run()
            if i:
                times[name].append(time.perf_counter() - began)
    return times


def ratio(numerator: list[float], denominator: list[float]) -> str:
    """Median of the ratios within rounds, and the middle half of them."""
    values = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    low, _, high = (
        # inclusive: with few rounds the default extrapolates beyond the values
        statistics.quantiles(values, n=4, method="inclusive")
        if len(values) > 1
        else (values[0],) * 3
    )
    return f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})"


def ms(times: list[float]) -> str:
    """Median and smallest time."""
    return f"{1e3 * statistics.median(times):.1f} (best {1e3 * min(times):.1f})"


def peak_mib(code: str) -> float:
    """Growth of the peak resident memory, in MiB, while `work()` of `code` runs the second time.

    `code` runs in a separate process and defines `work` and `prepare`. The first call compiles and
    warms up on the result of `prepare(small=True)`, the second runs on that of
    `prepare(small=False)`.
    """
    script = f"""
import pathlib, resource
def peak():
    # if available, the peak of this program only: ru_maxrss includes that of the parent process
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def forget_peak():
    # on Linux the peak is reset to the resident size: making the data may have needed more
    path = pathlib.Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")
{code}
work(prepare(small=True))
data = prepare(small=False)
forget_peak()
before = peak()
work(data)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return int(done.stdout.split()[-1]) / unit


def machine() -> str:
    """One line about the machine and the versions."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    return (
        f"{cpu}, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, numba {version('numba')}; commit {commit}"
    )


def save(name: str, text: str) -> Path:
    """Print a result and save it as a dated file."""
    print(text)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.date.today()}_{name}.md"
    path.write_text(text + "\n")
    return path


def cell(values: list[float]) -> str:
    """Mean and, in brackets, lowest to highest; or how many seeds diverged."""
    lost = sum(map(math.isnan, values))
    if lost:
        return f"{lost} of {len(values)} diverged"
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
