"""Mamba and Mamba-2 against mambapy and transformers on a CPU: same weights, one run.

    python benchmarks/selective_peers.py      needs `pip install mambapy transformers`; 15 minutes

Forward and backward, for the input and every parameter, float32, batch 1, d_state 16, expand 2; by
default the shape of mamba-130m and mamba2-130m (d_model 768, 24 heads of 64).
1. The layer against mambapy's block, and the scan alone: against mambapy's whole scan (discretise,
   pscan, read) and against its pscan on existing discretised tensors. The time of the layer's four
   matrix products alone is the lower limit.
2. The layer against the mixer of transformers, which without mamba_ssm runs a loop over time, or
   mambapy's pscan if its configuration says `use_mambapy`. The graph shows which of the two ran.
   With `kernels` or `mamba_ssm` installed it might run other code: then the script stops.
3. Mamba-2 against the mixer of transformers, in chunks of 256 steps, its default and that of
   mamba2-130m, and of 64, which suit a CPU better.

Outputs and all gradients are compared before anything is timed.
"""

import importlib.util
import json
from collections.abc import Callable
from importlib.metadata import version

import torch
from command import parser, peers
from mamba_block import products
from measure import machine, ms, ratio, rounds, save
from torch import Tensor, nn

from longstate.layers import Mamba, Mamba2
from longstate.ops import selective_scan

with peers(__name__, __doc__, "mambapy transformers"):
    import transformers
    from mambapy.mamba import MambaBlock
    from mambapy.mamba import MambaConfig as BlockConfig
    from mambapy.pscan import pscan
    from transformers.models.mamba.modeling_mamba import MambaMixer
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

D_MODEL, ROUNDS, BOUND = 768, 5, 1e-5
Run = Callable[[], list[Tensor]]
"""Output, then gradients."""

