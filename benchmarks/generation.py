"""The time that one more sample takes after a context, of three ways to generate.

    python benchmarks/generation.py [--rounds 21]

    S4, a step                  the recurrence, from a state
    S4, the convolution again   the layer over the whole context, of which the last output is used
    attention with a cache      a step that attends to the keys and values of the context

One layer of 64 channels, batch 1, one thread, float32. The step of S4 and the convolution give the
same output, which is compared first. Candidates run in turn. The figure is processor time, which
other programs on the machine change less than the time on a clock: the median of the rounds and, in
brackets, its middle half.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch
from command import parser
from measure import machine, save
from torch import Tensor

from longstate.layers import S4, Attention

WIDTH, CONTEXTS, LEAST_SECONDS = 64, (256, 1024, 4096, 16384, 65536), 0.02
Call = Callable[[], Tensor]


@torch.no_grad()
def candidates(context: int) -> dict[str, Call]:
    """One more sample after a context."""
    torch.manual_seed(0)
    s4, attention = S4(WIDTH).eval(), Attention(WIDTH).eval()
    u = torch.randn(1, context + 1, WIDTH)
    _, state = s4(u[:, :-1])
    _, cache = attention(u[:, :1])  # of the whole context it would take very long
    cache = {**cache, "length": cache["length"] * context} | {
        name: torch.randn(1, context, *cache[name].shape[2:]) for name in ("k", "v")
    }
    found: dict[str, Call] = {
        "S4, a step": lambda: s4.step(u[:, -1], state)[0],
        "S4, the convolution again": lambda: s4(u)[0][:, -1],
        "attention with a cache": lambda: attention.step(u[:, -1], cache)[0],
    }
    step, again, _ = (call() for call in found.values())
    torch.testing.assert_close(step, again, rtol=1e-3, atol=1e-3)
    return found


def seconds(call: Call) -> float:
    """Processor time of a call: of as many as last long enough for the clock."""
    count, spent = 0, 0.0
    began = time.process_time()
    while spent < LEAST_SECONDS:
        call()
        count, spent = count + 1, time.process_time() - began
    return spent / count


@torch.no_grad()
def times(context: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each candidate in each round; the first round does not count."""
    calls = candidates(context)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            spent = 1e3 * seconds(call)
            if i:
                found[name].append(spent)
    return found


def cell(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=21)
    given = options.parse_args()
    torch.set_num_threads(1)
    found = {context: times(context, given.rounds) for context in CONTEXTS}
    names = list(found[CONTEXTS[0]])
    lines = [
        "# One more sample after a context", "", machine(), "",
        f"One layer of {WIDTH} channels, batch 1, processor time: median of {given.rounds} rounds "
        f"(middle half). Processes that ran: {os.getloadavg()[0]:.1f} on {os.cpu_count()} "
        "cores.", "",
        "Command: `python benchmarks/generation.py`", "",
        "## Milliseconds for the next sample", "",
        "| context | " + " | ".join(str(c) for c in CONTEXTS) + " |",
        "| --- |" + " ---: |" * len(CONTEXTS),
        *(f"| {n} | " + " | ".join(cell(found[c][n]) for c in CONTEXTS) + " |" for n in names),
    ]  # fmt: skip
    save("generation", "\n".join(lines))


if __name__ == "__main__":
    main()
