"""What a fitted forecaster is, as rows of tables and as plain text."""

import dataclasses
from typing import TYPE_CHECKING, Any

import pandas as pd

from longstate._numbers import score
from longstate.train._evaluation import ForecastEvaluation

if TYPE_CHECKING:
    from longstate.train._forecast_stored import StoredForecaster

CHOICE_HEAD = ("method", "weight", "MSE on validation", "on all folds")
SCORE_HEAD = ("method", "MSE", "MAE", "CRPS", "MASE", "sMAPE")


def described(forecaster: "StoredForecaster") -> dict[str, str]:
    """Name -> text of what it forecasts, how, and what it was trained on."""
    spec, facts, history = forecaster.model.spec, forecaster.facts, forecaster.history
    trained = sum(p.numel() for p in forecaster.model.parameters())
    return {
        "targets": ", ".join(spec.targets),
        "covariates": ", ".join(spec.covariates) or "none",
        "known in advance": ", ".join((*spec.known, *spec.cycles)) or "none",
        **({} if spec.id is None else {"series": f"{len(spec.series):,}, named by {spec.id}"}),
        **({"static": ", ".join(spec.static)} if spec.static else {}),
        **({"text": ", ".join(c.column for c in spec.categories)} if spec.categories else {}),
        "time": spec.times,
        "window, horizon, season": f"{spec.window}, {spec.horizon}, {spec.season} rows",
        "quantiles": ", ".join(f"{q:g}" for q in spec.quantiles) or "none",
        "layers": ", ".join(forecaster.layers),
        **settings(forecaster.size),
        "parameters": f"{trained:,} trained, {forecaster.model.line.weight.numel():,} solved for",
        **settings(forecaster.training),
        "seed": str(forecaster.seed),
        "ended": f"{history.ended}, best at step {history.best_step}, {history.seconds:.0f} s",
        "has seen": f"{facts['seen_rows']} rows" + _until(facts["seen_until"]),
        **{f"made with {k}": v for k, v in facts["environment"].items()},
    }


def settings(values: Any) -> dict[str, str]:
    """Name and value of the fields of a settings class that are set."""
    shown = dataclasses.asdict(values)
    return {name: f"{value}" for name, value in shown.items() if value not in (None, (), {})}


def _until(time: str | None) -> str:
    return "" if time is None else f", up to {time.replace('T', ' ')}"


def score_cells(evaluation: ForecastEvaluation) -> list[list[str]]:
    """The cells under `SCORE_HEAD`."""
    return [
        [
            s.method,
            *("-" if x is None else score(x) for x in (s.mse, s.mae, s.crps, s.mase, s.smape)),
        ]
        for s in evaluation.scores
    ]


def summary(forecaster: "StoredForecaster", evaluation: ForecastEvaluation | None) -> str:
    """See `StoredForecaster.summary`."""
    facts = described(forecaster)
    left_out = {*settings(forecaster.size), *settings(forecaster.training), "parameters"}
    names = [n for n in facts if n not in left_out and not n.startswith("made with")]
    width = max(map(len, names))
    lines = ["Forecaster", *(f"  {name:<{width}}  {facts[name]}" for name in names)]
    choice = forecaster.choice
    if choice is not None:
        lines += ["", "What the forecast is made of"]
        lines += [*_table(CHOICE_HEAD, [p.cells() for p in choice.parts]), *choice.sentences()]
    if evaluation is None:
        lines += ["", "Errors on rows that were not used for training: summary(frame)."]
    else:
        e = evaluation
        lines += ["", f"{e.windows} unseen windows, {e.first} to {e.last}"]
        lines += [*_table(SCORE_HEAD, score_cells(e)), *(band.words() for band in e.bands)]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[Any]) -> list[str]:
    """Lines of a table with the first column to the left and the others to the right."""
    frame = pd.DataFrame([head, *rows])
    widths = frame.map(len).max().tolist()
    return [
        "  " + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]  # fmt: skip
