"""How many flights will leave late? Train, score honestly, forecast, write a report."""

from longstate import Forecaster, reports
from longstate.datasets import nyc_airports
from longstate.train import Size, Training

COVARIATES = ["wind_speed", "visibility", "precipitation"]  # known up to now

frame = nyc_airports()
forecaster = Forecaster(
    horizon=12,
    window=48,
    size=Size(d_model=16, n_layers=1, d_state=16),
    # A taste; leave it out for the real thing.
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

# To forecast, add rows for the future with what is known of it.
now = frame.tail(200).copy()
now.loc[now.index[-12:], ["late", *COVARIATES]] = float("nan")
print(forecaster.predict(now).head(3).to_string(index=False))

report = reports.describe(forecaster, evaluation, name="late departures from New York")
print("report:", reports.write(report, "report.html").name)
