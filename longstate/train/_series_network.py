"""Make the network of an estimator of whole series, for its training cases."""

import numpy as np
import torch

from longstate.layers._base import Layer
from longstate.models import make_layer
from longstate.models._filter_bank import stride_of
from longstate.models._layer_names import options_to_train
from longstate.models._series import SeriesModel
from longstate.train._cases import Cases, spread
from longstate.train._time_layers import no_time

D_STATE = 64
_SCALED = 100  # cases for the scale of a filter bank
_BURSTS = 4  # time of a series over that of its samples, above which it is not read in frames


def make_network(
    cases: Cases, outputs: int, layers: tuple[str, ...], d_model: int, seed: int
) -> SeriesModel:
    """The network before training: its weights are drawn, and its scales are those of the cases.

    Args:
        cases: for training.
        outputs: of the network.
        layers: name of the layer of each block.
        d_model: channels between the blocks.
        seed: of all weights.

    Raises:
        InputError: the cases have stamps, and a layer cannot read them.
    """
    values, dt = cases.split()
    stride = stride_of(cases.lengths)
    if dt is not None and stride > 1:
        last = cases.lengths[:, None] - 1
        times = dt.cumsum(1).gather(1, last)[:, 0]
        if float((times / cases.lengths).median()) > _BURSTS:
            stride = 1  # most frames would be without a sample
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mixers = _mixers(layers, d_model, values.shape[1] // stride)
        network = SeriesModel(values.shape[2], outputs, mixers, stride=stride, time=cases.time)
    if dt is not None and stride == 1 and not network.takes_time:
        raise no_time(layers)
    network.scale.set(*spread(cases))
    if network.bank is not None:
        random = np.random.default_rng([seed, 23])
        n = len(cases.lengths)
        part = cases.take(torch.from_numpy(random.permutation(n)[:_SCALED]))
        values, dt = part.split()
        network.bank.fit(network.scaled(values), part.lengths, dt)
    return network


def _mixers(layers: tuple[str, ...], d_model: int, longest: int) -> list[Layer]:
    """The layers. Their slowest time scale grows with the series."""
    wanted = {"d_state": D_STATE, "dt_min": min(1e-3, 2 / longest)}
    return [make_layer(name, d_model, **options_to_train(name, **wanted)) for name in layers]
