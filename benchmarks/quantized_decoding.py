"""Decoding with a state in 8 or 4 bits: time of a token and bytes of the state, in a batch.

    python benchmarks/quantized_decoding.py [--n-layers 6] [--rounds 9] [--batch 32]

Layers of the shapes of mamba-130m and mamba2-130m (d_model 768), random weights, 256 tokens,
as `prepare_for_decoding` makes them; candidates run in turn, and a ratio is of one round. Logits
after 16 tokens are first compared with those of the state in float32.
"""

import torch
from command import parser
from measure import machine, ms, ratio, rounds, save
from torch import nn
from torch.utils._pytree import tree_leaves

from longstate.models import LanguageModel, LanguageSpec, prepare_for_decoding

WAYS = {
    "8": {"state_bits": 8},
    "8, stochastic": {"state_bits": 8, "state_rounding": "stochastic"},
    "8, feedback": {"state_bits": 8, "state_rounding": "feedback"},
    "4": {"state_bits": 4},
}


class Running:
    """A model that goes on from its own state."""

    def __init__(self, model: nn.Module, batch: int):
        self.model, self.state = model, model.init_state(batch)
        self.tokens = torch.randint(256, (batch,), generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def step(self) -> torch.Tensor:
        logits, self.state = self.model.step(self.tokens, self.state)
        return logits

    @property
    def bytes(self) -> int:
        return sum(v.nbytes for v in tree_leaves(self.state))


def lines_of(layer: str, n_layers: int, batch: int, repeats: int) -> list[str]:
    torch.manual_seed(0)
    options = {"mamba2": {"d_state": 128, "d_head": 64}} if layer == "mamba2" else {}
    model = LanguageModel(LanguageSpec(256, 768, (layer,) * n_layers, options=options)).eval()
    found = {"32": Running(prepare_for_decoding(model), batch)}
    for name, options in WAYS.items():
        found[name] = Running(prepare_for_decoding(model, **options), batch)
    for _ in range(16):
        logits = {name: one.step() for name, one in found.items()}
    exact = logits["32"]
    errors = {name: float((v - exact).norm() / exact.norm()) for name, v in logits.items()}
    times = rounds({name: one.step for name, one in found.items()}, repeats)
    return [
        f"| {layer} | {name} | {one.bytes / 2**20:.1f} | {ms(times[name])} | "
        f"{ratio(times['32'], times[name])} | {errors[name]:.1e} |"
        for name, one in found.items()
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--n-layers", type=int, default=6)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--rounds", type=int, default=9)
    given = options.parse_args()
    lines = ["# Decoding with a state in few bits", "", machine(), ""]
    lines += [f"{given.n_layers} layers, batch {given.batch}; milliseconds of a token."]
    lines += ["Faster: float32 state / this one.", ""]
    lines += ["| layers | bits | state, MiB | ms | faster | logits differ by |"]
    lines += ["|---|---|--:|--:|--:|--:|"]
    for layer in ("mamba2", "mamba"):
        lines += lines_of(layer, given.n_layers, given.batch, given.rounds)
    save("quantized_decoding", "\n".join(lines))


if __name__ == "__main__":
    main()
