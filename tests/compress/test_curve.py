"""Reports of codecs and the curve of bits against a metric."""

import json
import re

import pytest
import torch
from matplotlib.figure import Figure

from longstate.compress import fit_codec, measure_codec, park, plain_codec, rd_curve
from longstate.errors import InputError
from longstate.memory import KINDS
from tests.compress.states import language, made


def next_loss(model, state, later):
    y, _ = model(later, state)
    return torch.nn.functional.cross_entropy(y[:, :-1].flatten(0, 1), later[:, 1:].flatten())


@pytest.fixture(scope="module")
def model():
    return language()


@pytest.fixture(scope="module")
def data():
    return torch.randint(0, 11, (200, 24), generator=torch.Generator().manual_seed(0))


def test_every_point_is_measured_on_the_same_samples(model, data):
    asked = []

    def metric(model, state, later):
        asked.append(later)
        return 1.0

    found = rd_curve(model, data, metric, bits=(1300, 1500), at=12, keep=(0.5,))
    assert len(asked) == 1 + len(found.points) + len(found.plain) + len(found.smaller) == 7
    for later in asked:
        torch.testing.assert_close(later, data[100:, 12:], rtol=0, atol=0)


def test_a_report(model, data):
    codec = fit_codec(model, data, error=0.02, at=12)
    report = measure_codec(model, codec, [data[:120], data[120:]], at=12)
    with torch.no_grad():
        _, state = model(data[:, :12])
    assert report.bits == pytest.approx(8 * len(park(state, codec)) / 200, abs=2)
    assert report.bits < report.state_bits == codec.state_bits
    assert report.coded_bits < report.bits
    names = [t.tensor for t in report.tensors]
    assert names == ["state/0", "state/1/taps", "state/1/ssm"]
    for t in report.tensors:
        assert t.predicted_kind in KINDS
        if t.active is None:
            assert t.fixed == 3 * 24 * 16
            continue
        assert t.predicted == pytest.approx(0.02)
        assert 0.5 < t.measured / t.predicted < 2
        assert t.shannon < t.coded
        assert t.active <= t.numbers
    whole = json.loads(report.to_json())
    assert whole["tensors"][0]["tensor"] == "state/0"
    assert re.search(r"\d estimate", str(report))


def test_kinds_of_a_linear_layer(data):
    layer = made("s5")
    report = measure_codec(layer, fit_codec(layer, error=0.05), torch.randn(50, 300, 4), at=299)
    (line,) = report.tensors
    assert line.shannon_kind == line.predicted_kind == "exact"
    assert 0.5 < line.measured / 0.05 < 2
    own = fit_codec(layer, error=0.05, rotate=False)  # errors of such numbers go together
    assert measure_codec(layer, own, torch.randn(5, 30, 4)).tensors[0].predicted_kind == "estimate"


def test_a_plain_codec_is_measured_in_the_same_way(model, data):
    coarse, fine = (
        measure_codec(model, plain_codec(model, number), data) for number in ("int2", "int8")
    )
    for one, other in zip(coarse.tensors, fine.tensors, strict=True):
        assert one.fixed < other.fixed
        if one.measured is not None:
            assert one.measured > 100 * other.measured


def test_a_curve(model, data):
    curve = rd_curve(model, data, next_loss, at=12, rest="int8", demand=30.0)
    bits = [p.bits for p in curve.points]
    assert bits == sorted(bits)
    assert [p.codec for p in curve.plain] == ["int8", "int4", "int2"]
    assert abs(curve.points[-1].metric - curve.exact) < 1e-3
    assert all(p.shannon < p.coded < p.bits * 1.05 for p in curve.points)
    figure = curve.plot()
    assert isinstance(figure, Figure)
    assert {t.get_text() for t in figure.axes[0].texts} == {"int8", "int4", "int2"}
    assert len(figure.axes[0].lines) == 3 + 3 + 2
    assert json.loads(curve.to_json())["points"][0]["codec"] == "error 0.5"
    assert "as it is" in str(curve)


def test_a_curve_at_given_bits(model, data):
    curve = rd_curve(model, data, next_loss, bits=[1200, 900], at=12, rest="int4", test=data[:40])
    for point, most in zip(curve.points, (900, 1200), strict=True):
        assert 0.8 * most < point.bits < 1.05 * most
    with pytest.raises(InputError, match="bits must be at least"):
        rd_curve(model, data, next_loss, bits=[5], at=12)
    with pytest.raises(InputError, match="data must have at least 4 rows"):
        rd_curve(model, data[:3], next_loss)


def test_smaller_states_stand_beside_fewer_bits(model, data):
    curve = rd_curve(model, data, next_loss, bits=[1500], keep=(0.25, 0.5), at=12)
    assert [p.keep for p in curve.smaller] == [0.5, 0.25]
    assert curve.smaller[1].bits < curve.smaller[0].bits < curve.state_bits
    assert abs(curve.smaller[0].metric - curve.exact) < 0.1 * curve.exact
    assert [p["keep"] for p in curve.to_dict()["smaller"]] == [0.5, 0.25]
    assert "keep 0.25" in str(curve)
    labels = [line.get_label() for line in curve.plot().axes[0].get_lines()]
    assert "smaller state (reduce), 32 bits" in labels
