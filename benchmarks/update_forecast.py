"""What one more row costs a forecaster.

    python benchmarks/update_forecast.py [--repeats 30]         one thread, a minute

A forecaster with the default sizes has a window of 336 rows, and 10,000 rows of history. Per new
row: `predict` with all rows; `update` and `predict()`, which keep the last window; a stream, which
keeps it as numbers; and the model alone, without a table. The forecast is once a line, and once
half line and half network: the weights are set for the measurement, and the training is very short,
because neither changes the time.

The last rows are the floor for a network whose state would move on: one row through the blocks,
and the rows of the horizon after it. The present network has no such state, because its input is
the window minus its last value: each new row changes all of it, and normalisation between the
blocks keeps that from being a known term.
"""

import warnings

import numpy as np
import pandas as pd
import torch
from command import parser
from measure import machine, ms, rounds, save

from longstate import Forecaster
from longstate.models._choice import NETWORK, PARTS
from longstate.stream import ForecastStream
from longstate.train import Training
from longstate.train._read_table import table_for
from longstate.train._windows import Windows

ROWS, WINDOW = 10_000, 336
HORIZONS = (24, 96)
ENCODE = "one pass of the network over window and horizon"


def series(rows: int) -> pd.DataFrame:
    draw, t = np.random.default_rng(0), np.arange(rows)
    y = 10 + 3 * np.sin(2 * np.pi * t / 24) + np.cumsum(0.1 * draw.standard_normal(rows))
    return pd.DataFrame({"time": pd.date_range("2023-01-01", periods=rows, freq="h"), "y": y})


def forecaster(horizon: int, network: float) -> Forecaster:
    training = Training(epochs=1, windows_per_epoch=64)
    made = Forecaster(horizon, window=WINDOW, training=training).fit(series(ROWS), "y")
    weight = made.model.choice.weight
    weight.zero_()
    weight[PARTS.index("line")], weight[NETWORK] = 1 - network, network
    return made


def times_of(horizon: int, network: float, repeats: int) -> dict[str, list[float]]:
    made, frame = forecaster(horizon, network), series(ROWS)
    model = made.model
    window = Windows.last(table_for(frame, model.spec), model.spec)
    stream = ForecastStream(model)
    later = iter(pd.date_range(frame["time"].iloc[-1], periods=10**5, freq="h")[1:])
    rows = iter(frame.tail(WINDOW).to_dict("records"))
    for row in rows:
        stream.push({"time": str(row["time"]), "y": row["y"]})
    updated = {"time": frame["time"].iloc[-1]}

    def update() -> None:
        updated["time"] += pd.Timedelta(1, "h")
        made.update(pd.DataFrame({"time": [updated["time"]], "y": [10.0]})).predict()

    state = model.backbone.init_state(1)
    row, ahead = (torch.zeros(1, n, model.encode.out_features) for n in (1, horizon))
    candidates = {
        ENCODE: lambda: model(window),
        "predict, all rows": lambda: made.predict(frame),
        "update and predict": update,
        "stream": lambda: stream.push({"time": str(next(later)), "y": 10.0}),
        "the model alone": lambda: model.checked(window),
        "floor: one row through the blocks": lambda: model.backbone.step(row[:, 0], state),
        "floor: that and the horizon": lambda: (
            model.backbone.step(row[:, 0], state),
            model.backbone(ahead, state),
        ),
    }
    with torch.no_grad():
        return rounds(candidates, repeats)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=30)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = []
    for horizon in HORIZONS:
        for what, network in (("line", 0.0), ("line and network", 0.5)):
            found = times_of(horizon, network, given.repeats)
            for name, seconds in found.items():
                cheaper = min(found[ENCODE]) / min(seconds)
                lines.append(f"| {horizon} | {what} | {name} | {ms(seconds)} | {cheaper:.2f} |")
    text = [
        "# One more row: the cost of a forecast",
        "",
        f"A window of {WINDOW} rows, {ROWS:,} rows of history, default sizes (2 blocks of S4D, 32 "
        "channels). Milliseconds: median (best). Cheaper: best time of one pass of the network "
        "over that of the candidate; medians suffer from other load on the machine.",
        "Command: `python benchmarks/update_forecast.py`",
        "",
        machine(),
        "",
        "| horizon | the forecast is | what | ms | times cheaper |",
        "| ---: | --- | --- | ---: | ---: |",
        *lines,
    ]
    save("update_forecast", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
