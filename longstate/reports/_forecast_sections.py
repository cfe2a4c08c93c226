"""The sections of a forecast report about errors, the choice and the bands."""

from collections.abc import Sequence

from longstate._numbers import score
from longstate.reports import _forecast_figures as figures
from longstate.reports._markup import Markup, element, table
from longstate.reports._units import duration, steps
from longstate.train._bands import Band
from longstate.train._chosen import Chosen
from longstate.train._evaluation import ForecastEvaluation, Score, SeriesScore

WORST = 10  # series in the table


EXPLAINED = {
    "last value": "repeats the newest sample",
    "seasonal naive": "repeats the last season of {season} samples",
    "smoothing": "is damped seasonal exponential smoothing",
    "ridge": "is a linear regression on the same inputs, fitted in closed form",
    "line": "is ridge whose penalty may grow with the lag",
    "map": "goes from the newest samples to the next one, again and again",
    "network": "is the state space model alone",
}


def change(model: float, other: float) -> str:
    """By how much the model's error is larger than another, as the cell of a table."""
    if not other:
        return ""
    percent = round(100 * (model / other - 1), 1)
    return f"{percent:+.1f}\u00a0%".replace("-", "−") if percent else "0.0\u00a0%"


def scores(e: ForecastEvaluation) -> Markup:
    model = e.score("model")
    best = min(range(len(e.scores)), key=lambda i: e.scores[i].mse)
    rows = [
        (s.method, score(s.mse), "" if i == 0 else change(model.mse, s.mse), score(s.mae))
        for i, s in enumerate(e.scores)
    ]
    own = "each series' own" if e.series else "the target's"
    return element(
        "section",
        element("h2", "Is it better than simple methods?"),
        table(("method", "squared error", "model has", "absolute error"), rows, best),
        *(element("p", said, class_="note") for said in _by_chance(e)),
        element(
            "p",
            f"Errors are in units of {own} standard deviation over the training part; the model "
            f"has so much more or less of the squared error than the method. {_explained(e)}",
            class_="note",
        ),
    )


def _explained(e: ForecastEvaluation) -> str:
    """What each of the methods in the table is."""
    names = [s.method for s in e.scores if s.method in EXPLAINED]
    said = "; ".join(f"{name} {EXPLAINED[name].format(season=e.season)}" for name in names)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _by_chance(e: ForecastEvaluation) -> list[str]:
    model = e.score("model")
    alike = [s for s in e.scores[1:] if s.mse != model.mse and not s.differs(model)]
    if not alike:
        return []
    names = ", ".join(s.method for s in alike)
    return [f"Differs from the model by no more than chance (two standard errors): {names}."]


def by_horizon(e: ForecastEvaluation, interval: float | None) -> Markup:
    """The error and the coverage at some steps of the horizon."""
    model, best = e.score("model"), figures.best_baseline(e)
    other = None if best is None else e.score(best)
    band = next((b for b in e.bands if b.observed_by_step), None)
    at = sorted({1, *(max(1, round(e.horizon * k / 4)) for k in (1, 2, 3, 4))})
    head = ["steps ahead", "squared error"]
    head += [] if other is None else [other.method, "model has"]
    head += [] if band is None else [f"held, of {100 * band.level:.3g} %"]
    rows = [(_at(k, interval), *_step(k - 1, model, other, band)) for k in at]
    worst = 1 + max(range(e.horizon), key=lambda i: model.mse_by_step[i])
    said = f"The largest error is {steps(worst, interval)} ahead." if e.horizon > 1 else ""
    return element(
        "section",
        element("h2", "Errors by distance into the future"),
        element("p", said),
        element(
            "div", table(tuple(head), rows), figures.error_by_step(e, interval), class_="figures"
        ),
    )


def _at(step: int, interval: float | None) -> str:
    return f"{step:,}" if interval is None else f"{step:,} ({duration(step * interval)})"


