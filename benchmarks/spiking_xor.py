"""Spiking layers and the same layers without spikes on a task that needs memory and a nonlinearity.

    python benchmarks/spiking_xor.py [--seeds 3] [--steps 800]

The input is a train of spikes, 1 with probability 1/2. At each time the answer is the exclusive or
of the spikes 2 and 7 samples ago. Models: two blocks of 32 channels, with S4D alone or in
`Spiking`; equal steps, batches and optimizer. Accuracy after 16 samples on new trains: chance is
50 %. A spiking model is scored with rates, its default in evaluation, and with drawn spikes.
"""

import statistics

import torch
from command import parser
from measure import machine, save
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import S4D, Layer, Spiking
from longstate.models import Stack

WIDTH, LENGTH, BATCH = 32, 128, 32
LAGS, SKIPPED = (2, 7), 16


class Model(nn.Module):
    def __init__(self, spiking: bool):
        super().__init__()
        self.encode, self.head = nn.Linear(1, WIDTH), nn.Linear(WIDTH, 1)
        self.stack = Stack([layer(spiking) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stack(self.encode(x[..., None]))[0])[..., 0]
        return logits[:, SKIPPED:]


def layer(spiking: bool) -> Layer:
    inner = S4D(WIDTH, d_state=32)
    return Spiking(inner) if spiking else inner


def trains(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spikes (b, t), and answers from sample `SKIPPED` on."""
    x = torch.randint(0, 2, (batch, LENGTH), generator=generator).float()
    one, two = (x.roll(lag, 1) for lag in LAGS)
    return x, (one != two).float()[:, SKIPPED:]


@torch.no_grad()
def accuracy(model: Model) -> float:
    x, y = trains(256, torch.Generator().manual_seed(10_000))
    return 100 * float(((model(x) > 0) == (y > 0)).float().mean())


def run(spiking: bool, seed: int, steps: int) -> dict[str, float]:
    torch.manual_seed(seed)
    model, drawn = Model(spiking), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        x, y = trains(BATCH, drawn)
        loss = F.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    found = {"rates": accuracy(model)}
    inside = [m for m in model.modules() if isinstance(m, Spiking)]
    if inside:
        seen: list[Tensor] = []
        hooks = [m.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for m in inside]
        model(trains(64, drawn)[0])
        for hook in hooks:
            hook.remove()
        for m in inside:
            m.sample = True
        torch.manual_seed(seed)
        found["spikes"] = accuracy(model)
        rates = [m.rates(u) for m, u in zip(inside, seen, strict=True)]
        found["read"] = statistics.mean(r.read for r in rates)
        found["written"] = statistics.mean(r.written for r in rates)
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=800)
    given = options.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Delayed exclusive or of spikes", "", machine(), "",
        f"{given.seeds} seeds, {given.steps} steps; mean (least to most).", "",
        "Command: `python benchmarks/spiking_xor.py`", "",
        "| layers | accuracy, % | with drawn spikes, % | spikes read | spikes written |",
        "|---|--:|--:|--:|--:|",
    ]  # fmt: skip
    for spiking in (False, True):
        runs = [run(spiking, seed, given.steps) for seed in range(given.seeds)]
        name = "Spiking(S4D)" if spiking else "S4D"
        cells = [_cell(runs, key) for key in ("rates", "spikes", "read", "written")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    save("spiking_xor", "\n".join(lines))


def _cell(runs: list[dict[str, float]], key: str) -> str:
    values = [r[key] for r in runs if key in r]
    if not values:
        return "-"
    digits = 1 if key in ("rates", "spikes") else 2
    low, middle, high = min(values), statistics.mean(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
