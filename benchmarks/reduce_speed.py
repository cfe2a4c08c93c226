"""Decoding of 32 sequences at once with a reduced state, and how long a reduction takes.

    python benchmarks/reduce_speed.py [--n-layers 4] [--rounds 9]

1. Mamba-2 (states of 128) and Mamba (16, and 64) at the width of mamba-130m, random weights,
   float32, one thread: a step of the whole model and of reduced ones, run in turn; bytes of the
   state of a sequence; and the share of the step that is spent in the recurrence itself, measured
   by a step whose recurrence returns the state as it is. The largest possible gain is this share.
2. 12 layers of Mamba-2, and of Mamba, are reduced by half on 16 x 256 tokens: seconds, growth of
   the peak memory, and the same with four times the tokens.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from unittest import mock

import torch
from command import parser
from measure import machine, ms, peak_mib, ratio, rounds, save

from longstate.models import LanguageModel, LanguageSpec

BATCH, D_MODEL, STEPS, VOCABULARY = 32, 768, 4, 512
STATES = (  # the first of each is the whole state
    ("mamba2", (128, 64, 32, 16)),
    ("mamba", (16, 12, 8, 4)),
    ("mamba", (64, 32, 16, 8)),
)
REDUCTION = """
import torch
from longstate import reduce
from longstate.models import LanguageModel, LanguageSpec
torch.set_num_threads({threads})
torch.manual_seed(0)
model = LanguageModel(LanguageSpec(256, {d_model}, ("{layer}",) * {layers})).eval()
def prepare(small):
    return torch.randint(256, (1, 16) if small else ({rows}, 256))
def work(x):
    import time
    began = time.perf_counter()
    reduce(model, x, keep=0.5)
    print("seconds", time.perf_counter() - began)
"""


def model_of(layer: str, full: int, state: int, layers: int) -> LanguageModel:
    """As `reduce` leaves it: a projection of Mamba-2, fewer columns of Mamba."""
    d_state = [full, state] if layer == "mamba2" and state < full else state
    torch.manual_seed(0)
    spec = LanguageSpec(VOCABULARY, D_MODEL, (layer,) * layers, {layer: {"d_state": d_state}})
    return LanguageModel(spec).eval().requires_grad_(False)


def stepping(model: LanguageModel) -> Callable[[], None]:
    tokens = torch.randint(VOCABULARY, (BATCH,))
    state = model.init_state(BATCH)

    @torch.no_grad()
    def run() -> None:
        nonlocal state
        for _ in range(STEPS):
            _, state = model.step(tokens, state)

    return run


@contextmanager
def no_recurrence():
    """The scans return their input and the state as it is."""
    scan, chunk = "longstate.layers.mamba.selective_scan", "longstate.layers.mamba2.chunk_scan"
    with (
        mock.patch(scan, lambda x, step, A, B, C, D, z, h0, **_: (x, h0)),
        mock.patch(chunk, lambda x, log_a, B, C, h0, **_: (x, h0)),
    ):
        yield


def speed(layer: str, states: tuple[int, ...], layers: int, repeats: int) -> list[str]:
    full = states[0]
    models = {n: model_of(layer, full, n, layers) for n in states}
    runs = {n: stepping(model) for n, model in models.items()}

    def without() -> None:
        with no_recurrence():
            runs[full]()

    times = rounds({**{str(n): run for n, run in runs.items()}, "without": without}, repeats)
    whole, rest = (statistics.median(times[name]) for name in (str(full), "without"))
    lines = []
    for n, model in models.items():
        size = sum(v.numel() * v.element_size() for v in model.init_state(1)[0].values())
        faster = ratio(times[str(full)], times[str(n)])
        most = whole / (rest + (whole - rest) * n / full)
        per_step = ms([t / STEPS / layers for t in times[str(n)]])
        lines.append(f"| {layer} | {n} | {size:,} | {per_step} | {faster} | {most:.2f} |")
    share = f"{1 - rest / whole:.0%}"
    return [*lines, f"| {layer} | recurrence at {full} | | {share} of the step | | |"]


def reduction(layer: str, d_model: int, layers: int, threads: int) -> list[str]:
    lines = []
    for rows in (16, 64):
        code = REDUCTION.format(
            layer=layer, d_model=d_model, layers=layers, threads=threads, rows=rows
        )
        began = time.perf_counter()
        growth = peak_mib(code)
        seconds = time.perf_counter() - began
        lines.append(
            f"| {layer}, d_model {d_model}, {layers} layers | {rows * 256:,} | {seconds:.0f} | "
            f"{growth:.0f} |"
        )
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--n-layers", type=int, default=4)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--threads", type=int, default=2, help="of the reduction")
    options.add_argument("--only", choices=("speed", "reduction"))
    given = options.parse_args()
    torch.set_num_threads(1)
    lines = ["# Speed of reduced models, and of reducing them", "", machine(), ""]
    if given.only in (None, "speed"):
        lines += [f"## A step of {BATCH} sequences, time per layer", ""]
        lines += [f"{given.n_layers} layers, d_model {D_MODEL}; bytes of a layer's state of one"]
        lines += ["sequence, past inputs of the convolution included. Last column: what would be"]
        lines += ["gained if the recurrence took time in proportion to its state.", ""]
        lines += ["| layer | states | bytes | ms per layer | faster | in proportion |"]
        lines += ["|---|---|---|---|---|---|"]
        for layer, states in STATES:
            lines += speed(layer, states, given.n_layers, given.rounds)
    if given.only in (None, "reduction"):
        lines += ["", f"## Reducing 12 layers to half, {given.threads} threads", ""]
        lines += ["Seconds of the whole process, with imports and a reduction of 16 tokens before."]
        lines += ["", "| model | tokens | seconds | growth of the peak, MiB |", "|---|---|---|---|"]
        for layer in ("mamba2", "mamba"):
            lines += reduction(layer, 512, 12, given.threads)
    save("reduce_speed", "\n".join(lines))


if __name__ == "__main__":
    main()
