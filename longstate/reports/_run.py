"""Make the report of a trained forecaster."""

import dataclasses

from longstate._environment import environment
from longstate.models._calendar import seconds
from longstate.reports._forecast import ForecastReport
from longstate.reports._forecast_memory import linear_systems
from longstate.train import Forecaster, ForecastEvaluation


def describe(forecaster: Forecaster, evaluation: ForecastEvaluation, name: str) -> ForecastReport:
    """The report of a trained forecaster.

    Args:
        forecaster: after `fit` or `load`.
        evaluation: on rows that were not used for training.
        name: title of the report, for example its folder.
    """
    spec = forecaster.model.spec
    return ForecastReport(
        evaluation,
        name=name,
        history=forecaster.history,
        systems=linear_systems(forecaster.model.backbone),
        interval=None if spec.calendar is None else seconds(spec.calendar),
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
    )
