"""Linear layers: what the report says of them, attacked on the layers themselves."""

import math

import pytest
import torch

from longstate import load, reduce, save
from longstate.errors import InputError
from longstate.layers import DSS, S4, S4D, S5, LinOSS
from longstate.memory import certify, widened
from longstate.testing import check_layer

LAYERS = {
    "s4": lambda: S4(3, d_state=8),
    "s4-both-ways": lambda: S4(2, d_state=8, init="legt", bidirectional=True, dt_min=1e-2),
    "s4d": lambda: S4D(4, d_state=12),
    "s4d-bilinear": lambda: S4D(3, d_state=12, init="inv", variant="bilinear"),
    "s4d-both-ways": lambda: S4D(3, d_state=12, bidirectional=True),
    "s4d-signed": lambda: S4D(3, d_state=6, init="signed"),
    "s4d-real": lambda: S4D(3, d_state=6, init="real"),
    "dss": lambda: DSS(3, d_state=12),
    "s5": lambda: S5(4, d_state=16, n_blocks=2),
    "s5-bilinear": lambda: S5(3, d_state=16, variant="bilinear"),
    "s5-both-ways": lambda: S5(3, d_state=16, bidirectional=True),
    "linoss": lambda: LinOSS(4, d_state=8),
}


def made(name):
    torch.manual_seed(3)
    return LAYERS[name]()


