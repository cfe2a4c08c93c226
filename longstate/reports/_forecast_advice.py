"""What to do next: the first box of a forecast report.

Each line has the figures that it follows from, and most end with a command.
"""

from dataclasses import dataclass
from shlex import quote

from longstate.reports._forecast_figures import best_baseline
from longstate.reports._memory_advice import Advice
from longstate.reports._units import short_time, steps
from longstate.train._ahead import Ahead
from longstate.train._chosen import Chosen
from longstate.train._evaluation import ForecastEvaluation
from longstate.train._forecast_record import training_notes
from longstate.train._history import TrainingHistory

MOST = 5  # lines
FEW = 10  # independent windows, below which a result is uncertain
AGAIN = "longstate train forecast {data} ..."  # with the options of the run


@dataclass(frozen=True)
class Setting:
    """What a run was given, as far as the advice depends on it.

    Args:
        run: the folder, for commands. data: the file of the training. now: the file to forecast
            from.
        covariates, known: columns.
        epochs: of the training.
        tuned: whether settings were searched.
        series: number of series of a panel; 0 for a single one.
        interval: seconds between samples, None when unknown.
        selective: names of the layers that have no linear system.
    """

    run: str = "RUN"
    data: str = "DATA"
    now: str = "DATA"
    covariates: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    epochs: int = 0
    tuned: bool = False
    series: int = 0
    interval: float | None = None
    selective: tuple[str, ...] = ()

    @property
    def measure(self) -> str:
        """The command for the memory of the layers."""
        return f"longstate memory {quote(self.run)} --data {quote(self.data)}"

    @property
    def again(self) -> str:
        """The beginning of another training."""
        return AGAIN.format(data=quote(self.data))

    def command(self, name: str, *more: str) -> str:
        """Of the run and its data."""
        return " ".join([f"longstate {name} {quote(self.run)} {quote(self.now)}", *more])


def advice(
    e: ForecastEvaluation,
    setting: Setting,
    choice: Chosen | None = None,
    history: TrainingHistory | None = None,
    ahead: Ahead | None = None,
) -> list[Advice]:
    """At most `MOST` lines, most useful first; never empty."""
    said = [_use(e, setting, ahead), *_beaten(e, setting, choice), *_more_rows(e, setting, choice)]
    said += [*_untested(e, setting), *_longer(setting, history), *_bands(e, setting)]
    said += [*_left(e, setting), *_known(setting), *_search(setting, choice)]
    return said[:MOST]


def _use(e: ForecastEvaluation, setting: Setting, ahead: Ahead | None) -> Advice:
    rows = steps(e.horizon, setting.interval)
    file = "-o forecast.csv"
    if setting.known and (ahead is None or not ahead.windows):
        names = ", ".join(f"“{name}”" for name in setting.known)
        return Advice(
            f"Forecast: give rows up to now, then {e.horizon:,} rows of the future with {names} "
            "filled and the targets empty.",
            f"longstate predict {quote(setting.run)} ROWS {file}",
        )
    if ahead is not None and ahead.windows:
        one = next(iter(ahead.windows.values()))[0]
        last = short_time(one.times[-1 - e.horizon])
        after = f" after {last}" if ahead.single else " after the last row of each series"
        return Advice(f"Write the forecast of the {rows}{after}.", setting.command("predict", file))
    return Advice(f"Forecast the {rows} after the data.", setting.command("predict", file))


def _beaten(e: ForecastEvaluation, setting: Setting, choice: Chosen | None) -> list[Advice]:
    best, model = best_baseline(e), e.score("model")
    if best is None or choice is None or not any(p.name == best for p in choice.parts):
        return []
    other = e.score(best)
    if other.mse >= model.mse or not other.differs(model):
        return []
    return [
        Advice(
            f"On the test part {best} has a {100 * (1 - other.mse / model.mse):.1f} % smaller "
            "squared error, more than chance explains. It alone:",
            setting.command("predict", f"--method {quote(best)}"),
        )
    ]


