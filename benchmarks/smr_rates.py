"""Trained at one sampling interval, tested at others: with and without SMR.

    python benchmarks/smr_rates.py [--seeds 0 1 2] [--digits fsdd.zip]

Signals: four random sines of 0.2 to 1.5 Hz for 10 seconds; to be learned is their exact leaky
integral with a time constant of 0.5 s. Two blocks of 16 channels, trained for 300 steps of 16
signals, at an interval of 0.05 s ("one") or at 0.7, 1 and 1.4 times this in turn ("varied"). The
figure is the mean squared error on 128 other signals, over the variance of the target, at intervals
of 0.5 to 2 times that of the training. The rows:

    none             the layer alone, which is not told the interval
    product, gate    `SMR` of this form in front of it, not told either
    step as input    the interval is a second input channel; only varied
    rate=            the layer alone, told by `rate=` in training and in the test; only varied

The last columns tell the same trained model the interval by `rate=` in the test.

Digits: 1,200 recordings of the Free Spoken Digit Dataset for training and the 300 with index 5 to 9
for the test, reduced to 2 kHz by a low-pass filter and read as raw samples by
`Classifier(layers=..., d_model=32, convolutions=False, epochs=20)`. The figure is its accuracy at
2 kHz, and at 1 and 4 kHz with and without `rate=`.

Runs are kept in `benchmarks/trained/smr_rates.jsonl`, so that the script can be stopped and run
again.
"""

import math
import statistics
from pathlib import Path
from typing import Any

import torch
from command import parser, peers
from measure import machine, save
from runs import Runs
from torch import Tensor, nn

from longstate import Classifier
from longstate.layers import S4, S5, SMR, Layer, Mamba
from longstate.models import Stack
from longstate.train import Training, make_optimiser

with peers(__name__, __doc__, "scipy"):
    from scipy.signal import resample_poly

KEPT = Path(__file__).parent / "trained" / "smr_rates.jsonl"
LAYERS = {"S4": S4, "S5": S5, "Mamba": Mamba}
TESTED = (0.5, 0.8, 1.0, 1.25, 2.0)
TRAINED = {"one": (1.0,), "varied": (0.7, 1.0, 1.4)}
TOLD = (0.5, 2.0)
COLUMNS = (*(f"{t:g}" for t in TESTED), *(f"{t:g}, rate={t:g}" for t in TOLD))
ROWS = [
    *((kind, form) for kind in TRAINED for form in ("none", "product", "gate")),
    ("varied", "step as input"),
    ("varied", "rate="),
]
STEP, SECONDS, TAU = 0.05, 10.0, 0.5
D_MODEL, STEPS, BATCH, TESTS = 16, 300, 16, 128
RECORDINGS = 1200
DIGITS = ("2 kHz", "1 kHz", "1 kHz, rate=2", "4 kHz", "4 kHz, rate=0.5")


