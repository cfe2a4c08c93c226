"""What `Classifier` and `Regressor` share: the training, and outcomes with what is fitted.

Axes: n cases, t time, c channels, k outputs.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from longstate._environment import environment
from longstate.errors import InputError
from longstate.models._convolutions import ConvolutionRidge
from longstate.models._series import SeriesModel
from longstate.models._time_channel import TimeChannel
from longstate.train import _ranks as ranks
from longstate.train._cases import Cases, between, columns_of, read_cases, split
from longstate.train._checkpoint import CHECKPOINT, MODEL, run_folder
from longstate.train._convolution_fit import choose_filters, fit_convolutions, make_convolutions
from longstate.train._estimator import Estimator
from longstate.train._fusion import Fusion
from longstate.train._history import TrainingHistory
from longstate.train._loop import Keeping, Progress, train
from longstate.train._patterns import layer_names
from longstate.train._series_network import make_network
from longstate.train._series_source import Source
from longstate.train._series_task import Loss, SeriesTask, outputs_along
from longstate.train._settings import Execution, Training, check_sizes, execution_of
from longstate.train._warping import check_warp

VALIDATION = 0.2
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.05
PATIENCE = 15
_BATCHES = 8  # of an epoch, at least
_MOST = 32  # cases of a batch


class Goal(NamedTuple):
    """What is to be learned.

    targets (n): class numbers, or scaled numbers. ridge_targets (n, k). weights (n).
    labels: classes for the split; None for numbers. loss: of the network. warp: see `_warping`.
    """

    targets: Tensor
    ridge_targets: Tensor
    weights: Tensor
    labels: Sequence[int] | None
    loss: Loss
    warp: float


class Validated(NamedTuple):
    """The validation cases, for calibration. places (m). left_out (n, k): scores of ridge for
    all cases, each without itself; None without convolutions."""

    cases: Cases
    places: Tensor
    left_out: Tensor | None


Kind = TypeVar("Kind", bound="SeriesEstimator")


class SeriesEstimator(Estimator):
    """Base of `Classifier` and `Regressor`. Subclasses set the parameters."""

    layers: str | Sequence[str]
    d_model: int
    n_layers: int
    epochs: int
    minutes: float | None
    convolutions: bool
    seed: int
    network_: SeriesModel
    convolutions_: ConvolutionRidge | None
    fusion_: Fusion
    history_: TrainingHistory
    n_channels_: int
    columns_: int | None
    length_: int
    environment_: dict[str, str]
    source: Source = Source()

    def save(self, path: str | Path) -> None:
        """Write the estimator to one safetensors file; `longstate.load` reads it."""
        raise NotImplementedError

    def with_network(self: Kind, network: SeriesModel) -> Kind:
        """A copy with another network of the same channels and outputs. Calibration and shares stay
        those of this estimator."""
        new = copy.copy(self)
        new.network_ = network
        return new

    def inputs(self, X: Any) -> list[Tensor]:
        """Series as input of `network_`: a tensor (b, t, c) for each length."""
        cases = self._read(X)
        found = [cases.take((cases.lengths == t).nonzero()[:, 0]) for t in cases.lengths.unique()]
        return [part.values for part in found]  # in float64, as `predict` reads them

    def _fuse(self, validated: Validated, goal: Goal) -> Fusion:
        """How network and convolutions make the outcome, from validation cases."""
        raise NotImplementedError

    def _fit(
        self,
        cases: Cases,
        goal: Goal,
        execution: Execution,
        out: str | Path | None,
        show: Callable[[Progress], None] | None,
    ) -> None:
        """Fit everything, and write the run's folder. Of several ranks the first writes."""
        with run_folder(out):
            validated = self._train(cases, goal, execution, out, show)
            self.fusion_ = self._fuse(validated, goal)
            if out is not None and ranks.rank() == 0:
                self.save(Path(out) / MODEL)

    def _train(
        self,
        cases: Cases,
        goal: Goal,
        execution: Execution,
        out: str | Path | None,
        show: Callable[[Progress], None] | None,
    ) -> Validated:
        """Fit network and convolutions; sets all fitted attributes but `fusion_`."""
        self._check_parameters()
        check_warp(goal.warp, cases)
        n, t, c = cases.values.shape
        training, held = split(goal.labels, n, VALIDATION, self.seed)
        validation = held if len(held) else training
        names = layer_names(self.layers, self.n_layers)
        outputs = goal.ridge_targets.shape[1]
        self.network_ = make_network(cases, outputs, names, self.d_model, self.seed)
        left_out = self._fit_convolutions(cases, goal)
        self.n_channels_, self.length_ = c, t
        size = max(2, min(_MOST, len(training) // _BATCHES))
        task = SeriesTask(
            self.network_,
            cases.take(training),
            cases.take(validation),
            (goal.targets[training], goal.targets[validation]),
            (goal.weights[training], goal.weights[validation]),
            goal.loss,
            batch_size=size,
            warp=goal.warp,
            seed=self.seed,
        )
        settings = Training(
            epochs=self.epochs,
            minutes=self.minutes,
            batch_size=size,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            patience=PATIENCE,
            **execution_of(execution),
        )
        keeping = Keeping()
        if out is not None:
            identity = self._identity(cases, goal, execution)
            keeping = Keeping(Path(out) / CHECKPOINT, identity)
        self.history_ = train(task, settings, seed=self.seed, keeping=keeping, show=show)
        self.network_.eval()
        self.environment_ = environment()
        return Validated(cases.take(validation), held, left_out)

    def _check_parameters(self) -> None:
        check_sizes(
            d_model=self.d_model, n_layers=self.n_layers, epochs=self.epochs, seed=self.seed
        )
        layer_names(self.layers, self.n_layers)
        Training(minutes=self.minutes)

    def _fit_convolutions(self, cases: Cases, goal: Goal) -> Tensor | None:
        """Fit on all cases. Returns the scores of each by a fit to all others."""
        self.convolutions_ = None
        if not self.convolutions:
            return None
        x = self._scaled(cases)
        outputs = goal.ridge_targets.shape[1]
        model, dilations = make_convolutions(x.shape[1], outputs, cases.lengths)
        choose_filters(model, dilations, x, cases.lengths, self.seed)
        found = fit_convolutions(model, x, cases.lengths, goal.ridge_targets, goal.weights)
        self.convolutions_ = model
        return found.left_out

    def _scaled(self, cases: Cases) -> Tensor:
        """Series for the convolutions, (n, c, t), which read no stamps, and lines in gaps; 0 after
        their ends."""
        z = between(self.network_.scale(cases.split()[0]))
        within = torch.arange(z.shape[1]) < cases.lengths[:, None]
        return (z * within[..., None]).transpose(1, 2).contiguous()

    def _ridge_scores(self, cases: Cases, rate: float = 1.0) -> Tensor | None:
        """Scores of ridge; None without convolutions, or at another rate than the trained one:
        dilations and biases are bound to it."""
        if self.convolutions_ is None or rate != 1:
            return None
        return self.convolutions_(self._scaled(cases), cases.lengths)

    def _early(self, cases: Cases, seen: float, rate: float) -> Tensor:
        """Outputs (n, k) of the network after a share of each series.

        Raises:
            InputError: it is no share, or the network cannot run at this rate.
        """
        if not 0 < seen <= 1:
            raise InputError(f"seen must be above 0 and at most 1; got {seen!r}")
        self.network_.check_rate(rate)
        return outputs_along(self.network_, cases.seen(seen), rate=rate)[0]

    def _share(self, rate: float) -> float:
        """Share of the network in the outcome for whole series. Warns where the rate changes it.

        Raises:
            InputError: the network cannot run at this rate.
        """
        remark = self.remark(rate)
        if remark is not None:
            warnings.warn(remark, stacklevel=4)
        return self.fusion_.share if rate == 1 else 1.0

    def remark(self, rate: float) -> str | None:
        """A sentence on an outcome that is made in another way at this rate; None if it is not.

        Raises:
            InputError: the network cannot run at this rate.
        """
        self._check_fitted()
        self.network_.check_rate(rate)
        found = self.fusion_
        if rate == 1 or found.share == 1:
            return None
        sentence = (
            f"at rate={rate:g} the network decides alone: random convolutions, which have a share "
            f"of {1 - found.share:g} in the outcome, are bound to the sampling interval of the "
            "training"
        )
        if found.network is None or found.both is None:
            return sentence + "; the network by itself was not validated"
        figures = f"{found.network:.3f} alone and {found.both:.3f} together"
        return f"{sentence}. At that interval the score on validation cases was {figures}"

    def _identity(self, cases: Cases, goal: Goal, execution: Execution) -> dict[str, Any]:
        """Data and settings of a run; another training may not continue it."""
        own = {name.replace("_", " "): str(value) for name, value in self.get_params().items()}
        own["dtype"] = execution.dtype
        if goal.warp > 0:
            own["warp"] = str(goal.warp)
        if cases.time is not None:
            own["time channel"] = str(cases.time.channel)
        shape = "x".join(map(str, cases.values.shape))
        total = float(cases.values.nan_to_num().sum()), float(goal.targets.double().sum())
        return {**own, "data": f"{shape}, sums {total[0]:.9g} and {total[1]:.9g}"}

    def _read(self, X: Any, rate: float = 1.0) -> Cases:
        self._check_fitted()
        columns = columns_of(X)
        same = rate != 1 or None in (columns, self.columns_) or columns == self.columns_
        if not same:
            raise InputError(
                f"X has {columns} features, but {type(self).__name__} is expecting {self.columns_} "
                "features as input: a table (cases, time) must be as wide as that of the fit; give "
                "series of another length as a list or as (cases, 1, time)"
            )
        return read_cases(X, self.n_channels_, time=self.time_)

    @property
    def time_(self) -> TimeChannel | None:
        """The channel of X with the stamps, and their usual interval; None without stamps."""
        return self.network_.time

    @property
    def n_features_in_(self) -> int:
        """Columns of the table that was fitted, or channels of series in another form."""
        if not self.__sklearn_is_fitted__():
            raise AttributeError("n_features_in_ is known after fit")
        return self.n_channels_ if self.columns_ is None else self.columns_
