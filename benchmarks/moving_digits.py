"""Frames of two moving digits, predicted by ConvS5 and by a convolutional LSTM of equal size.

    python benchmarks/moving_digits.py FOLDER [--seeds 3] [--steps 800]

FOLDER has MNIST's test files: the first 9,000 images to train, the last 1,000 to test, at half
their size. Two of them move over frames of 32 by 32 and bounce at the borders. A model of two
blocks at 8 by 8 with 32 channels learns to predict each next frame of 20; blocks have ConvS5, a
GELU and a convolution, or a convolutional LSTM. In the test it reads 10 frames, and generates the
next 30 from its own predictions. Errors are squared differences, relative to those of an image of
zeros. Seconds are processor time of one thread. A generated frame is one step of a batch of one.
Finished runs are kept in `trained/moving_digits.jsonl`.
"""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command import parser
from kept import FOLDER
from measure import cell, machine, save
from runs import Run, Runs, seeds_of
from smnist import MEAN, STD, read
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import ConvS5

SIDE, DIGIT, PATCH, WIDTH, BLOCKS = 32, 14, 4, 32, 2
SMALL = SIDE // PATCH
READ, SHORT, LONG, BATCH, TESTS, RATE = 10, 10, 30, 16, 128, 3e-3
MODELS = ("ConvS5", "ConvLSTM")
PARTS = {"train": (0, 9000), "test": (9000, 10000)}


def digits(folder: Path, part: str) -> Tensor:
    """Images (i, 14, 14) between 0 and 1."""
    pixels = read(folder).part(*PARTS[part]).pixels * STD + MEAN
    return F.avg_pool2d(pixels.view(-1, 1, 28, 28), 2)[:, 0].clamp(0, 1)