def signals(n: int, interval: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs and targets (n, t, 1)."""
    omega = 2 * math.pi * (0.2 + 1.3 * torch.rand(n, 1, 4, generator=random))
    phase = 2 * math.pi * torch.rand(n, 1, 4, generator=random)
    t = torch.arange(interval, SECONDS, interval)[:, None]
    angle, wt = omega * t + phase, omega * TAU
    settled = angle.sin() - wt * angle.cos()
    start = (phase.sin() - wt * phase.cos()) * (-t / TAU).exp()
    y = (settled - start) / (1 + wt**2)
    return angle.sin().sum(-1, keepdim=True), y.sum(-1, keepdim=True)


class Integrator(nn.Module):
    """Two blocks.

    Args:
        layer: in both of them.
        form: a row of the table.
    """

    def __init__(self, layer: str, form: str):
        super().__init__()
        self.form = form
        options = {} if layer == "Mamba" else {"d_state": 16}

        def make() -> Layer:
            inner = LAYERS[layer](D_MODEL, **options)
            return SMR(inner, form=form) if form in ("product", "gate") else inner

        self.encode = nn.Linear(2 if form == "step as input" else 1, D_MODEL)
        self.stack = Stack([make(), make()])
        self.head = nn.Linear(D_MODEL, 1)

    def forward(self, u: Tensor, times: float, told: bool = False) -> Tensor:
        if self.form == "step as input":
            u = torch.cat([u, torch.full_like(u, times)], -1)
        y, _ = self.stack(self.encode(u), rate=times if told or self.form == "rate=" else 1.0)
        return self.head(y)


def errors(layer: str, trained: str, form: str, seed: int) -> dict[str, float]:
    """Train a model; its error at each interval."""
    torch.manual_seed(seed)
    model = Integrator(layer, form)
    optimiser = make_optimiser(model, Training(learning_rate=5e-3))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in optimiser.param_groups], total_steps=STEPS
    )
    random = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        times = TRAINED[trained][step % len(TRAINED[trained])]
        u, y = signals(BATCH, times * STEP, random)
        loss = (model(u, times) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = {}
    calls = [*((times, False) for times in TESTED), *((times, True) for times in TOLD)]
    with torch.no_grad():
        for column, (times, told) in zip(COLUMNS, calls, strict=True):
            u, y = signals(TESTS, times * STEP, torch.Generator().manual_seed(10**6))
            error = (model(u, times, told) - y).square().mean()
            found[column] = float(error / y.var())
    return found


def accuracies(layer: str, form: str, seed: int, data: Path) -> dict[str, float]:
    """Train a classifier of digits; its accuracy in percent at each rate."""
    from spoken_digits import read

    learnt, tested = read(data)
    chosen = torch.randperm(len(learnt.y), generator=torch.Generator().manual_seed(seed))[
        :RECORDINGS
    ]
    X = [resample_poly(learnt.X[i][0], 1, 4)[None] for i in chosen.tolist()]
    name = layer.lower() if form == "none" else f"smr:{layer.lower()}"
    model = Classifier(
        name, d_model=32, convolutions=False, epochs=20, minutes=None, seed=seed
    ).fit(X, learnt.y[chosen.numpy()])
    at = {k: tested.changed(lambda x, k=k: resample_poly(x, 1, 8 // k)) for k in (1, 2, 4)}
    calls = ((at[2], 1.0), (at[1], 1.0), (at[1], 2.0), (at[4], 1.0), (at[4], 0.5))
    found = [100 * model.score(x, tested.y, rate=rate) for x, rate in calls]
    return dict(zip(DIGITS, found, strict=True))


def table(kept: list[dict[str, Any]], part: str, columns: tuple[str, ...], form: str) -> list[str]:
    """Mean over seeds, with the deviation."""
    lines = ["| layer | trained at | form | " + " | ".join(columns) + " | seeds |"]
    lines.append("| --- " * (len(columns) + 4) + "|")
    rows = {(r["layer"], r["trained"], r["form"]): None for r in kept if r["part"] == part}
    for layer, trained, name in rows:
        own = [
            r["found"] for r in kept
            if (r["part"], r["layer"], r["trained"], r["form"]) == (part, layer, trained, name)
        ]  # fmt: skip
        cells = []
        for column in columns:
            values = [found[column] for found in own]
            spread = f" ± {format(statistics.stdev(values), form)}" if len(own) > 1 else ""
            cells.append(format(statistics.mean(values), form) + spread)
        lines.append(f"| {layer} | {trained} | {name} | " + " | ".join(cells) + f" | {len(own)} |")
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--layers", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    options.add_argument("--digits", type=Path, help="fsdd.zip; without it signals alone")
    given = options.parse_args()
    runs = Runs(KEPT, ("part", "layer", "trained", "form", "seed"))

    for seed in given.seeds:
        for layer in given.layers:
            for trained, form in ROWS:
                named = {"part": "signals", "layer": layer, "trained": trained, "form": form}
                if not runs.has(**named, seed=seed):
                    found = errors(layer, trained, form, seed)
                    runs.add({**named, "seed": seed, "found": found})
                    print(seed, *named.values(), found, flush=True)
            for form in ("none", "product") if given.digits else ():
                named = {"part": "digits", "layer": layer, "trained": "2 kHz", "form": form}
                if not runs.has(**named, seed=seed):
                    found = accuracies(layer, form, seed, given.digits)
                    runs.add({**named, "seed": seed, "found": found})
                    print(seed, *named.values(), found, flush=True)
    kept = [r for r in runs.all() if r["seed"] in given.seeds and r["layer"] in given.layers]
    text = [
        "# Other sampling intervals, with and without SMR",
        "",
        "`python benchmarks/smr_rates.py --help` explains the rows. Signals: error over variance, "
        "by the interval as a multiple of that of the training.",
        "",
        *table(kept, "signals", COLUMNS, ".4f"),
        "",
    ]
    if any(r["part"] == "digits" for r in kept):
        text += [
            "Digits: accuracy in percent.", "", *table(kept, "digits", DIGITS, ".1f"), "",
        ]  # fmt: skip
    save("smr_rates", "\n".join([*text, machine()]) + "\n")


if __name__ == "__main__":
    main()
