"""Make the report of a trained forecaster."""

import dataclasses

from longstate._environment import environment
from longstate.models._calendar import seconds
from longstate.reports._forecast import ForecastReport
from longstate.reports._forecast_advice import Setting
from longstate.reports._forecast_memory import linear_systems, selective_layers
from longstate.train import Forecaster, ForecastEvaluation
from longstate.train._ahead import forecast_ahead
from longstate.train._frame import Data
from longstate.train._tune import SEARCHED


def describe(
    forecaster: Forecaster,
    evaluation: ForecastEvaluation,
    name: str,
    *,
    now: Data | None = None,
    files: tuple[str, str, str] = ("RUN", "DATA", "DATA"),
) -> ForecastReport:
    """The report of a trained forecaster.

    Args:
        forecaster: after `fit` or `load`.
        evaluation: on rows that were not used for training.
        name: title of the report, for example its folder.
        now: rows to forecast from, as for `predict`; None leaves the forecast out.
        files: the folder of the run, the file of its training, and that of `now`, for the commands
            in the advice.
    """
    spec = forecaster.model.spec
    interval = None if spec.calendar is None else seconds(spec.calendar)
    drawn = [one.series for one in evaluation.drawn]
    return ForecastReport(
        evaluation,
        name=name,
        history=forecaster.history,
        systems=linear_systems(forecaster.model.backbone),
        interval=interval,
        configuration={
            "target": spec.targets,
            "covariates": spec.covariates,
            "known in advance": (*spec.known, *(f"{cycle} cycle" for cycle in spec.cycles)),
            "time": spec.times,
            "window, horizon, season": (spec.window, spec.horizon, spec.season),
            "quantiles": spec.quantiles,
            "layers": forecaster.layers,
            **{k.replace("_", " "): v for k, v in dataclasses.asdict(forecaster.size).items()},
            **{k.replace("_", " "): v for k, v in dataclasses.asdict(forecaster.training).items()},
            "seed": forecaster.seed,
        },
        environment=environment(),
        notes=tuple(forecaster.facts["notes"]),
        choice=forecaster.choice,
        ahead=None if now is None else forecast_ahead(forecaster, now, drawn),
        setting=Setting(
            *files,
            covariates=spec.covariates,
            known=spec.known,
            epochs=forecaster.training.epochs,
            tuned=any(note.startswith(SEARCHED) for note in forecaster.facts["notes"]),
            series=len(spec.series),
            interval=interval,
            selective=selective_layers(forecaster.model.backbone),
        ),
    )