def _step(i: int, model: Score, other: Score | None, band: Band | None) -> list[str]:
    cells = [score(model.mse_by_step[i])]
    if other is not None:
        theirs = other.mse_by_step[i]
        cells += [score(theirs), change(model.mse_by_step[i], theirs)]
    return cells if band is None else [*cells, _percent(band.observed_by_step[i])]


def bands(e: ForecastEvaluation) -> Markup | None:
    """How often each band held, before and after calibration, and what chance explains."""
    if not e.quantiles:
        return None
    rows = [
        (
            _percent(band.level),
            _percent(band.observed),
            _percent(band.before),
            "-"
            if band.chance is None
            else f"{_percent(band.chance[0])} to {_percent(band.chance[1])}",
        )
        for band in e.bands
    ]
    head = ("band", "held", "before calibration", "chance explains")
    known = [band.windows for band in e.bands if band.windows is not None][:1]
    rule = (
        "Held: the share of the true values in the band. Chance explains: where 95 % of right "
        f"bands are on windows that are worth {known[0]:,.1f} independent ones (the middle of the "
        "binomial distribution; windows with a common row count once"
        + (", and series as independent)." if e.series else ").")
        if known
        else "Held: the share of the true values in the band."
    )
    return element(
        "section",
        element("h2", "Do the bands hold?"),
        *(element("p", said) for b in e.bands if (said := b.sentence()) is not None),
        element(
            "div",
            *(
                [element("div", table(head, rows), element("p", rule, class_="note"))]
                if rows
                else []
            ),
            figures.calibration(e),
            class_="figures",
        ),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"


def choice(found: Chosen | None) -> Markup | None:
    """Methods, weights, and the next best."""
    if found is None:
        return None
    parts = sorted(found.parts, key=lambda p: (-p.weight, p.error))
    head = ("method", "weight", "squared error, validation", "squared error, all folds")
    first, *rest = found.sentences()
    return element(
        "section",
        element("h2", "What the forecast is made of"),
        element("p", first),
        table(head, [p.cells() for p in parts], 0),
        *(element("p", sentence, class_="note") for sentence in rest),
    )


def listed(title: str, said: str, rows: Sequence[SeriesScore], kind: str) -> list[Markup]:
    """A heading, a sentence, and a table of series or columns with the largest errors."""
    head = (kind, "true values", "squared error", rows[0].best, "model has")
    body = [(*one.cells(), change(one.mse, one.best_mse)) for one in rows[:WORST]]
    most = f"The {WORST} with the largest errors of {len(rows):,}. " if len(rows) > WORST else ""
    return [
        element("h2", title),
        element("p", said),
        table(head, body),
        element(
            "p",
            f"{most}Errors are in units of the standard deviation of each {kind}.",
            class_="note",
        ),
    ]


def columns(e: ForecastEvaluation) -> Markup | None:
    """Errors of each of several targets."""
    if not e.columns:
        return None
    best, count = e.columns[0].best, len(e.columns)
    better = sum(one.mse < one.best_mse for one in e.columns)
    worse = sum(one.mse > one.best_mse for one in e.columns)
    said = (
        f"On {better:,} of {count:,} columns the model is better than {best}, on {worse:,} worse."
    )
    return element("section", *listed("Errors by column", said, e.columns, "column"))


def residuals(e: ForecastEvaluation) -> Markup | None:
    """What is left in the errors one step ahead."""
    if not e.residuals:
        return None
    shown = sorted(e.residuals, key=lambda r: -abs(r.values[r.largest - 1]))[: figures.MOST]
    return element(
        "section",
        element("h2", "What is left in the errors"),
        *(element("p", one.sentence()) for one in shown),
        element(
            "p",
            "Autocorrelation of the errors one step ahead: whether an error tells something of the "
            "next ones. Errors of a forecast that uses all there is are white noise, of which 95 % "
            "of the lags are within the bound.",
            class_="note",
        ),
        element("div", *(figures.residuals(one) for one in shown), class_="figures"),
    )
