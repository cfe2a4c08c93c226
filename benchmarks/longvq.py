"""Recall of pairs by attention over few codes.

    python benchmarks/longvq.py [--seeds 3] [--steps 500]

A sequence is 8 samples, each a key of 16 and a value of 8, with different keys; a ninth sample
repeats one of the keys and asks for its value. One layer of 32 channels reads it, and one matrix
reads the layer's output. `LongVQ` has a window of 2, so that nearly all pairs are in the sums of
its 4 or 32 codes. Accuracy in percent; guessing gives 12.5. The state is in numbers per sequence,
after the nine samples.
"""

from functools import partial

import torch
from command import parser
from kept import FOLDER
from measure import cell, machine, save
from runs import Runs, seeds_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from longstate.layers import S4D, Attention, Layer, LongVQ

PAIRS, KEYS, VALUES, D_MODEL, BATCH, RATE = 8, 16, 8, 32, 64, 3e-3
LAYERS = {
    "S4D": lambda: S4D(D_MODEL, d_state=16),
    "LongVQ, 4 codes": lambda: LongVQ(D_MODEL, n_codes=4, window=2),
    "LongVQ, 32 codes": lambda: LongVQ(D_MODEL, n_codes=32, window=2),
    "Attention": lambda: Attention(D_MODEL, n_heads=2, positions="none"),
}


class Reader(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.keys, self.values = nn.Embedding(KEYS, D_MODEL), nn.Embedding(VALUES + 1, D_MODEL)
        self.layer, self.head = layer, nn.Linear(D_MODEL, VALUES)

    def forward(self, keys: Tensor, values: Tensor) -> tuple[Tensor, int]:
        """Logits (b, VALUES), and the numbers in the state of a sequence."""
        y, state = self.layer(self.keys(keys) + self.values(values))
        numbers = sum(s[0].numel() * (1 + s.is_complex()) for s in tree_leaves(state))
        return self.head(y[:, -1]), numbers


def drawn(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values (b, 9), the last value being none, and the value that is asked for (b)."""
    keys = torch.rand(count, KEYS, generator=draw).argsort(1)[:, :PAIRS]
    values = torch.randint(VALUES, (count, PAIRS), generator=draw)
    asked = torch.randint(PAIRS, (count, 1), generator=draw)
    none = torch.full_like(asked, VALUES)
    right = values.gather(1, asked)[:, 0]
    return torch.cat([keys, keys.gather(1, asked)], 1), torch.cat([values, none], 1), right


def learn(name: str, seed: int, steps: int) -> dict[str, float]:
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(1000 + seed)
    model = Reader(LAYERS[name]())
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(steps):
        keys, values, right = drawn(BATCH, draw)
        optimiser.zero_grad()
        F.cross_entropy(model(keys, values)[0], right).backward()
        optimiser.step()
    with torch.no_grad():
        keys, values, right = drawn(2000, torch.Generator().manual_seed(999))
        logits, numbers = model(keys, values)
    return {"accuracy": 100 * float((logits.argmax(1) == right).double().mean()), "state": numbers}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=500)
    given = options.parse_args()
    kept = Runs(FOLDER / "longvq.jsonl", ("layer", "seed", "steps"))
    lines = []
    for name in LAYERS:
        do = partial(learn, name, steps=given.steps)
        mine = list(seeds_of(kept, given.seeds, do, layer=name, steps=given.steps))
        found = cell([run["accuracy"] for run in mine])
        lines.append(f"| {name} | {found} | {mine[0]['state']} | {len(mine)} |")
    text = [
        "# Recall of pairs by attention over few codes",
        "",
        f"{PAIRS} pairs of {KEYS} keys and {VALUES} values, {given.steps} steps. Accuracy in "
        "percent: mean (lowest to highest seed).",
        "Command: `python benchmarks/longvq.py`",
        "",
        machine(),
        "",
        "| layer | accuracy | numbers in the state | seeds |",
        "| --- | ---: | ---: | ---: |",
        *lines,
    ]
    save("longvq", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
