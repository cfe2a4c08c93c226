"""When does a state in 8 or 4 bits hurt? Mamba-2 on recall, Mamba and Mamba-2 on text.

    python benchmarks/quantized_state.py tinyshakespeare.txt [--only text] [--layers mamba2]

Three seeds each. The state is rounded after every sample, by `quantize_state` with steps that
follow the state: one for each row (as `prepare_for_decoding(model, state_bits=8)` does) or one for
all of a layer's state; to nearest, at random, or with feedback, which takes twice the bits.

- hold: one number that decays slowly: what is left of it, and what a small constant input makes
- recall: 6 pairs, then 6 questions (short) or 192 (long; the model was trained on 6)
- text: nats per byte of the last tenth of the text, in stretches of 256 bytes (as trained) or 512

The predictor runs e^2 <- a^2 e^2 + step^2 / 12 along the decays `a` of the exact model on the same
data, and compares e with the size of the state; "stuck" is the share of changes of a number that
are smaller than half a step, which rounding to nearest loses.

Trained models and finished parts are kept in `benchmarks/trained/`.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from command import parser
from kept import FOLDER, kept
from measure import machine, save
from recall import CONTEXT, LETTERS, recall, trained
from torch import Tensor, nn

from longstate import TextModel
from longstate.compress import quantize_state
from longstate.layers import S4D
from longstate.memory import certify
from longstate.memory._recording import record
from longstate.ops.quantized_step import Digits
from longstate.ops.quantized_step.reference import exponents, power
from longstate.train import TextTraining

SEEDS = (0, 1, 2)
WAYS = [
    (bits, rounding, scale)
    for bits in (8, 4)
    for rounding, scale in (
        ("nearest", "row"),
        ("nearest", "tensor"),
        ("stochastic", "row"),
        ("feedback", "row"),
    )
]
TEXT = {"d_model": 64, "n_layers": 2, "context": 256}
STEPS = TextTraining(batch_size=4, steps=800)
QUESTIONS, LONG = 192, 512


def text_model(layers: str, seed: int, text: str) -> TextModel:
    def train() -> TextModel:
        return TextModel(layers, **TEXT, training=STEPS, seed=seed).fit(text=text)

    made: TextModel = kept(f"text_{layers}_{seed}", (TEXT, STEPS, len(text)), train)
    return made


def part(name: str, compute: Callable[[], Any]) -> Any:
    """A finished part of the study, from disk if it is there."""
    path = FOLDER / f"quantized_{name}.json"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        print(f"computing {name}", flush=True)
        path.write_text(json.dumps(compute()))
    return json.loads(path.read_text())


def predicted(model: nn.Module, data: Tensor, bits: int, scale: str) -> tuple[float, float]:
    """Error of a state as a share of its size, and share of changes that are lost; worst layer."""
    errors, stuck = [], []
    for trace in record(model, data).values():
        h = trace.states()
        over = h.abs().amax(-1, keepdim=True) if scale == "row" else h.abs().amax((2, 3), True)
        step = power(exponents(over, Digits(bits).most), h.dtype).expand_as(h)
        square = torch.zeros_like(h[:, 0])
        for t in range(trace.length):
            square = trace.decay[:, t].square() * square + step[:, t].square() / 12
        errors.append(float((square.sum() / h[:, -1].square().sum()).sqrt()))
        moved = (h[:, 1:] - h[:, :-1]).abs()
        stuck.append(float((moved < step[:, 1:] / 2).double().mean()))
    return max(errors), max(stuck)


def longer(rows: int, seed: int, questions: int) -> tuple[Tensor, Tensor]:
    """The recall task with more questions than keys."""
    x, y = recall(rows, seed)
    draw = torch.Generator().manual_seed(seed)
    pick = torch.randint(x.shape[1] - CONTEXT, (rows, questions), generator=draw)
    asked = x[:, CONTEXT:].gather(1, pick)
    return torch.cat([x[:, :CONTEXT], asked], dim=1), y.gather(1, pick)


@torch.no_grad()
def answers(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Share of right answers to the first 6 questions and to the last 48."""
    state, right = model.init_state(len(x)), []
    for t in range(x.shape[1]):
        logits, state = model(x[:, t : t + 1], state)
        if t >= CONTEXT:
            right.append(logits[:, 0, LETTERS:].argmax(-1) == y[:, t - CONTEXT])
    share = torch.stack(right, dim=1).double()
    return float(share[:, :6].mean()), float(share[:, -48:].mean())


