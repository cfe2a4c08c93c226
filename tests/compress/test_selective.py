"""Selective layers: static errors are what running the smaller layer shows, to rounding."""

import pytest
import torch

from longstate import load, reduce, save
from longstate.compress._observed import collect
from longstate.errors import InputError
from longstate.layers import FalconMamba, Longhorn, Mamba, Mamba2, Mamba3
from longstate.memory import _readout, certify, record, widened
from longstate.memory._readout import (
    balanced,
    greedy,
    left_out,
    projected_error,
    readout,
    samples,
    stretches,
)
from longstate.testing import check_layer

LAYERS = {
    "mamba": lambda: Mamba(6, d_state=6),
    "falcon": lambda: FalconMamba(6, d_state=6),
    "longhorn": lambda: Longhorn(6, d_state=6),
    "mamba2": lambda: Mamba2(8, d_state=8, d_head=4),
    "mamba2-groups": lambda: Mamba2(8, d_state=7, d_head=4, n_groups=2),
    "mamba3": lambda: Mamba3(8, d_state=8, d_head=4, n_groups=2),
}
U = torch.randn(3, 37, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def made(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    return layer, U[..., : layer.d_model]


def error(layer, small, u):
    """Of the recurrence, as a share: by running both."""
    with torch.no_grad():
        y, z = layer.trace(u).outputs(), small.trace(u).outputs()
    return float((y - z).norm() / y.norm())


@pytest.mark.parametrize("method", ["auto", "energy", "ghost", "magnitude", "random"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_measured_error_is_the_predicted_one(name, method):
    layer, u = made(name)
    small, report = reduce(layer, u, keep=0.5, method=method)
    (row,) = report.layers
    assert row.kind == row.measured_kind == "exact"
    found = error(layer, small, u)
    assert row.predicted == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert row.measured == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert found > 1e-6


@pytest.mark.parametrize("name", LAYERS)
def test_keeping_every_column_has_no_error(name):
    layer, u = made(name)
    n = layer.d_state
    if hasattr(layer, "with_projection"):
        g = torch.Generator().manual_seed(2)
        groups = layer.n_heads if isinstance(layer, Mamba3) else layer.n_groups
        W = torch.randn(groups, n, n, generator=g, dtype=torch.float64)
        small = layer.with_projection(W, torch.linalg.inv(W).mT)
    else:
        small = layer.with_states(range(n))
    torch.testing.assert_close(small(u)[0], layer(u)[0])


def test_a_projection_is_not_exact_if_entries_decay_differently():
    """What it rests on: with different decays a projection's error is not static."""
    layer, u = made("mamba")
    trace = layer.trace(u).double()  # without gradients
    sums = readout(trace)
    W, V, _ = balanced(sums.reach, sums.observe, 3)
    lost, _ = projected_error(trace, W, V)
    h, kept = trace.states(), []
    drive = (trace.gain * trace.x)[..., None] * trace.write
    state = torch.zeros(*drive.shape[:1], drive.shape[2], 3, dtype=torch.float64)
    for t in range(u.shape[1]):
        mean = trace.decay[:, t].mean(-1, keepdim=True)
        state = mean * state + drive[:, t] @ W[0]
        kept.append(((trace.read[:, t] @ V[0]) * state).sum(-1))
    run = (torch.stack(kept, 1) - (trace.read * h).sum(-1)).square().sum()
    assert abs(float(run) - float(lost)) > 1e-3 * float(lost)


def test_longhorns_exact_update_couples_columns():
    torch.manual_seed(0)
    layer = Longhorn(6, d_state=6, variant="exact").double()
    small, report = reduce(layer, U[..., :6], keep=0.5)
    (row,) = report.layers
    assert row.kind == "estimate"
    assert "coupled" in row.note
    assert row.measured == pytest.approx(error(layer, small, U[..., :6]), rel=1e-9)
    assert row.predicted != pytest.approx(row.measured, rel=1e-3)


@pytest.mark.parametrize("name", [*LAYERS, "longhorn-exact"])
def test_a_reduced_layer_keeps_the_layer_contract(name):
    layer, u = (
        (Longhorn(6, d_state=6, variant="exact").double(), U[..., :6])
        if name == "longhorn-exact"
        else made(name)
    )
    small = reduce(layer, u, keep=0.5).model
    takes_dt = not isinstance(small, Longhorn)
    check_layer(lambda: small.to(torch.float32), takes_dt=takes_dt, compiles=False)


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_saved_certified_and_reduced_again(name, tmp_path):
    layer, u = made(name)
    small = reduce(layer, u, keep=0.5).model.float()  # the type of a loaded layer
    save(small, tmp_path / "layer.safetensors")
    again, small = load(tmp_path / "layer.safetensors").double(), small.double()
    torch.testing.assert_close(again(u)[0], small(u)[0], rtol=0, atol=0)
    assert certify(small, u, radius=30.0).passed
    smaller, report = reduce(small, u, keep=0.5)
    assert smaller.d_state < small.d_state
    assert report.layers[0].predicted == pytest.approx(error(small, smaller, u), rel=1e-9)


@pytest.mark.parametrize("name", ["mamba2", "mamba3"])
def test_balanced_is_better_than_columns(name):
    layer, u = made(name)
    rows = {m: reduce(layer, u, keep=0.5, method=m).report.layers[0] for m in ("auto", "ghost")}
    assert rows["auto"].measured < 0.8 * rows["ghost"].measured


def test_the_projection_is_the_best_where_states_and_readouts_are_independent():
    """Against the theorem of Eckart and Young, and against a thousand others."""
    g = torch.Generator().manual_seed(0)
    L, M = (torch.randn(1, 6, 6, generator=g, dtype=torch.float64) for _ in range(2))
    P, Q = L @ L.mT, M @ M.mT
    W, V, S = balanced(P, Q, 2)
    torch.testing.assert_close(W.mT @ V, torch.eye(2, dtype=torch.float64)[None])

    def energy(W, V):
        left = torch.eye(6, dtype=torch.float64) - W @ V.mT
        return float((left.mT @ P @ left @ Q).diagonal(dim1=-2, dim2=-1).sum())

    best = energy(W, V)
    assert best == pytest.approx(float(S[:, 2:].square().sum()), rel=1e-9)
    for _ in range(1000):
        noise = [0.05 * torch.randn(1, 6, 2, generator=g, dtype=torch.float64) for _ in range(2)]
        assert energy(W + noise[0] * W.norm(), V + noise[1] * V.norm()) >= best


def test_columns_with_the_least_added_error_are_removed_first():
    """Two columns that cancel each other: each is large, and both together are nothing."""
    values = torch.tensor([[3.0, -3, 1], [2, -2, 1], [-4, 4, 1]]).double()
    sums = (values.mT @ values)[None]
    assert sorted(greedy(sums[0])[1:]) == [0, 1]
    assert float(left_out(sums, torch.tensor([[2]]))) == pytest.approx(0)
    assert float(left_out(sums, torch.tensor([[0, 1]]))) == pytest.approx(3)


def test_sums_do_not_depend_on_the_batches(monkeypatch):
    layer, u = made("mamba3")
    whole = readout(layer.trace(u), 4)
    monkeypatch.setattr("longstate.memory._readout._ROOM", 100)
    assert len(list(stretches(layer.trace(u)))) > 5
    for a, b in zip(readout(layer.trace(u), 4), whole, strict=True):
        torch.testing.assert_close(a, b)
    rows = [reduce(layer, data, keep=0.5).report.layers[0] for data in (u, list(u.split(1)))]
    assert rows[0].measured == pytest.approx(rows[1].measured, rel=1e-9)


def test_memory_for_sums_does_not_grow_with_the_data():
    layer, u = made("mamba2")
    sizes = [sum(v.numel() for v in readout(layer.trace(v), 1)) for v in (u[:, :5], u)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", LAYERS)
def test_some_samples_of_an_input_are_those_of_the_whole(name):
    layer, u = made(name)
    layer = widened(layer)
    whole = next(samples(layer, u, 1))
    few = list(samples(layer, u, 5))
    assert len(few) == u.shape[1] // 5
    for i, one in enumerate(few):
        at = slice(5 * i + 4, 5 * i + 5)
        torch.testing.assert_close(one.outputs(), whole.outputs()[:, at])
        torch.testing.assert_close(one.gate, whole.gate[:, at])
        torch.testing.assert_close(one.read, whole.read[:, at])


@pytest.mark.parametrize("name", LAYERS)
def test_the_error_is_what_was_predicted_also_from_some_samples(name, monkeypatch):
    layer, u = made(name)
    monkeypatch.setattr(_readout, "_MOST", 1000)
    assert _readout.spacing(layer, u) == u.shape[1] // 8
    (row,) = reduce(layer, u, keep=0.5).report.layers
    assert row.predicted == pytest.approx(row.measured, rel=1e-9)
    assert (row.kind, row.measured_kind) == ("estimate", "estimate")  # for all of the data
    assert 0.2 * row.measured < error(layer, reduce(layer, u, keep=0.5).model, u)


def test_memory_for_sums_is_the_same_for_ten_batches():
    """Bytes of all that is kept of the data between batches."""
    layer, u = made("mamba2")
    sizes = []
    for batches in (1, 10):
        (sums,) = collect(layer, [u] * batches, "auto").values()
        sizes.append(sum(v.numel() * v.element_size() for v in sums))
    assert sizes[0] == sizes[1]
    twice = collect(layer, [u] * 2, "auto")[type(layer).__name__]
    assert twice.samples == 2 * u[..., 0].numel() * 16


def test_a_selective_layer_needs_data():
    with pytest.raises(InputError, match="depend on its input, so give data"):
        reduce(LAYERS["mamba"](), keep=0.5)
    with pytest.raises(InputError, match="is for linear layers"):
        reduce(made("mamba")[0], U[..., :6], keep=0.5, method="last")
    with pytest.raises(InputError, match="read more than once"):
        reduce(made("mamba")[0], (u for u in U), keep=0.5)


def test_wrong_columns_are_refused():
    with pytest.raises(ValueError, match="different ones"):
        LAYERS["mamba"]().with_states([1, 1])
    with pytest.raises(ValueError, match="d_state must be"):
        Mamba2(8, d_state=(4, 5), d_head=4)


def test_traces_of_a_smaller_layer_are_recorded():
    layer, u = made("falcon")
    small = reduce(layer, u, keep=0.5).model
    (trace,) = record(small, u).values()
    assert trace.decay.shape[-1] == 3