def responses(layer, lags):
    """Outputs (t, o, i) to an impulse in each channel, at half of the time, in float64."""
    wide, d = widened(layer), layer.d_model
    u = torch.zeros(d, lags, d, dtype=torch.float64)
    u[torch.arange(d), lags // 2, torch.arange(d)] = 1
    with torch.no_grad():
        return wide(u)[0].permute(1, 2, 0)


def ended(response):
    """Whether nothing is left of it at both ends."""
    ends = torch.cat([response[:64], response[-64:]]).abs().max()
    return bool(ends < 1e-9 * response.abs().max())


def peak(response):
    """The largest gain (2-norm) of a response over all frequencies: the highest points of its
    transform, each looked at closer and closer."""
    spectrum = torch.fft.rfft(response, dim=0)
    gains, best = torch.linalg.matrix_norm(spectrum, 2), 0.0
    time = torch.arange(len(response), dtype=torch.float64)
    for place in gains.topk(4).indices.tolist():
        width = 2 * math.pi / len(response)
        middle = width * place
        for _ in range(6):
            at = torch.linspace(middle - width, middle + width, 21, dtype=torch.float64)
            waves = torch.exp(-1j * at[:, None] * time)
            closer = (waves @ response.flatten(1).to(waves.dtype)).unflatten(1, response.shape[1:])
            found = torch.linalg.matrix_norm(closer, 2)
            middle, width = float(at[found.argmax()]), width / 8
            best = max(best, float(found.max()))
    return best


def true_share(layer, small):
    """The gain of the difference as a share of the gain, found by search alone."""
    for lags in (1 << 12, 1 << 14, 1 << 16, 1 << 18):
        one, two = responses(layer, lags), responses(small, lags)
        if ended(one) and ended(two):
            return peak(one - two) / peak(one)
    raise AssertionError("the response does not end")


@pytest.mark.parametrize("name", LAYERS)
def test_no_input_exceeds_the_reported_error(name):
    layer = made(name)
    small, report = reduce(layer, keep=0.5)
    (row,) = report.layers
    assert type(small) is type(layer)
    assert row.after <= row.before / 2
    seen = true_share(layer, small)
    assert row.measured_kind == "certified"
    assert row.least <= seen <= row.measured
    if row.predicted is not None:
        assert row.kind == "upper_bound"
        assert seen <= row.predicted


def test_the_attack_finds_a_false_bound():
    """A layer whose output weights are a little off has a larger error than was certified."""
    layer = made("s4d")
    small, report = reduce(layer, keep=0.5)
    with torch.no_grad():
        small.C *= 1.5
    assert true_share(layer, small) > report.layers[0].measured


@pytest.mark.parametrize("name", LAYERS)
def test_a_reduced_layer_keeps_the_layer_contract(name):
    small = reduce(made(name), keep=0.5).model
    if not getattr(small, "bidirectional", False):
        takes_dt = not isinstance(small, S4) and getattr(small, "sign", None) is None
        check_layer(lambda: small.to(torch.float32), takes_dt=takes_dt, compiles=False)


@pytest.mark.parametrize("name", ["s4", "s4d-real", "dss", "s5", "linoss"])
def test_it_is_saved_certified_and_reduced_again(name, tmp_path):
    small = reduce(made(name), keep=0.5).model
    save(small, tmp_path / "layer.safetensors")
    again = load(tmp_path / "layer.safetensors")
    u = torch.randn(2, 30, small.d_model)
    torch.testing.assert_close(again(u)[0], small(u)[0], rtol=0, atol=0)
    assert certify(small).passed
    smaller = reduce(small, keep=0.5)
    assert smaller.report.layers[0].after < small.d_state


def test_the_given_layer_is_not_changed():
    layer = made("s4d")
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    reduce(layer, keep=0.5)
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_refinement_is_used_only_where_it_reduces_the_error():
    layer = S4D(4, d_state=16, init="inv")
    plain, better = (
        reduce(layer, keep=0.5, method=m).report.layers[0] for m in ("balanced", "auto")
    )
    assert "refined" in better.method
    assert better.measured < plain.measured


@pytest.mark.parametrize("method", ["last", "aire", "magnitude", "random"])
def test_scores_keep_whole_modes(method):
    layer = made("s4d")
    small, report = reduce(layer, keep=0.5, method=method)
    every, kept = (widened(v).system().A for v in (layer, small))
    distance = (every[:, :, None] - kept[:, None]).abs().amin(1)
    assert float(distance.max()) < 1e-5  # float32 parameters
    seen = true_share(layer, small)
    assert seen <= report.layers[0].predicted


def test_the_scores_are_the_published_ones():
    from longstate.compress._scores import scores

    torch.manual_seed(0)
    with torch.no_grad():
        s = S4D(1, d_state=4).double().system()
    s = type(s)(*(v.detach() for v in (s.A, s.B, s.C, s.D)), conjugate=True, discrete=True)
    for n in range(2):
        a, b, c = (complex(v.flatten()[n]) for v in (s.A, s.B, s.C))
        weight = abs(c) ** 2 * abs(b) ** 2
        assert float(scores(s, "last")[0, n]) == pytest.approx(weight / (1 - abs(a)) ** 2)
        assert float(scores(s, "aire")[0, n]) == pytest.approx(weight / (1 - abs(a) ** 2))


def test_errors_stay_below_tol_and_full_layers_are_reported():
    layer = S4D(3, d_state=16, init="inv")
    small, report = reduce(layer, tol=0.2)
    assert report.layers[0].measured <= 0.2
    assert small.d_state < 16
    full = reduce(layer, tol=1e-7).report
    assert full.layers[0].full
    assert full.layers[0].after == 16
    assert "Layers that need all of their states" in full.sentence


def test_a_layer_without_decay_is_left_and_the_reason_is_reported():
    with pytest.raises(InputError, match="variant='im'"):
        reduce(LinOSS(3, d_state=4, variant="imex"), keep=0.5)
    with pytest.raises(InputError, match="S4 has no modes to score"):
        reduce(made("s4"), keep=0.5, method="last")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of keep, tol and budget; got none"),
        ({"keep": 0.5, "tol": 0.1}, "got keep and tol"),
        ({"keep": 0.0}, "keep must be a share"),
        ({"keep": 0.5, "method": "gost"}, "no method 'gost'; did you mean 'ghost'"),
        ({"budget": 3}, "budget=3 bytes is too small"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        reduce(made("s4d"), **options)
