"""Forecast the temperature of the next day, score the forecast honestly, write a report."""

from longstate import Forecaster, reports
from longstate.datasets import nyc_weather
from longstate.train.settings import Size, Training

frame = nyc_weather()
forecaster = Forecaster(
    horizon=24,
    window=72,
    size=Size(d_model=16, n_layers=1, d_state=16),
    training=Training(epochs=1, windows_per_epoch=512),  # a taste; leave it out for the real thing
)
forecaster.fit(frame, target="temperature", covariates=["humidity", "wind_speed", "pressure"])

evaluation = forecaster.evaluate(frame)
for score in evaluation.scores:
    print(f"{score.method:15s} MSE {score.mse:.4f}   MAE {score.mae:.4f}")
print(reports.headline(evaluation, interval=3600.0))

print(forecaster.predict(frame).head(3).to_string(index=False))
report = reports.describe(forecaster, evaluation, name="temperature at JFK airport")
print("report:", reports.write(report, "report.html").name)
