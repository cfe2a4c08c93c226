"""Trained forecasters and text models with a part of their state: what it costs.

    python benchmarks/reduce_trained.py tinyshakespeare.txt [--only s4d,mamba]

Three seeds each; one thread. A forecaster (the one of `longstate demo`, with S4D, S5 and LinOSS)
learns how many flights will leave late in each of the next 12 hours; its metric is the mean squared
error on the test part, and it is reduced without data. A text model (two layers of Mamba-2 or
Mamba, on bytes) is scored in nats per byte on the last tenth of the text, which was in neither
training nor reduction; the reduction reads 16 stretches of 256 bytes of the training text. Trained
models are kept in `benchmarks/trained/`, and so are results, so that a script that was stopped
goes on; delete `reduce_trained.jsonl` there after a change of the reduction. A second table
compares ours with the published score that does best, at every share.
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from command import parser
from kept import FOLDER, kept
from measure import machine, save
from published import NAMES, compare, error_of_mean
from runs import Runs

from longstate import Forecaster, TextModel, datasets, reduce
from longstate.cli.demo import COVARIATES, KNOWN, TARGET
from longstate.train import Size, TextTraining, Training

SEEDS, SHARES = (0, 1, 2), (0.5, 0.25, 0.125)
LINEAR = ("auto", "last", "aire", "magnitude")
FORECASTERS: dict[str, tuple[Any, ...]] = {
    "s4d": LINEAR,
    "s5": LINEAR,
    "linoss": ("auto",),  # the scores are of single modes, and its modes are pairs
}
TEXTS: dict[str, tuple[Any, ...]] = {
    "mamba2": ("auto", "energy", "ghost", "magnitude"),
    "mamba": ("auto", "ghost", "magnitude"),  # of Mamba, auto is energy
}
TEXT: dict[str, Any] = {"d_model": 64, "n_layers": 2, "context": 256}
STEPS = TextTraining(batch_size=4, steps=800)
SIZE = Size(d_model=32, n_layers=1, d_state=32)
TRAINING = Training(epochs=4, windows_per_epoch=2048, learning_rate=5e-3)


class Models(NamedTuple):
    """Trained models of one kind, one for each seed.

    Attributes:
        data: what `reduce` reads, for each of them.
        metric: gives the cost of a model. Less is better.
        before: that of each of them.
    """

    trained: list[Any]
    data: list[Any]
    metric: Callable[[Any], float]
    before: list[float]


class Cost(NamedTuple):
    """Of one method at one share. `after`, `change` (in percent): one number for each seed."""

    after: list[float]
    change: list[float]
    full: int


def forecaster(layers: str, seed: int) -> Forecaster:
    def train() -> Forecaster:
        new = Forecaster(12, window=72, layers=layers, size=SIZE, training=TRAINING, seed=seed)
        return new.fit(datasets.nyc_airports(), TARGET, covariates=COVARIATES, known=KNOWN)

    made: Forecaster = kept(f"forecast_{layers}_{seed}", (SIZE, TRAINING), train)
    return made


def text_model(layers: str, seed: int, text: str) -> TextModel:
    def train() -> TextModel:
        return TextModel(layers, **TEXT, training=STEPS, seed=seed).fit(text=text)

    made: TextModel = kept(f"text_{layers}_{seed}", (TEXT, STEPS, len(text)), train)
    return made


def rows_of(text: str, tokens: Any, count: int, length: int) -> torch.Tensor:
    """Stretches of a text, at equal distances."""
    numbers = torch.tensor(tokens.encode(text))
    starts = torch.linspace(0, len(numbers) - length, count).long()
    return torch.stack([numbers[i : i + length] for i in starts])


@torch.no_grad()
def nats(model: TextModel, x: torch.Tensor) -> float:
    parts = []
    for part in x.split(16):
        logits = model.model(part)[0][:, :-1].log_softmax(-1)
        parts.append(-logits.gather(-1, part[:, 1:, None]).flatten())
    return float(torch.cat(parts).double().mean())


def costs(layers: str, models: Models, method: Any, share: float) -> Cost:
    names = ("layers", "method", "share")
    runs = Runs(FOLDER / "reduce_trained.jsonl", (*names, "seed"))
    for seed, model, x in zip(SEEDS, models.trained, models.data, strict=True):
        named = {"layers": layers, "method": method, "share": share, "seed": seed}
        if not runs.has(**named):
            small, report = reduce(model, x, keep=share, method=method)
            full = sum(row.full for row in report.layers)
            runs.add(named | {"after": models.metric(small), "full": full})
    found = [r for r in runs.all() if [r[k] for k in names] == [layers, method, share]]
    after = [r["after"] for r in sorted(found, key=lambda r: r["seed"])]
    change = [100 * (b / a - 1) for a, b in zip(models.before, after, strict=True)]
    return Cost(after, change, sum(r["full"] for r in found))


def tables(layers: str, models: Models, methods: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    """Rows of the two tables."""
    rows, compared = [], []
    for share in SHARES:
        found = {method: costs(layers, models, method, share) for method in methods}
        for method, cost in found.items():
            cells = [
                layers, NAMES[method], f"{share:.1%}", f"{statistics.mean(models.before):.4f}",
                f"{statistics.mean(cost.after):.4f}",
                f"{statistics.mean(cost.change):+.2f} ± {error_of_mean(cost.change):.2f}",
                f"{max(cost.change):+.2f}", str(cost.full),
            ]  # fmt: skip
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
        if len(found) > 1:
            verdict = compare({method: cost.change for method, cost in found.items()})
            compared.append(f"| {layers} | {share:.1%} | {' | '.join(verdict.cells(2))} |")
            print(compared[-1], flush=True)
    return rows, compared


def models_of(layers: str, text: str) -> Models:
    if layers in FORECASTERS:
        trained = [forecaster(layers, seed) for seed in SEEDS]
        frame = datasets.nyc_airports()
        before = [error_of(model, frame) for model in trained]
        return Models(trained, [None] * len(SEEDS), partial(error_of, frame=frame), before)
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    texts = [text_model(layers, seed, train) for seed in SEEDS]
    x = rows_of(test, texts[0].tokens, 64, 256)
    data = [rows_of(train, m.tokens, 16, 256) for m in texts]
    return Models(texts, data, partial(nats, x=x), [nats(model, x) for model in texts])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--only", default="", help="names of layers, separated by commas")
    given = options.parse_args()
    only = [name for name in given.only.lower().split(",") if name]
    torch.set_num_threads(1)
    text = given.text.read_text("utf-8")
    lines = ["# Trained models with a part of their state", "", machine(), ""]
    lines += ["Metric: mean squared error of forecasters, nats per byte of text models; means over"]
    lines += ["three seeds. Change in percent, mean ± standard error, and that of the worst seed."]
    lines += ["Last column: layers of the three models that say they need all of their states.", ""]
    lines += ["| layers | method | kept | before | after | change, % | worst | full |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    compared: list[str] = []
    for layers, methods in (FORECASTERS | TEXTS).items():
        if only and layers not in only:
            continue
        rows, more = tables(layers, models_of(layers, text), methods)
        lines, compared = lines + rows, compared + more
    lines += ["", "## Ours beside the best published score", ""]
    lines += [
        "Difference: change of the metric by the published score less that by ours, in points"
    ]
    lines += ["of percent, mean ± standard error over seeds; above 0 where ours is better. Last"]
    lines += ["column: whether ours is at least as good within one standard error.", ""]
    lines += ["| layers | kept | best published | difference | as good |", "|---|---|---|---|---|"]
    save("reduce_trained", "\n".join(lines + compared))


def error_of(model: Forecaster, frame: Any) -> float:
    return float(model.evaluate(frame).score("model").mse)


if __name__ == "__main__":
    main()