def _more_rows(e: ForecastEvaluation, setting: Setting, choice: Chosen | None) -> list[Advice]:
    """Where few independent windows make a part of the report uncertain."""
    tested = next((band.windows for band in e.bands if band.windows is not None), None)
    help_ = "More rows help most, then a shorter horizon"
    if choice is not None and choice.calibrated < FEW:
        said = f"The bands rest on windows that are worth {choice.calibrated:.1f} independent ones"
        more, shares = f"{help_}, or a larger part for validation.", "0.5,0.3,0.2"
    elif tested is not None and tested < FEW:
        said = f"The test is on windows that are worth {tested:.1f} independent ones"
        more, shares = f"{help_}, or a larger part for the test.", "0.5,0.1,0.4"
    else:
        return []
    return [Advice(f"{said}: these are few. {more}", f"{setting.again} --split {shares}")]


def _untested(e: ForecastEvaluation, setting: Setting) -> list[Advice]:
    missing = setting.series - len(e.series)
    if not e.series or missing <= 0:
        return []
    return [
        Advice(
            f"{missing:,} of {setting.series:,} series have no window in the test part, so nothing "
            "is known of their errors. The parts are those of time; a larger test part has more "
            "series.",
            f"{setting.again} --split 0.6,0.1,0.3",
        )
    ]


def _longer(setting: Setting, history: TrainingHistory | None) -> list[Advice]:
    if history is None or not history.looks or not training_notes(history):
        return []
    said = f"The training was {history.ended} while its validation loss still fell."
    return [Advice(said, f"{setting.again} --epochs {3 * max(1, setting.epochs)}")]


def _bands(e: ForecastEvaluation, setting: Setting) -> list[Advice]:
    wrong = [b for b in e.bands if b.is_wrong]
    if not wrong:
        return []
    held = ", ".join(f"{100 * b.observed:.0f} % (of {100 * b.level:.3g} %)" for b in wrong)
    return [
        Advice(
            f"The bands held {held} of the true values. Where rows arrive one by one, they can "
            "follow the truth.",
            f"longstate stream {quote(setting.run)} --adapt 0.01",
        )
    ]


def _left(e: ForecastEvaluation, setting: Setting) -> list[Advice]:
    found = [r for r in e.residuals if r.remains]
    if not found:
        return []
    one = max(found, key=lambda r: abs(r.values[r.largest - 1]))
    lag, value = one.largest, one.values[one.largest - 1]
    said = f"The errors of {one.target} have an autocorrelation of {value:.2f} at lag {lag}."
    if value > 0 and lag > 2 and lag != e.season:
        more = f" Perhaps there is a season of {lag} rows."
        return [Advice(said + more, f"{setting.again} --season {lag}")]
    if e.window < 2 * e.season:
        more = f" The window of {e.window} rows has fewer than two seasons of {e.season}."
        return [Advice(said + more, f"{setting.again} --window {2 * e.season}")]
    more = " A covariate that explains them would help, or a longer window."
    return [Advice(said + more, f"{setting.again} --window {2 * e.window}")]


def _known(setting: Setting) -> list[Advice]:
    if setting.known or not setting.covariates:
        return []
    names = ", ".join(f"“{name}”" for name in setting.covariates[:3])
    return [
        Advice(
            f"The covariates ({names}) are read up to now. One that is known for the future too, "
            "such as a timetable, helps more.",
            f"{setting.again} --known {quote(setting.covariates[0])}",
        )
    ]


def _search(setting: Setting, choice: Chosen | None) -> list[Advice]:
    if setting.tuned:
        return []
    alone = choice is not None and not any(p.name == "network" for p in choice.used)
    said = "The network has no weight" if alone else "The settings were not searched"
    more = "; a search on validation may find better settings (in minutes)."
    return [Advice(said + more, f"{setting.again} --tune 10")]
