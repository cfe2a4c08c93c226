"""AutoETS of statsforecast on a long frame, from several origins: a peer of `panel_retail.py`.

    python -m venv peers && peers/bin/pip install statsforecast
    peers/bin/python benchmarks/panel_ets.py work/long.csv work/origins.csv work/ets.csv

It needs neither longstate nor PyTorch. At each origin it is fitted to all rows before it, for each
series.
"""

import time

from command import parser, peers

with peers(__name__, __doc__, "statsforecast"):
    import pandas as pd
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS

HORIZON, SEASON = 12, 12


def main() -> None:
    options = parser(__doc__)
    options.add_argument("frame", help="CSV with unique_id, ds, y")
    options.add_argument("origins", help="CSV with the first forecast times, column ds")
    options.add_argument("out", help="CSV to write: unique_id, ds, y, origin")
    given = options.parse_args()
    frame = pd.read_csv(given.frame, parse_dates=["ds"])
    origins = pd.read_csv(given.origins, parse_dates=["ds"])["ds"]
    found, began = [], time.perf_counter()
    for origin in origins:
        fitted = StatsForecast([AutoETS(season_length=SEASON)], freq="MS", n_jobs=1)
        one = fitted.forecast(df=frame[frame["ds"] < origin], h=HORIZON).reset_index()
        found.append(one.rename(columns={"AutoETS": "y"}).assign(origin=origin))
        print(origin, f"{time.perf_counter() - began:.0f} s", flush=True)
    pd.concat(found)[["unique_id", "ds", "y", "origin"]].to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
