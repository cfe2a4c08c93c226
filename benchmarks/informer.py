"""S4 and Informer on the temperature of a transformer.

    pip install neuralforecast
    python benchmarks/informer.py ETTh1.csv [--seeds 3] [--seconds 300]

The column OT, 24 hours ahead; 12 months for training, 4 for validation and 4 for the test,
standardised by the training part; all windows of the test part count. Both read 336 rows, and the
calendar (hour, day of the week, day and month) of these rows and of those to come; both minimise
the squared error of 32 windows a step, stop by the validation part, and train for the same time on
one thread. Neither subtracts the last value of the window.

S4 is two blocks of 64 channels. As in its paper, the horizon is read too, with zeros for what is
not known, and the forecast is what comes out there. Informer is that of neuralforecast, with its
sizes. Finished runs are kept in `trained/informer.jsonl`, so that the script can be stopped and run
again.
"""

import copy
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from command import parser
from kept import FOLDER
from measure import cell, machine, save
from peer_methods import errors, naive, neural
from peer_sets import Series
from runs import Run, Runs, seeds_of
from torch import Tensor, nn

from longstate.layers import S4
from longstate.models import Stack
from longstate.train import Training, make_optimiser

MONTH, WINDOW, HORIZON, WIDTH, BATCH = 30 * 24, 336, 24, 64, 32
CHECK, PATIENCE, RATE = 100, 10, 1e-3


class Transformer(Series):
    """ETTh1 with its usual parts."""

    @property
    def ends(self) -> tuple[int, int]:
        return 12 * MONTH, 16 * MONTH

    def origins(self, most: int = 0, windows: int = 0) -> np.ndarray:
        return np.arange(self.ends[1], self.y.shape[1] - self.horizon + 1)


def read(path: Path) -> Transformer:
    frame = pd.read_csv(path, parse_dates=["date"]).iloc[: 20 * MONTH]
    times = pd.DatetimeIndex(frame["date"])
    calendar = np.stack([times.hour, times.dayofweek, times.day, times.month], axis=1)
    y = frame["OT"].to_numpy(float)[None]
    return Transformer("hourly", y, HORIZON, 24, times, "h", calendar[None].astype(float))


class Masked(nn.Module):
    """S4 over the window and the horizon: what comes out at the horizon."""

    def __init__(self, known: int):
        super().__init__()
        self.into, self.out = nn.Linear(2 + known, WIDTH), nn.Linear(WIDTH, 1)
        self.stack = Stack([S4(WIDTH), S4(WIDTH)])

    def forward(self, past: Tensor, known: Tensor) -> Tensor:
        """(b, h) from the values (b, w) and the calendar (b, w + h, k)."""
        lacking = known.new_zeros(len(past), known.shape[1] - past.shape[1])
        values = torch.cat([past, lacking], 1)
        seen = torch.cat([torch.ones_like(past), lacking], 1)
        y, _ = self.stack(self.into(torch.cat([torch.stack([values, seen], -1), known], -1)))
        return self.out(y[:, past.shape[1] :])[..., 0]


class Windows:
    """Windows of a standardised series by the first rows of their horizons."""

    def __init__(self, series: Series):
        train = series.ends[0]
        self.mean, self.std = series.y[0, :train].mean(), series.scale[0]
        assert series.known is not None
        known = series.known[0]
        scaled = (known - known.mean(0)) / known.std(0)
        self.y = torch.tensor((series.y[0] - self.mean) / self.std).float()
        self.known = torch.tensor(scaled).float()

    def at(self, origins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Past (b, w), calendar (b, w + h, k) and future (b, h)."""
        rows = origins[:, None] + torch.arange(-WINDOW, HORIZON)
        return self.y[rows[:, :WINDOW]], self.known[rows], self.y[rows[:, WINDOW:]]

    @torch.no_grad()
    def forecasts(self, model: Masked, origins: Tensor) -> Tensor:
        return torch.cat([model(*self.at(part)[:2]) for part in origins.split(4 * BATCH)])

    def error(self, model: Masked, origins: Tensor) -> float:
        return float((self.forecasts(model, origins) - self.at(origins)[2]).square().mean())


def s4(series: Series, seed: int, seconds: float) -> tuple[np.ndarray, int]:
    """Forecasts (o, 1, h), and steps of the training."""
    torch.manual_seed(seed)
    windows, (train, seen) = Windows(series), series.ends
    model = Masked(windows.known.shape[1])
    optimiser = make_optimiser(model, Training(learning_rate=RATE, dynamics_rate=RATE))
    validation, began = torch.arange(train, seen - HORIZON + 1, 4), time.process_time()
    best, kept, since, steps = float("inf"), model.state_dict(), 0, 0
    while since < PATIENCE and time.process_time() - began < seconds:
        past, known, future = windows.at(torch.randint(WINDOW, train - HORIZON + 1, (BATCH,)))
        loss = (model(past, known) - future).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % CHECK == 0:
            error, since = windows.error(model.eval(), validation), since + 1
            model.train()
            if error < best:
                best, kept, since = error, copy.deepcopy(model.state_dict()), 0
    model.load_state_dict(kept)
    found = windows.forecasts(model.eval(), torch.tensor(series.origins())).double().numpy()
    return found[:, None] * windows.std + windows.mean, steps


def run(path: Path, method: str, seconds: float, seed: int) -> dict[str, Any]:
    series, began, facts = read(path), time.process_time(), {}
    if method == "S4":
        forecasts, steps = s4(series, seed, seconds)
        facts = {"steps": steps}
    elif method == "Informer":
        forecasts = informer(series, seed, seconds)
    else:
        forecasts = naive(series, series.origins(), 1)
    squared, absolute = errors(series, forecasts, series.origins())
    facts |= {"mse": float(squared[0]), "mae": float(absolute[0])}
    return facts | {"cpu_seconds": time.process_time() - began}


def informer(series: Series, seed: int, seconds: float) -> np.ndarray:
    from neuralforecast.losses.pytorch import MSE

    method = neural(
        "Informer", seconds, windows_batch_size=BATCH, val_check_steps=CHECK, loss=MSE(),
        early_stop_patience_steps=PATIENCE,
    )  # fmt: skip
    return method(series, seed).forecasts["Informer"]


def line(runs: list[Run], method: str) -> str:
    cells = [cell([r[name] for r in runs]) for name in ("mse", "mae")]
    seconds = statistics.fmean(r["cpu_seconds"] for r in runs)
    return f"| {method} | {' | '.join(cells)} | {len(runs)} | {seconds:.0f} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("csv", type=Path)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=300.0, help="of each training, at most")
    given = options.parse_args()
    torch.set_num_threads(1)
    runs = Runs(FOLDER / "informer.jsonl", ("method", "seconds", "seed"))
    lines = [
        "# S4 and Informer on the temperature of a transformer", "",
        f"ETTh1, OT; errors of the test part, standardised. At most {given.seconds:g} s of "
        "training. Mean (lowest to highest seed).", "",
        "Command: `python benchmarks/informer.py ETTh1.csv`", "", machine(), "",
        f"## horizon {HORIZON}", "",
        "| method | mse | mae | seeds | CPU s |", "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for method, seeds in (("S4", given.seeds), ("Informer", given.seeds), ("last value", 1)):
        do = partial(run, given.csv, method, given.seconds)
        found = seeds_of(runs, seeds, do, method=method, seconds=given.seconds)
        lines.append(line(list(found), method))
    save("informer", "\n".join(lines))


if __name__ == "__main__":
    main()
