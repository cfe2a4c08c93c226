"""A few tokens in one call against one step, at the shapes of mamba-130m and mamba2-130m.

    python benchmarks/few_tokens.py [--rounds 9] [--n-layers 6]

Tokens of one call share one reading of the weights, so a few should take little longer than one.
Layers with separate weights run one after another, so that no weights stay in the cache. "plain" is
the layer as it is, "prepared" that of `prepare_for_decoding` in the same type. The first table has
what limits them: the product of a few rows with the weights of `in_proj`. All times are those of
the processor in one thread, in interleaved rounds, which other work on the machine changes less
than the time on the clock. A few tokens are first compared with as many steps in float64.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from command import parser
from measure import machine, ratio, save
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import Mamba, Mamba2
from longstate.models import prepare_for_decoding
from longstate.ops.matvec import matvec, to_panels

D_MODEL, ROWS = 768, 3072
TOKENS = (2, 4, 8, 16, 32)
KINDS = {"Mamba": Mamba, "Mamba-2": Mamba2}
Calls = dict[str, Callable[[], object]]


def rounds(candidates: Calls, repeats: int) -> dict[str, list[float]]:
    """Seconds of processor time of each candidate in each round, the first one not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(repeats + 1):
        for name, run in candidates.items():
            run()
            began = time.thread_time()
            run()
            if i:
                times[name].append(time.thread_time() - began)
    return times


def check(kind: type) -> None:
    """A few tokens are as many steps."""
    torch.manual_seed(0)
    for layer in (kind(D_MODEL).double(), prepare_for_decoding(kind(D_MODEL).double())):
        u = torch.randn(1, 5, D_MODEL, dtype=torch.float64)
        state, outputs = layer.init_state(1), []
        for t in range(5):
            y, state = layer.step(u[:, t], state)
            outputs.append(y)
        found, last = layer(u, layer.init_state(1))
        torch.testing.assert_close(found, torch.stack(outputs, 1))
        torch.testing.assert_close(last, state)


def calls(layers: nn.ModuleList, dtype: torch.dtype) -> Calls:
    """One step, and calls of a few tokens, through all layers."""
    states = [layer.init_state(1) for layer in layers]

    def step(u: Tensor) -> None:
        for i, layer in enumerate(layers):
            states[i] = layer.step(u, states[i])[1]

    def few(u: Tensor) -> None:
        for i, layer in enumerate(layers):
            states[i] = layer(u, states[i])[1]

    found: Calls = {"1": partial(step, torch.randn(1, D_MODEL, dtype=dtype))}
    for t in TOKENS:
        found[str(t)] = partial(few, torch.randn(1, t, D_MODEL, dtype=dtype))
    return found


def layers_table(n_layers: int, repeats: int) -> list[str]:
    lines = [
        "| layer | step, ms | " + " | ".join(f"{t} tokens / step" for t in TOKENS) + " |",
        "| --- | --- | " + "--- | " * len(TOKENS),
    ]
    for name, kind in KINDS.items():
        check(kind)
        for dtype in (torch.float32, torch.bfloat16):
            word = str(dtype).removeprefix("torch.")
            stack = nn.ModuleList([kind(D_MODEL) for _ in range(n_layers)]).eval()
            forms = {
                "plain": (stack.to(dtype), dtype),
                "prepared": (prepare_for_decoding(stack, word), torch.float32),
            }
            for form, (layers, of_u) in forms.items():
                times = rounds(calls(layers, of_u), repeats)
                one = 1e3 * statistics.median(times["1"]) / n_layers
                rest = " | ".join(ratio(times[str(t)], times["1"]) for t in TOKENS)
                lines.append(f"| {name}, {word}, {form} | {one:.2f} | {rest} |")
    return lines


def by_pytorch(x: Tensor, weights: list[Tensor]) -> None:
    for w in weights:
        F.linear(x, w)


def by_panels(x: Tensor, panels: list[Tensor]) -> None:
    for p in panels:
        matvec(x, p, ROWS)


def products_table(n_layers: int, repeats: int) -> list[str]:
    """PyTorch's product and that of panels, in GB/s of weights and in GFLOP/s."""
    lines = [
        f"| {ROWS} x {D_MODEL} | rows | microseconds | of one row | GB/s of weights | GFLOP/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for dtype in (torch.float32, torch.bfloat16):
        weights = [torch.randn(ROWS, D_MODEL).to(dtype) for _ in range(n_layers)]
        panels = [to_panels(w) for w in weights]
        size = weights[0].nbytes
        candidates: Calls = {"read 1": lambda w=weights: [v.view(torch.float32).sum() for v in w]}
        for t in (1, *TOKENS):
            x = torch.randn(t, D_MODEL)
            candidates[f"PyTorch {t}"] = partial(by_pytorch, x.to(dtype), weights)
            candidates[f"panels {t}"] = partial(by_panels, x, panels)
        times = rounds(candidates, repeats)
        for name, found in times.items():
            way, rows = name.split()
            seconds = statistics.median(found) / n_layers
            share = ratio(found, times[f"{way} 1"])
            flops = "" if way == "read" else f"{2e-9 * int(rows) * ROWS * D_MODEL / seconds:.0f}"
            word = str(dtype).removeprefix("torch.")
            lines.append(
                f"| {way}, {word} | {rows} | {1e6 * seconds:.0f} | {share} "
                f"| {1e-9 * size / seconds:.1f} | {flops} |"
            )
    return lines


@torch.no_grad()
def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=9, help="of each candidate (9)")
    options.add_argument("--n-layers", type=int, default=6, help="with weights of their own (6)")
    given = options.parse_args()
    torch.set_num_threads(1)
    text = [
        "# A few tokens in one call against one step", "",
        f"Batch 1, d_model {D_MODEL}, {given.n_layers} layers one after another, one thread, "
        "processor time. Ratios are medians within rounds, with the middle half of them.",
        "Command: `python benchmarks/few_tokens.py`. The machine was busy with other work, which "
        "takes part of the caches and of the memory's bandwidth: only ratios mean something.",
        "", machine(), "", "## Layers", "",
        *layers_table(given.n_layers, given.rounds),
        "", "## Products", "",
        *products_table(given.n_layers, given.rounds),
    ]  # fmt: skip
    save("few_tokens", "\n".join(text))


if __name__ == "__main__":
    main()
