"""Half of the state of trained forecasters and text models: what it costs.

    python benchmarks/reduce_trained.py tinyshakespeare.txt [--only S4D] [--rounds]

Three seeds each; one thread. A forecaster (the one of `longstate demo`, with S4D, S5 and LinOSS)
learns how many flights will leave late in each of the next 12 hours; its metric is the mean squared
error on the test part, in the units of the training. A text model (two layers of Mamba-2 or Mamba,
bytes of Shakespeare) is scored in nats per byte on text that was in neither training nor reduction.
Layers of a forecaster do not change with time and are reduced without data, except that the sizes
of several layers are chosen on validation windows. Text models see 16 stretches of 256 bytes of
their training text. Trained models are kept in `benchmarks/trained/`.
"""

from pathlib import Path

import torch
from command import parser
from kept import kept
from measure import machine, save

from longstate import Forecaster, TextModel, datasets, reduce
from longstate.cli.demo import COVARIATES, KNOWN, TARGET
from longstate.train import Size, TextTraining, Training

SEEDS, KEPT = (0, 1, 2), (0.75, 0.5, 0.25)
FORECASTERS, TEXTS = ("s4d", "s5", "linoss"), ("mamba2", "mamba")
TEXT = {"d_model": 64, "n_layers": 2, "context": 256}
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


def rows_of(text: str, tokens, rows: int, length: int) -> torch.Tensor:
    """Stretches of a text, at equal distances."""
    numbers = torch.tensor(tokens.encode(text))
    starts = torch.linspace(0, len(numbers) - length, rows).long()
    return torch.stack([numbers[i : i + length] for i in starts])


@torch.no_grad()
def nats(model: TextModel, x: torch.Tensor) -> float:
    parts = []
    for part in x.split(16):
        logits = model.model(part)[0][:, :-1].log_softmax(-1)
        parts.append(-logits.gather(-1, part[:, 1:, None]).flatten())
    return float(torch.cat(parts).double().mean())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--only", default="", help="Names of layers, separated by commas.")
    given = options.parse_args()
    only = [name for name in given.only.lower().split(",") if name]
    torch.set_num_threads(1)
    text = given.text.read_text("utf-8")
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    lines = ["# Trained models with a smaller state", "", machine(), ""]
    lines += ["| layers | seed | kept | method | metric before | after | change |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for layers in (*FORECASTERS, *TEXTS):
        if only and layers not in only:
            continue
        for seed in SEEDS:
            if layers in FORECASTERS:
                forecaster(layers, seed)
            else:
                text_model(layers, seed, train)
    save("reduce_trained", "\n".join(lines))


if __name__ == "__main__":
    main()