@torch.no_grad()
def nats(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """Nats per byte of the first 256 bytes, and of the last 256."""
    state, lost = model.init_state(len(x)), []
    for t in range(x.shape[1] - 1):
        logits, state = model(x[:, t : t + 1], state)
        lost.append(-logits[:, 0].log_softmax(-1).gather(-1, x[:, t + 1, None])[:, 0])
    mean = torch.stack(lost).double()
    return float(mean[:255].mean()), float(mean[-256:].mean())


def measured(model: nn.Module, score: Callable[[nn.Module], Any], data: Tensor) -> dict[str, Any]:
    """Scores of the exact model and of every way, with the predictor beside them."""
    claims = [
        c.certified for c in certify(model, attack=False).claims if c.what.startswith("decay")
    ]
    found: dict[str, Any] = {"exact": score(model), "rate": max(v for v in claims if v is not None)}
    for bits, rounding, scale in WAYS:
        torch.manual_seed(0)
        rounded = quantize_state(model, bits=bits, rounding=rounding, scale=scale)
        found[f"{bits} {rounding} {scale}"] = [
            *score(rounded),
            *predicted(model, data, bits, scale),
        ]
    return found


def of_recall(seed: int) -> dict[str, Any]:
    model = trained(seed)
    x, y = longer(128, 7, QUESTIONS)
    return measured(model, lambda m: answers(m, x, y), x[:16])


def of_text(layers: str, seed: int, train: str, test: str) -> dict[str, Any]:
    made = text_model(layers, seed, train)
    numbers = torch.tensor(made.tokens.encode(test))
    starts = torch.linspace(0, len(numbers) - LONG, 8).long()
    x = torch.stack([numbers[i : i + LONG] for i in starts])
    return measured(made.model, lambda m: nats(m, x), x[:4, :512])


def table(name: str, parts: dict[str, list[dict[str, Any]]], better: float) -> list[str]:
    """Rows of one task: change of the metric against the exact state, for every way."""
    lines = [f"## {name}", ""]
    lines += ["| layers | bits | rounding | scale | short | long | worst | predicted | stuck |"]
    lines += ["|---|--:|---|---|--:|--:|--:|--:|--:|"]
    for layers, seeds in parts.items():
        exact = [[s["exact"][i] for s in seeds] for i in (0, 1)]
        lines.append(f"| {layers} | 32 | - | - | {mean(exact[0])} | {mean(exact[1])} | - | - | - |")
        for bits, rounding, scale in WAYS:
            runs = [s[f"{bits} {rounding} {scale}"] for s in seeds]
            lost = [[better * (s["exact"][i] - r[i]) for s, r in zip(seeds, runs, strict=True)]
                    for i in (0, 1)]  # fmt: skip
            many = 2 if rounding == "feedback" else 1
            lines.append(
                f"| {layers} | {bits * many} | {rounding} | {scale} | {mean(lost[0])} | "
                f"{mean(lost[1])} | {max(lost[0] + lost[1]):.4f} | "
                f"{statistics.mean(r[2] for r in runs):.2g} | "
                f"{statistics.mean(r[3] for r in runs):.0%} |"
            )
    rates = {k: max(s["rate"] for s in v) for k, v in parts.items()}
    said = ", ".join(f"{k} {v:.6f}" for k, v in rates.items())
    return [*lines, "", f"Certified decay of a step, at most, over all inputs: {said}.", ""]


def mean(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.4f} ± {error:.4f}"


def hold() -> list[str]:
    """One real number of a linear layer: decay `a`, 4000 samples, steps of its own."""
    lines = ["## One number that decays slowly", ""]
    lines += [
        "A value of 1 is left alone (exact: a^4000), or 1 - a is added at every sample, so that"
    ]
    lines += [
        "it should reach 1 - a^4000. Nearest keeps the first and never begins the second.",
        "",
    ]
    lines += ["| a | bits | rounding | left of 1 | exact | reached | exact |"]
    lines += ["|--:|--:|---|--:|--:|--:|--:|"]
    for a in (0.9, 0.99, 0.999, 0.9999):
        for bits in (8, 4):
            for rounding in ("nearest", "stochastic", "feedback"):
                left, exact = _held(a, bits, rounding, 1.0, 0.0)
                reached, target = _held(a, bits, rounding, 0.0, 1 - a)
                many = 2 if rounding == "feedback" else 1
                lines.append(
                    f"| {a} | {bits * many} | {rounding} | {left:.4f} | {exact:.4f} | "
                    f"{reached:.4f} | {target:.4f} |"
                )
    return [*lines, ""]


def _held(a: float, bits: int, rounding: str, start: float, added: float) -> tuple[float, float]:
    """The number after 4000 samples, mean of 64 runs, and without rounding. Its row holds a second
    number, 1, that sets the step."""
    torch.manual_seed(0)
    layer = S4D(1, d_state=2, init="real").double()
    grid = quantize_state(layer, bits=bits, rounding=rounding, scale="row").grids[0]
    h = torch.tensor([start, 1.0]).double().expand(64, *grid.shape)
    exact = start
    for _ in range(4000):
        x = torch.stack([a * h[..., 0] + added, torch.ones_like(h[..., 1])], dim=-1)
        found = grid.round(x)
        h = found.value if found.rest is None else found.value + found.rest
        exact = a * exact + added
    return float(h[..., 0].mean()), exact


def main() -> None:
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--only", default="recall,text,hold")
    options.add_argument("--layers", default="mamba2,mamba", help="of the text models")
    given = options.parse_args()
    torch.set_num_threads(1)
    text = given.text.read_text("utf-8")
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    lines = ["# When a state in few bits hurts", "", machine(), ""]
    lines += ["Bits are those of a number, the kept rest of feedback included. Row of 32 bits: the"]
    lines += [
        "score of the exact state, mean ± standard error of three seeds; other rows: how much"
    ]
    lines += ["worse it is. Worst: of all seeds, short or long. Predicted: error of the state as a"]
    lines += [
        "share of its size, for rounding to nearest. Stuck: changes of a number below half a step."
    ]
    lines += [""]
    if "hold" in given.only:
        lines += part("hold", hold)
    if "recall" in given.only:
        found = {"mamba2": [part(f"recall_{s}", lambda i=s: of_recall(i)) for s in SEEDS]}
        lines += table("Recall: share of right answers", found, 1.0)
    if "text" in given.only:
        found = {
            layers: [
                part(f"text_{layers}_{s}", lambda n=layers, i=s: of_text(n, i, train, test))
                for s in SEEDS
            ]
            for layers in given.layers.split(",")
        }
        lines += table("Text: nats per byte", found, -1.0)
    save("quantized_state", "\n".join(lines))


if __name__ == "__main__":
    main()
