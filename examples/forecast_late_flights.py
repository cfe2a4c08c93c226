"""How many flights will leave late? Train, evaluate, forecast, and write a report."""

import matplotlib.pyplot as plt

from longstate import Forecaster, reports
from longstate.datasets import nyc_airports
from longstate.train import Size, Training

COVARIATES = ["wind_speed", "visibility", "precipitation"]  # known up to now

frame = nyc_airports()
forecaster = Forecaster(
    horizon=12,
    window=48,
    size=Size(d_model=16, n_layers=1, d_state=16),
    # A short training for this example; leave this out for better forecasts.
    training=Training(epochs=2, windows_per_epoch=1024, learning_rate=5e-3),
)
forecaster.fit(
    frame,
    target="late",
    known="scheduled",  # the timetable of the hours to come
    covariates=COVARIATES,
)

evaluation = forecaster.evaluate(frame)
for score in evaluation.scores:
    print(f"{score.method:15s} MSE {score.mse:.4f}   MAE {score.mae:.4f}")
print(reports.headline(evaluation, interval=3600.0))

# To forecast, add rows for the future with the columns that are known in advance.
now = frame.tail(200).copy()
now.loc[now.index[-12:], ["late", *COVARIATES]] = float("nan")
print(forecaster.predict(now).head(3).to_string(index=False))

report = reports.describe(forecaster, evaluation, name="late departures from New York")
print("report:", reports.write(report, "report.html").name)

example = evaluation.examples[0]
ahead = range(len(example.past), len(example.past) + 12)
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot(example.past, color="#8a949e")
low, high = example.quantiles[0.1], example.quantiles[0.9]
axis.fill_between(ahead, low, high, color="C0", alpha=0.2, label="8 of 10 times within")
axis.plot(ahead, example.forecasts["model"], color="C0", label="forecast")
axis.plot(ahead, example.truth, color="#1f2933", label="what came")
axis.set(xlabel="hours", ylabel="late departures in the hour")
axis.legend(loc="upper left")
figure.savefig("forecast_late_flights.svg")
