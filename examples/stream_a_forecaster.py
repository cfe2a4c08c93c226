"""Forecast after each new row, stop, and continue from a file."""

import matplotlib.pyplot as plt

from longstate import Forecaster
from longstate.datasets import nyc_airports
from longstate.stream import ForecastStream
from longstate.train import Size, Training

frame = nyc_airports()[["time", "temperature"]].head(2400)
forecaster = Forecaster(
    horizon=12,
    window=48,
    size=Size(d_model=8, n_layers=1, d_state=16),
    training=Training(epochs=1, windows_per_epoch=256),
)
forecaster.fit(frame, target="temperature")
forecaster.save("temperature.safetensors")

# Another process, another day: the file contains the model and all its settings.
stream = ForecastStream(Forecaster.load("temperature.safetensors").model)
rows = frame.tail(120).astype(str).to_dict("records")

forecasts = []
for row in rows:
    answer = stream.push(row)  # None until the window is full
    if answer is not None:
        forecasts.append((answer.origin, answer.forecast.point[0, :, 0]))

print(f"{len(rows)} rows came in, {len(forecasts)} forecasts went out")
print(f"the first after {forecasts[0][0]}, of {len(forecasts[0][1])} hours")

truth = frame["temperature"].to_numpy()[-120:]
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot(truth, color="#1f2933", label="what came")
for i in range(0, len(forecasts) - 12, 6):
    start = 120 - len(forecasts) + i + 1
    label = "forecasts on the way" if i == 0 else None
    axis.plot(range(start, start + 12), forecasts[i][1], color="C1", alpha=0.6, label=label)
axis.set(xlabel="hours", ylabel="temperature at JFK, °C")
axis.legend()
figure.savefig("stream_a_forecaster.svg")
