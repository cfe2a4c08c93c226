"""The file of a `Classifier` or a `Regressor`: weights, and a description that is checked."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor, nn

from longstate._facts import read
from longstate.errors import InputError, expect
from longstate.models._convolutions import ConvolutionRidge
from longstate.models._saving import build, check_blocks, describe_layers, layer_maker
from longstate.models._series import SeriesModel
from longstate.models._time_channel import TimeChannel
from longstate.train import _checkpoint as checkpoint
from longstate.train._checkpoint import MODEL
from longstate.train._fusion import Fusion
from longstate.train._history import TrainingHistory
from longstate.train._series_source import Source

if TYPE_CHECKING:
    from longstate.train._series_estimator import SeriesEstimator

Kind = TypeVar("Kind", bound="SeriesEstimator")
_MOST = 10**9  # channels, outputs, samples, filters


@dataclass(frozen=True)
class SeriesRecord:
    """The description in the file.

    Args:
        parameters: of the constructor.
        channels, outputs: of the network. columns: of the table that was fitted, if it was one.
        time: the channel with the stamps beside these channels, if there is one.
        length: of the longest series. stride: samples of a frame of the network.
        made: its layers, from `describe_layer`.
        filters: dilations and biases of the convolutions; None without them. splits: of their
            filters into groups; 0 without groups, as in older files.
        fusion, history, environment: of the training.
        source: of files.
        flags: whether the convolutions read flags of gaps, as in older files.
        classes, classes_type: of a classifier.
        mean, std: of a regressor's numbers.

    Raises:
        InputError: a value is out of its range.
    """

    parameters: dict[str, Any]
    channels: int
    columns: int | None
    length: int
    outputs: int
    made: list[dict[str, Any]]
    filters: tuple[int, int] | None
    fusion: Fusion
    history: TrainingHistory
    environment: dict[str, str]
    source: Source = field(default_factory=Source)
    stride: int = 1
    splits: int = 0
    flags: bool = False
    time: TimeChannel | None = None
    classes: list[Any] = field(default_factory=list)
    classes_type: str = "<i8"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        for name in ("channels", "outputs", "length", "stride"):
            value = getattr(self, name)
            expect(1 <= value <= _MOST, f"{name} must be from 1 to {_MOST:,}; got {value}")
        good = self.time is None or self.time.channel <= self.channels
        expect(good, f"time.channel must be at most {self.channels}; got {self.time}")
        good = self.filters is None or all(1 <= f <= _MOST for f in self.filters)
        expect(good, f"filters must be from 1 to {_MOST:,}; got {self.filters}")
        expect(0 <= self.splits <= _MOST, f"splits must be up to {_MOST:,}; got {self.splits}")
        expect(len(self.history.looks) > 0, "history must hold at least one look")
        expect(self.filters is not None or self.fusion.share == 1, "share must be 1")
        kind = re.fullmatch(r"[<>|=]?([biu]\d|U\d{1,5}|f[48]|O)", self.classes_type)
        expect(kind is not None, f"classes_type is not one of classes: {self.classes_type!r}")

    def class_array(self) -> np.ndarray:
        """The classes of a classifier.

        Raises:
            InputError: they are not as many as the outputs, or not different.
        """
        try:
            found = np.array(self.classes, dtype=self.classes_type)
            different = len(np.unique(found)) == len(found) == self.outputs
        except (TypeError, ValueError, OverflowError):
            different = False
        expect(different, f"classes must be {self.outputs} different ones")
        return found


def save_series(
    estimator: "SeriesEstimator", path: str | Path, kind: str, more: dict[str, Any]
) -> None:
    """Write a fitted estimator.

    Raises:
        InputError: the file cannot be written, or a layer cannot be described.
    """
    network, convolutions = estimator.network_, estimator.convolutions_
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    filters, splits = None, 0
    if convolutions is not None:
        tensors |= {f"convolutions.{k}": v for k, v in convolutions.state_dict().items()}
        filters = [convolutions.dilations, convolutions.bias.shape[2]]
        splits = convolutions.splits
    facts = {
        "parameters": _plain(estimator.get_params()),
        "channels": network.scale.mean.shape[0],
        "columns": estimator.columns_,
        "length": estimator.length_,
        "stride": network.stride,
        "outputs": network.head.out_features,
        "made": describe_layers(network.backbone),
        "filters": filters,
        "splits": splits,
        "fusion": dataclasses.asdict(estimator.fusion_),
        "history": dataclasses.asdict(estimator.history_),
        "environment": estimator.environment_,
        "source": dataclasses.asdict(estimator.source),
        "time": None if network.time is None else dataclasses.asdict(network.time),
        **more,
    }
    checkpoint.save(Path(path), kind, tensors, facts)


def load_series(cls: type[Kind], path: str | Path, kind: str) -> tuple[Kind, SeriesRecord]:
    """Read a file of `save_series`, or the folder that holds it.

    Raises:
        InputError: the file is of another kind, or damaged.
    """
    path = Path(path)
    path = path / MODEL if path.is_dir() else path
    tensors, raw = checkpoint.load(path, kind)
    record = read(SeriesRecord, raw, f"the description in {path}")
    if record.flags:
        raise InputError(
            f"{path} was trained on series with gaps by an older version, which read them in "
            "another way; train it again"
        )
    unknown = sorted(record.parameters.keys() - set(cls._names()))
    if unknown:
        raise InputError(f"the description in {path} has an unknown parameter {unknown[0]!r}")
    makers = [layer_maker(x, f"{path}: made[{i}]") for i, x in enumerate(record.made)]
    check_blocks(len(makers), tensors, path)
    whole = build(lambda: _both(record, [make() for make in makers]), tensors, path)
    self = cls(**record.parameters)
    self.network_ = whole["network"]  # type: ignore[assignment]
    self.convolutions_ = whole["convolutions"] if record.filters else None  # type: ignore[assignment]
    self.fusion_, self.history_ = record.fusion, record.history
    self.environment_, self.source = record.environment, record.source
    self.n_channels_ = record.channels + (record.time is not None)
    self.columns_ = record.columns
    self.length_ = record.length
    return self, record


def _both(record: SeriesRecord, mixers: list[Any]) -> nn.ModuleDict:
    network = SeriesModel(
        record.channels, record.outputs, mixers, stride=record.stride, time=record.time
    )
    parts: dict[str, nn.Module] = {"network": network}
    if record.filters is not None:
        parts["convolutions"] = ConvolutionRidge(
            record.channels, record.outputs, *record.filters, record.splits
        )
    return nn.ModuleDict(parts)


def _plain(value: Any) -> Any:
    """A value that JSON can hold: NumPy's numbers become Python's."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic | Tensor):
        return value.item()
    return value