def movies(images: Tensor, count: int, frames: int, draw: torch.Generator) -> Tensor:
    """(count, frames, 1, 32, 32): two digits each, at 1 to 3 pixels a frame."""
    room = SIDE - DIGIT
    which = torch.randint(len(images), (count, 2), generator=draw)
    start = room * torch.rand(count, 2, 2, generator=draw)
    angle = 2 * torch.pi * torch.rand(count, 2, generator=draw)
    speed = 1 + 2 * torch.rand(count, 2, generator=draw)
    velocity = speed[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    at = start + velocity * torch.arange(frames).view(-1, 1, 1, 1)  # frames, count, 2, 2
    at = (room - (at.remainder(2 * room) - room).abs()).round().long()  # there and back
    shown = torch.zeros(count, frames, 1, SIDE, SIDE)
    for t, row, one in torch.cartesian_prod(*map(torch.arange, (frames, count, 2))).tolist():
        y, x = at[t, row, one].tolist()
        window = shown[row, t, 0, y : y + DIGIT, x : x + DIGIT]
        torch.maximum(window, images[which[row, one]], out=window)
    return shown


class Linear(nn.Module):
    """ConvS5, then what makes it nonlinear."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = ConvS5(WIDTH * SMALL**2, height=SMALL, width=SMALL, d_state=64, n_blocks=4)
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Frames (b, t, channels, height, width) and a state."""
        y, state = self.layer(x.flatten(2), state)
        y = self.mix(F.gelu(y).view(-1, *x.shape[2:]))
        return y.view_as(x), state


class ConvLSTM(nn.Module):
    """Shi et al., 2015: gates that see neighbours; without the peephole connections."""

    units = 26  # as many parameters as the other block

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Conv2d(WIDTH, 4 * self.units, 3, padding=1)
        self.carry = nn.Conv2d(self.units, 4 * self.units, 3, padding=1, bias=False)
        self.write = nn.Conv2d(self.units, WIDTH, 1)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        drive = self.read(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        zero = x.new_zeros(len(x), self.units, *x.shape[3:])
        h, c = (zero, zero) if state is None else state
        outputs = []
        for now in drive.unbind(1):
            i, f, o, g = (now + self.carry(h)).chunk(4, dim=1)
            c = (f + 1).sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        y = self.write(torch.stack(outputs, 1).flatten(0, 1))
        return y.view_as(x), (h, c)


class Predictor(nn.Module):
    """The next frame after each one, as logits."""

    def __init__(self, kind: str):
        super().__init__()
        make = Linear if kind == "ConvS5" else ConvLSTM
        self.encode = nn.Conv2d(PATCH**2, WIDTH, 3, padding=1)
        self.mixers = nn.ModuleList(make() for _ in range(BLOCKS))
        self.norms = nn.ModuleList(nn.GroupNorm(4, WIDTH) for _ in range(BLOCKS + 1))
        self.decode = nn.Conv2d(WIDTH, PATCH**2, 3, padding=1)

    def forward(self, frames: Tensor, states: list[Any] | None = None) -> tuple[Tensor, list[Any]]:
        x, after = self.encode(F.pixel_unshuffle(frames.flatten(0, 1), PATCH)), []
        before = [None] * BLOCKS if states is None else states
        for mixer, norm, state in zip(self.mixers, self.norms, before, strict=False):
            y, state = mixer(norm(x).unflatten(0, frames.shape[:2]), state)
            x = x + y.flatten(0, 1)
            after.append(state)
        logits = F.pixel_shuffle(self.decode(self.norms[-1](x)), PATCH)
        return logits.view_as(frames), after

    @torch.no_grad()
    def generate(self, frames: Tensor, count: int) -> Tensor:
        logits, states = self(frames)
        made = [logits[:, -1:].sigmoid()]
        while len(made) < count:
            logits, states = self(made[-1], states)
            made.append(logits.sigmoid())
        return torch.cat(made, 1)


def learn(model: Predictor, images: Tensor, seed: int, steps: int) -> float:
    """Train. Returns milliseconds of a step, without those of drawing its frames."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    seconds = 0.0
    for _ in range(steps):
        frames = movies(images, BATCH, READ + SHORT, draw)
        began = time.process_time()
        loss = F.binary_cross_entropy_with_logits(model(frames[:, :-1])[0], frames[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seconds += time.process_time() - began
    return 1e3 * seconds / steps


def a_frame(model: Predictor, frames: Tensor) -> float:
    """Median milliseconds of a generated frame, the read ones not counted."""
    logits, states = model(frames[:1])
    frame, times = logits[:, -1:].sigmoid(), []
    for _ in range(100):
        began = time.process_time()
        logits, states = model(frame, states)
        frame = logits.sigmoid()
        times.append(time.process_time() - began)
    return 1e3 * statistics.median(times)


def errors(made: Tensor, truth: Tensor) -> dict[str, float]:
    """Of the first frames, and of those after them."""
    parts = {"error": slice(0, SHORT), "later": slice(SHORT, LONG)}
    return {
        name: float((made[:, part] - truth[:, part]).square().sum() / truth[:, part].square().sum())
        for name, part in parts.items()
    }


def run(kind: str, folder: Path, steps: int, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    test = movies(digits(folder, "test"), TESTS, READ + LONG, torch.Generator().manual_seed(10**6))
    seen, truth = test[:, :READ], test[:, READ:]
    if kind not in MODELS:
        copied = seen[:, -1:] if kind == "last frame" else seen.mean(1, keepdim=True)
        return errors(copied.expand_as(truth), truth)
    model = Predictor(kind)
    step = learn(model, digits(folder, "train"), seed, steps)
    with torch.no_grad():
        found = errors(model.eval().generate(seen, LONG), truth)
        size = sum(p.numel() for p in model.parameters())
        return {**found, "step": step, "frame": a_frame(model, seen), "size": size}


def row(kind: str, found: list[Run]) -> str:
    keys = ("error", "later", "step", "frame") if kind in MODELS else ("error", "later")
    cells = [cell([r[key] for r in found]) for key in keys]
    if kind in MODELS:
        cells.append(f"{found[0]['size']:,}")
    cells += ["-"] * (5 - len(cells))
    return f"| {kind} | {' | '.join(cells)} | {len(found)} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=800)
    given = options.parse_args()
    torch.set_num_threads(1)
    runs = Runs(FOLDER / "moving_digits.jsonl", ("kind", "seed", "steps"))
    lines = [
        "# Moving digits: the next frames",
        "",
        f"{given.steps} steps of {BATCH} movies of {READ + SHORT} frames. {READ} frames are read "
        f"and {LONG} generated, in {TESTS} movies of digits that were not in the training. Squared "
        "error relative to that of an image of zeros: mean (lowest to highest seed).",
        "Command: `python benchmarks/moving_digits.py FOLDER`",
        "",
        machine(),
        "",
        f"| model | error, frames 1 to {SHORT} | error, {SHORT + 1} to {LONG} | ms a training step "
        "| ms a generated frame | parameters | seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in (*MODELS, "last frame", "mean frame"):
        do = partial(run, kind, given.folder, given.steps)
        seeds = given.seeds if kind in MODELS else 1
        named = {"kind": kind, "steps": given.steps}
        lines.append(row(kind, list(seeds_of(runs, seeds, do, **named))))
    save("moving_digits", "\n".join(lines))


if __name__ == "__main__":
    main()
