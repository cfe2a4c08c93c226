"""Trained forecasters and text models with a part of their state: what it costs.

    python benchmarks/reduce_trained.py tinyshakespeare.txt [--only s4d,mamba]

Three seeds each; one thread. A forecaster (the one of `longstate demo`, with S4D, S5 and LinOSS)
learns how many flights will leave late in each of the next 12 hours; its metric is the mean squared
error on the test part, and it is reduced without data. A text model (two layers of Mamba-2 or
Mamba, on bytes) is scored in nats per byte on the last tenth of the text, which was in neither
training nor reduction; the reduction reads 16 stretches of 256 bytes of the training text. Trained
models are kept in `benchmarks/trained/`.
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command import parser
from kept import kept
from measure import machine, save

from longstate import Forecaster, TextModel, datasets, reduce
from longstate.cli.demo import COVARIATES, KNOWN, TARGET
from longstate.train import Size, TextTraining, Training

SEEDS, KEPT = (0, 1, 2), (0.5,)
FORECASTERS = {
    "s4d": ("auto", "last", "aire"),
    "s5": ("auto", "aire"),
    "linoss": ("auto",),
}
TEXTS = {"mamba2": ("auto", "ghost"), "mamba": ("auto", "ghost")}
TEXT: dict[str, Any] = {"d_model": 64, "n_layers": 2, "context": 256}
STEPS = TextTraining(batch_size=4, steps=800)
SIZE = Size(d_model=32, n_layers=1, d_state=32)
TRAINING = Training(epochs=4, windows_per_epoch=2048, learning_rate=5e-3)


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


def rows(
    layers: str, models: list[Any], methods: tuple[Any, ...], metric: Callable, data: list[Any]
) -> tuple[list[str], list[str]]:
    """One line for each method and share: the change of the metric in percent. And where a
    published score is ahead of ours by more than one standard error of the difference."""
    before = [metric(model) for model in models]
    lines, ahead, ours = [], [], {}
    for method in methods:
        for keep in KEPT:
            after, full = [], 0
            for model, x in zip(models, data, strict=True):
                small, report = reduce(model, x, keep=keep, method=method)
                after.append(metric(small))
                full += sum(row.full for row in report.layers)
            change = [100 * (b / a - 1) for a, b in zip(before, after, strict=True)]
            if method == "auto":
                ours[keep] = change
            gaps = [a - b for a, b in zip(ours[keep], change, strict=True)]
            if statistics.mean(gaps) > statistics.stdev(gaps) / len(gaps) ** 0.5:
                ahead.append(f"{layers} at {keep:.0%}: {method}")
            cells = [
                layers, "ours" if method == "auto" else method, f"{keep:.1%}",
                f"{statistics.mean(before):.4f}", f"{statistics.mean(after):.4f}",
                f"{statistics.mean(change):+.2f} ± {statistics.stdev(change) / 3**0.5:.2f}",
                f"{max(change):+.2f}", str(full),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return lines, ahead


def main() -> None:
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--only", default="", help="names of layers, separated by commas")
    given = options.parse_args()
    only = [name for name in given.only.lower().split(",") if name]
    torch.set_num_threads(1)
    text = given.text.read_text("utf-8")
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    frame, ahead = datasets.nyc_airports(), []
    lines = ["# Trained models with a part of their state", "", machine(), ""]
    lines += ["Metric: mean squared error of forecasters, nats per byte of text models; means over"]
    lines += ["three seeds. Change in percent, mean ± standard error, and that of the worst seed."]
    lines += ["Last column: layers of the three models that say they need all of their states.", ""]
    lines += ["| layers | method | kept | before | after | change, % | worst | full |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for layers, methods in (FORECASTERS | TEXTS).items():
        if only and layers not in only:
            continue
        if layers in FORECASTERS:
            models = [forecaster(layers, seed) for seed in SEEDS]
            data: list[Any] = [None] * len(SEEDS)
            more = rows(layers, models, methods, partial(error_of, frame=frame), data)
        else:
            texts = [text_model(layers, seed, train) for seed in SEEDS]
            x = rows_of(test, texts[0].tokens, 64, 256)
            data = [rows_of(train, m.tokens, 16, 256) for m in texts]
            more = rows(layers, texts, methods, partial(nats, x=x), data)
        lines += more[0]
        ahead += more[1]
    said = "; ".join(ahead) if ahead else "none"
    lines += ["", f"Published scores ahead of ours by more than one standard error: {said}."]
    save("reduce_trained", "\n".join(lines))


def error_of(model: Forecaster, frame: Any) -> float:
    return float(model.evaluate(frame).score("model").mse)


if __name__ == "__main__":
    main()
