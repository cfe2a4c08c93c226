"""Decoding and prefill at mamba-130m's shape: PyTorch, transformers, llama.cpp, one read.

    python benchmarks/decoding.py [--n-layers 24] [--rounds 5] [--folder DIR]

All candidates have the same random weights; batch 1. The limit of decoding is the time to read all
weights once: "read" sums as many bytes as the weights have, in one pass over memory, with the same
number of threads. Peers that cannot be imported are left out. llama.cpp needs `llama-cpp-python`
and `gguf`, and files of 0.9 GB in DIR. Logits of every candidate are first compared with float64.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from command import parser
from measure import machine, ratio, rounds, save
from torch import nn

from longstate.models import LanguageModel, LanguageSpec, prepare_for_decoding
from longstate.models._decoding import PanelLinear
from longstate.ops._layout import on_large_pages
from longstate.ops._numba import kernel, parallel_for

VOCABULARY, D_MODEL = 50280, 768
PROMPT, STEPS, COMPARED = 512, 16, 32  # tokens
FORMATS = ("float32", "bfloat16", "int8")
Logits = Callable[[list[int]], np.ndarray]


class Ours:
    """A model and the state of one sequence."""

    def __init__(self, model: LanguageModel):
        self.model = model.eval()
        self.restart()

    def restart(self) -> None:
        self.states = self.model.init_state(1)

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> np.ndarray:
        if len(tokens) == 1:
            y, self.states = self.model.step(torch.tensor(tokens), self.states)
        else:
            y, self.states = self.model.prefill(torch.tensor([tokens]), self.states)
        return y[0].numpy()


class Transformers:
    """The same weights in `MambaForCausalLM`."""

    def __init__(self, model: LanguageModel):
        from transformers import MambaConfig, MambaForCausalLM

        config = MambaConfig(
            vocab_size=VOCABULARY, hidden_size=D_MODEL, num_hidden_layers=len(model.blocks)
        )
        self.model = MambaForCausalLM(config).eval()
        backbone = self.model.backbone
        backbone.embeddings.load_state_dict(model.embedding.state_dict())
        backbone.norm_f.load_state_dict(model.norm.state_dict())
        for block, ours in zip(backbone.layers, model.blocks, strict=True):
            block.norm.load_state_dict(ours.norm.state_dict())
            block.mixer.load_state_dict(ours.mixer.state_dict())
        self.restart()

    def restart(self) -> None:
        self.cache = None

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> np.ndarray:
        given = torch.tensor([tokens])
        done = self.model(given, cache_params=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = done.cache_params
        return done.logits[0, -1].numpy()


@kernel
def _sum(x):
    total = np.float32(0)
    for j in range(len(x)):
        total += x[j]
    return total


@kernel
def _read(start, stop, pages, sums):
    for i in range(start, stop):
        sums[i] = _sum(pages[i])


def reader(size: int) -> Callable[[], None]:
    """Read `size` bytes once."""
    pages = on_large_pages(torch.empty(-(-size // 2**20), 2**18)).fill_(1).numpy()
    sums = np.empty(len(pages), np.float32)
    return lambda: parallel_for(_read, len(pages), 10**9, pages, sums)


def size_of(model: nn.Module) -> int:
    """Bytes of the matrices that a step of a prepared model reads."""
    found = (m for m in model.modules() if isinstance(m, PanelLinear))
    return sum(v.nbytes for m in found for v in m.state_dict().values())


def candidates(model: LanguageModel, folder: Path) -> dict[str, dict]:
    """Format -> name -> something with `logits` and `restart`."""
    found: dict[str, dict] = {kind: {} for kind in FORMATS}
    found["float32"]["PyTorch"] = Ours(model)
    for kind in FORMATS:
        found[kind]["ours"] = Ours(prepare_for_decoding(model, kind))
    try:
        found["float32"]["transformers"] = Transformers(model)
    except ImportError:
        print("transformers: not installed")
    try:
        from llama_cpp_peer import LlamaCpp, write_gguf
    except ImportError:
        print("llama.cpp: llama-cpp-python or gguf is not installed")
        return found
    for kind in FORMATS:
        path = folder / f"{kind}.gguf"
        write_gguf(model, path, kind)
        found[kind]["llama.cpp"] = LlamaCpp(path, PROMPT)
    return found


def errors(model: LanguageModel, found: dict[str, dict], tokens: list[int]) -> list[str]:
    """Largest error of the logits after a prompt and one step, over their largest size."""
    exact = Ours(model.double())
    exact.logits(tokens[:-1])
    expected = exact.logits(tokens[-1:])
    model.float()
    lines = ["| weights | candidate | error of the logits |", "| --- | --- | --- |"]
    for kind, some in found.items():
        for name, candidate in some.items():
            candidate.logits(tokens[:-1])
            error = np.abs(candidate.logits(tokens[-1:]) - expected).max() / np.abs(expected).max()
            limit = 1e-4 if kind == "float32" else 0.1
            assert error < limit, f"{name}, {kind}: logits are off by {error}"
            lines.append(f"| {kind} | {name} | {error:.1e} |")
    return lines


def threads_of(n: int, found: dict[str, dict]) -> None:
    torch.set_num_threads(n)
    for some in found.values():
        for candidate in some.values():
            getattr(candidate, "threads", lambda n: None)(n)


def decode(candidate) -> Callable[[], None]:
    def run():
        for token in range(STEPS):
            candidate.logits([token])

    return run


def prefill(candidate, tokens: list[int]) -> Callable[[], None]:
    def run():
        candidate.restart()
        candidate.logits(tokens)

    return run


def table(found: dict[str, dict], tokens: list[int], repeats: int) -> list[str]:
    lines = [
        "| weights | candidate | prefill, tokens/s | decoding, tokens/s | its time over a read |",
        "| --- | --- | --- | --- | --- |",
    ]
    ratios = []
    for kind, some in found.items():
        size = size_of(some["ours"].model)
        work = {name: decode(candidate) for name, candidate in some.items()}
        times = rounds({**work, "read": reader(size)}, repeats)
        first = rounds({n: prefill(c, tokens) for n, c in some.items()}, max(2, repeats // 2))
        read = [STEPS * t for t in times["read"]]
        for name in some:
            prefilled = PROMPT / statistics.median(first[name])
            decoded = STEPS / statistics.median(times[name])
            over = ratio(times[name], read)
            lines.append(f"| {kind} | {name} | {prefilled:.0f} | {decoded:.1f} | {over} |")
        rate = size / statistics.median(times["read"])
        lines.append(f"| {kind} | one read of {size / 1e6:.0f} MB | | {rate / 1e9:.1f} GB/s | 1 |")
        for name in set(some) - {"ours"}:
            faster = ratio(times[name], times["ours"])
            ahead = ratio(first[name], first["ours"])
            ratios.append(f"- {kind}: {faster} times {name} in decoding, {ahead} in prefill")
    return [*lines, "", "Ours is:", "", *sorted(ratios)]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--n-layers", type=int, default=24)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    torch.manual_seed(0)
    model = LanguageModel(LanguageSpec(VOCABULARY, D_MODEL, ("mamba",) * given.n_layers))
    tokens = torch.randint(VOCABULARY, (PROMPT,)).tolist()
    with tempfile.TemporaryDirectory() as temporary:
        found = candidates(model, given.folder or Path(temporary))
        lines = [
            "# Decoding at the shape of mamba-130m",
            "",
            f"{given.n_layers} layers, d_model {D_MODEL}, vocabulary {VOCABULARY}, tied head, batch"
            f" 1, prompt {PROMPT}. Command: `python benchmarks/decoding.py`. Ratios are medians",
            "within rounds, with the middle half of them.",
            "",
            machine(),
            "",
            *errors(model, found, tokens[:COMPARED]),
        ]
        for n in (1, 2):
            threads_of(n, found)
            lines += ["", f"## Threads: {n}", "", *table(found, tokens, given.rounds)]
    save("decoding", "\n".join(lines))


if __name__ == "__main__":
    main()