HEADER = [
    "| shape | against | longstate, ms | peer, ms | peer / longstate | goal | difference |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]


def both_ways(layer: nn.Module, u: Tensor, g: Tensor) -> Run:
    parameters = dict(sorted(layer.named_parameters()))

    def run() -> list[Tensor]:
        y = layer(u)
        y = y[0] if isinstance(y, tuple) else y
        return [y.detach(), *torch.autograd.grad(y, [u, *parameters.values()], g)]

    return run


def inputs(t: int, d_model: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(1, t, d_model, requires_grad=True), torch.randn(1, t, d_model)


def largest_difference(ours: Run, theirs: Run) -> float:
    """Largest difference of outputs and gradients, each relative to its largest entry."""
    pairs = list(zip(ours(), theirs(), strict=True))
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)


def mambapy_block(layer: Mamba) -> MambaBlock:
    block = MambaBlock(BlockConfig(d_model=layer.d_model, n_layers=1))
    block.load_state_dict(layer.state_dict())
    return block


def transformers_mixer(layer: Mamba, use_mambapy: bool) -> MambaMixer:
    config = transformers.MambaConfig(
        hidden_size=layer.d_model, num_hidden_layers=1, use_mambapy=use_mambapy
    )
    mixer = MambaMixer(config, 0)
    mixer.load_state_dict(layer.state_dict())
    with torch.enable_grad():
        took_pscan = runs_pscan(mixer(torch.randn(1, 8, layer.d_model)))
    assert took_pscan == use_mambapy, f"use_mambapy={use_mambapy}, but another path ran"
    return mixer


def runs_pscan(y: Tensor) -> bool:
    """Whether `y` comes from mambapy's scan, according to its graph."""
    seen, waiting = set(), [y.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return any(node.name() == "PScanBackward" for node in seen)


def alone_with_transformers() -> None:
    """Stop if transformers might run other code than its own."""
    for package in ("mamba_ssm", "causal_conv1d", "kernels"):
        found = importlib.util.find_spec(package)
        assert found is None, f"{package} is installed: transformers may run it in place of its own"
    transformers.logging.set_verbosity_error()  # hides its hint that mamba_ssm would be faster


def contest(
    shape: str, ours: Run, peers: dict[str, tuple[Run, str]], unequal=(), repeats: int = ROUNDS
) -> list[str]:
    """A row for each peer (run, goal); the results of those in `unequal` are not compared."""
    differences = {}
    for name, (run, _) in peers.items():
        if name not in unequal:
            differences[name] = largest_difference(ours, run)
            assert differences[name] < BOUND, f"{name} differs by {differences[name]}"
    times = rounds({"ours": ours} | {name: run for name, (run, _) in peers.items()}, repeats)
    return [
        f"| {shape} | {name} | {ms(times['ours'])} | {ms(times[name])} | "
        f"{ratio(times[name], times['ours'])} | {goal} | "
        f"{format(differences[name], '.0e') if name in differences else ''} |"
        for name, (_, goal) in peers.items()
    ]


def against_mambapy(t: int = 1024) -> list[str]:
    u, g = inputs(t, D_MODEL)
    layer = Mamba(D_MODEL)
    block = mambapy_block(layer)
    limit = "the layer's matrix products alone"
    peers = {"mambapy": (both_ways(block, u, g), "8"), limit: (products(layer, u)[1], "")}
    rows = contest(f"Mamba, length {t}", both_ways(layer, u, g), peers, unequal=[limit])
    return rows + scans(block, t)


def scans(block: MambaBlock, t: int) -> list[str]:
    d, n = block.config.d_inner, block.config.d_state
    x, g, B, C = torch.randn(1, t, d), torch.randn(1, t, d), *torch.randn(2, 1, t, n)
    dt, A, D = torch.rand(1, t, d) * 0.1, -block.A_log.detach().exp(), torch.ones(d)
    leaves = [v.requires_grad_() for v in (x, dt, A, B, C, D)]

    def scan_run(scan) -> Run:
        def run() -> list[Tensor]:
            y = scan(*leaves)
            return [y.detach(), *torch.autograd.grad(y, leaves, g)]

        return run

    with torch.no_grad():
        decay = torch.exp(dt[..., None] * A)
        drive = (dt * x)[..., None] * B[:, :, None]
        states = pscan(decay, drive)
        expected = selective_scan(*leaves)[0]
        error = ((states @ C[..., None])[..., 0] + D * x - expected).abs().max()
        assert error < BOUND * expected.abs().max(), f"pscan differs by {error}"
    ready = [decay.requires_grad_(), drive.requires_grad_()]

    def alone() -> list[Tensor]:
        return list(torch.autograd.grad(pscan(*ready), ready, states))

    peers = {
        "mambapy: discretise, pscan, read": (scan_run(block.selective_scan), "8"),
        "mambapy: pscan alone": (alone, ""),
    }
    ours = scan_run(lambda *v: selective_scan(*v)[0])
    return contest(f"scan, length {t}", ours, peers, unequal=["mambapy: pscan alone"])


def against_transformers(d_model: int, t: int = 512) -> list[str]:
    u, g = inputs(t, d_model)
    layer, peers = Mamba(d_model), {}
    for use_mambapy, name in ((False, "loop over time"), (True, "use_mambapy")):
        mixer = transformers_mixer(layer, use_mambapy)
        goal = "" if use_mambapy else "20"
        peers[f"transformers, {name}"] = both_ways(mixer, u, g), goal
    shape = f"Mamba, d_model {d_model}, length {t}"
    return contest(shape, both_ways(layer, u, g), peers, repeats=3)  # the loop is slow


def mamba2_against_transformers(t: int, d_state: int = 128, headdim: int = 64) -> list[str]:
    u, g = inputs(t, D_MODEL)
    layer, peers = Mamba2(D_MODEL, d_state=d_state, d_head=headdim), {}
    for chunk in (256, 64):
        config = transformers.Mamba2Config(
            hidden_size=D_MODEL, num_heads=layer.n_heads, head_dim=headdim, n_groups=1,
            state_size=d_state, chunk_size=chunk, num_hidden_layers=1,
        )  # fmt: skip
        mixer = Mamba2Mixer(config, 0)
        mixer.load_state_dict(layer.state_dict())
        goal = "2" if chunk == 256 else ""
        peers[f"transformers, chunks of {chunk}"] = both_ways(mixer, u, g), goal
    shape = f"Mamba-2, d_state {d_state}, length {t}"
    return contest(shape, both_ways(layer, u, g), peers)


def main() -> None:
    parser(__doc__).parse_args()
    alone_with_transformers()
    lines = [
        "# Mamba and Mamba-2 against mambapy and transformers",
        "",
        "Forward and backward on a CPU, same weights, batch 1, float32. Command:",
        "`python benchmarks/selective_peers.py`. Ratios are medians within rounds, with the middle",
        "half of them. The last column is the largest difference of outputs and gradients,",
        "relative to the largest entry of each. transformers ran its own code: neither mamba_ssm,",
        "causal_conv1d nor kernels is installed.",
        "",
        f"{machine()}; mambapy {version('mambapy')}, transformers {version('transformers')}",
    ]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        lines += ["", f"## Threads: {threads}", "", *HEADER, *against_mambapy()]
        for d_model in (D_MODEL, 256):
            lines += against_transformers(d_model)
        for t in (512, 1024):
            lines += mamba2_against_transformers(t)
    print(json.dumps({"result": str(save("selective_peers", "\n".join(lines)))}))


if __name__ == "__main__":
    main()
