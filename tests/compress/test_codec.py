"""Codecs keep what they promise: error, bits, and that any state comes back within half a step."""

import math

import pytest
import torch

from longstate.compress import StateCodec, fit_codec, park, plain_codec, unpark
from longstate.compress._fit import _coordinates
from longstate.compress._future import future_energy, loaded, observed, sources, states_at
from longstate.compress._quantizer import code_length, gaussian_entropy, gaussian_error
from longstate.errors import InputError
from longstate.layers import S4D, Attention, Mamba
from longstate.memory import hankel
from longstate.memory._gramians import gramians, real_matrices
from longstate.models import Stack
from longstate.stream._tree import flatten
from longstate.systems import DenseSystem
from tests.compress.states import LINEAR, SELECTIVE, language, made, state_of, within


def drawn(source, count):
    """States (count, *shape) of a linear layer under white input, once it is stationary."""
    torch.manual_seed(1)
    values, vectors = torch.linalg.eigh(source.reach)
    root = vectors * values.clamp(min=0).sqrt()[:, None]
    z = torch.randn(count, len(root), root.shape[-1], dtype=torch.float64)
    x = torch.einsum("bgj,gij->bgi", z, root)
    return source.place.back(x[:, :, None])


def energy(source, e):
    e = source.place.real(e).reshape(-1, *source.shape)
    return torch.einsum("bgri,gij,bgrj->b", e, source.observe, e)


@pytest.mark.parametrize("name", LINEAR)
def test_variances_are_squared_hankel_singular_values(name):
    """Variances in a codec's coordinates are the squared Hankel singular values of the outputs that
    are still to come, and the rotation changes nothing. Q is loaded on its diagonal: each of them
    is then larger by at most the load times the largest eigenvalue of P."""
    layer = made(name).double()
    (source,) = sources(layer)
    R, back = _coordinates(source.observe, source.reach, True)
    with torch.no_grad():
        A, B, C = real_matrices(layer.system())
    later = DenseSystem(A, B, C @ A, torch.zeros_like(C @ B), discrete=True)
    sigma = hankel(later).values.reshape(len(R), -1)
    variance = (R.mT @ source.reach @ R).diagonal(dim1=1, dim2=2)
    values, vectors = torch.linalg.eigh(source.reach)
    root = vectors * values.clamp(min=0).sqrt()[:, None]
    exact = torch.linalg.eigvalsh(root.mT @ loaded(source.observe) @ root).flip(-1)
    torch.testing.assert_close(variance, exact)
    load = (loaded(source.observe) - source.observe)[:, :1, 0]
    torch.testing.assert_close(torch.maximum(exact, sigma.square()), exact)
    most = sigma.square() + load * values[:, -1:]
    torch.testing.assert_close(torch.minimum(exact, most), exact)
    torch.testing.assert_close(R @ back, torch.eye(R.shape[-1]).double().expand_as(R))


def test_later_energy_equals_its_formula_and_a_simulation():
    """tr(P Q) = sum sigma^2 = the outputs that follow from a state, within 4 standard errors, which
    are below 1 %: so it is within 2 %."""
    torch.manual_seed(2)
    layer = S4D(3, d_state=8, dt_min=0.05, dt_max=0.2).double()  # forgotten within 600 samples
    (source,) = sources(layer)
    P, Q = source.reach, source.observe
    x = drawn(source, 20_000)
    silence = torch.zeros(2000, 600, 3).double()
    with torch.no_grad():
        y = torch.cat([layer(silence, part)[0].square().sum((1, 2)) for part in x.split(2000)])
    whole, error = float((P @ Q).diagonal(dim1=1, dim2=2).sum()), float(y.std() / len(y) ** 0.5)
    assert error < 0.005 * whole
    assert abs(float(y.mean()) - whole) < 4 * error
    torch.testing.assert_close(y, energy(source, x))


@pytest.mark.parametrize("share", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("name", ["s4d", "s5", "linoss"])
def test_error_and_bits_are_as_predicted(name, share):
    """Within 1 % of the target (the standard error is below a quarter of that), for no more than
    0.27 bits of each active number above Shannon's bound, and 2 of each system."""
    layer = made(name).double()
    (source,) = sources(layer)
    codec = fit_codec(layer, error=share)
    (part,) = codec.rotated
    x = drawn(source, 40_000)
    lost = energy(source, codec.round_trip(x) - x)
    mean, error = float(lost.mean()), float(lost.std() / len(lost) ** 0.5)
    assert error < 0.0025 * share * part.total
    assert within(mean, share * part.total, 0.01)
    whole = torch.from_numpy(part.whole(x[:4000]))
    bits = float(code_length(whole, part.deviation).sum(1).mean())
    most = part.shannon + 0.27 * part.active + 2 * source.shape[0]
    assert part.shannon < bits < most


def test_error_and_entropy_of_a_rounded_gaussian():
    """Against a million draws, on both sides of the formula for small steps."""
    torch.manual_seed(0)
    x = torch.randn(1_000_000, dtype=torch.float64)
    for step in (0.05, 0.099, 0.101, 0.5, 1.0, 3.0, 6.0):
        whole = (x / step).round()
        error = (x - step * whole).square()
        one = torch.ones(1).double()
        bound = 4 * float(error.std()) / 1000
        assert abs(float(error.mean()) - float(gaussian_error(one, step))) < bound
        length = code_length(whole, one / step)
        bound = 4 * float(length.std()) / 1000 + 1e-3  # a length is cut off at 20 bits
        assert abs(float(length.mean()) - float(gaussian_entropy(one, step))) < bound
    assert float(gaussian_error(torch.zeros(1).double(), 1.0)) == 0


@pytest.mark.parametrize("name", [*LINEAR, *SELECTIVE])
def test_every_state_is_restored_within_half_a_step(name):
    """Also states that are nothing like those of the fit: what does not fit its range is listed."""
    layer = made(name)
    data = torch.randn(40, 16, layer.d_model)
    codec = fit_codec(layer, data, error=0.01)
    state = state_of(layer, 5)
    strange = codec.state_of({k: 30 * v + 1 for k, v in codec.tensors_of(state).items()})
    for given in (state, strange):
        back = codec.tensors_of(unpark(park(given, codec), codec))
        for part in codec.rotated:
            x = codec.tensors_of(given)[part.place.name]
            miss = (part.coefficients(x) - part.coefficients(back[part.place.name])).abs()
            # a float32 state is rounded once more, when it is back in its own type
            most = 1e-4 * part.coefficients(x).abs().max()
            assert float(miss.max()) <= float(0.5 * part.step + most)
        same = codec.tensors_of(codec.round_trip(given))
        assert all(torch.equal(same[k], back[k]) for k in same)


@pytest.mark.parametrize("name", SELECTIVE)
def test_the_error_of_a_selective_layer_is_as_predicted(name):
    """Measured by the layer's own recurrence on the rest of the data that it was fitted to."""
    layer = made(name)
    data = torch.randn(200, 24, layer.d_model)
    codec = fit_codec(layer, data, error=0.02, at=12)
    (whole, lost), *_ = future_energy(layer, sources(layer), data, 12, codec.round_trip)
    (part,) = codec.rotated
    # P and Q are taken as independent, which they are not quite
    assert 0.5 < lost / whole / 0.02 < 2
    assert 0.5 < whole / part.total < 2


def test_the_gramian_of_a_selective_layer_is_its_definition():
    """The prediction by Q is what the layer puts out after a state: exact for one sequence."""
    for name in SELECTIVE:
        layer = made(name).double()
        data = torch.randn(1, 20, layer.d_model).double()
        (source,) = sources(layer)
        ((Q, weight),) = observed(layer, [source], data, [8])
        state = next(iter(states_at(layer, data, [8])))
        x = source.place.real(flatten(state)[source.place.name]).reshape(*source.shape)
        if source.shape[1] > 1:  # rows of a head have gates of their own
            continue
        predicted = float(torch.einsum("gri,gij,grj->", x, Q, x))
        ((whole, _),) = future_energy(layer, [source], data, 8, lambda s: s)
        assert whole == pytest.approx(predicted, rel=1e-9)
        assert float(weight.min()) > 0


def test_rotation_needs_fewer_bits():
    layer = made("s4d real")  # decays that are much alike
    turned, own = (fit_codec(layer, error=0.01, rotate=r) for r in (True, False))
    assert turned.fixed_bits < 0.6 * own.fixed_bits


@pytest.mark.parametrize("bits", [700, 1200])
def test_a_codec_takes_at_most_the_given_bits(bits):
    model = language()
    data = torch.randint(0, 11, (80, 24))
    codec = fit_codec(model, data, bits=bits, rest="int4")
    with torch.no_grad():
        _, state = model(data[:, :12])
    size = 8 * len(park(state, codec)) / 80
    assert 0.85 * bits < size < 1.03 * bits  # other states than those of the fit, and a header


def test_a_codec_is_saved(tmp_path):
    model, data = language(), torch.randint(0, 11, (30, 16))
    for codec in (fit_codec(model, data, error=0.01), plain_codec(model, "int4", rest="bfloat16")):
        codec.save(tmp_path / "c")
        again = StateCodec.load(tmp_path / "c")
        assert again.identity == codec.identity
        _, state = model(data)
        assert park(state, again) == park(state, codec)


def test_refused_arguments_have_clear_messages():
    layer = made("mamba2")
    data = torch.randn(4, 8, 4)
    for call, sentence in (
        (lambda: fit_codec(layer, data), "exactly one of them"),
        (lambda: fit_codec(layer, data, error=0.1, bits=3), "exactly one of them"),
        (lambda: fit_codec(layer, data, error=2.0), "error must be between"),
        (lambda: fit_codec(layer, error=0.1), "a codec for Mamba2 needs data"),
        (lambda: fit_codec(layer, data, bits=10), "bits must be at least"),
        (lambda: fit_codec(layer, data, error=0.1, at=8), "at must be numbers of samples from 1"),
        (lambda: fit_codec(layer, data, error=0.1, rest="int5"), "rest must be one of"),
        (lambda: fit_codec(Attention(4, n_heads=2), data, error=0.1), "gets longer with every"),
        (lambda: plain_codec(layer, "int9"), "number must be one of"),
        (lambda: plain_codec(torch.nn.Linear(2, 2), "int8"), "Linear has no state"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()


def test_entropy_of_one_number_is_a_quarter_of_a_bit_above_shannon():
    step = 0.1
    bits = float(gaussian_entropy(torch.ones(1).double(), step))
    rate = 0.5 * math.log2(12 / step**2)
    assert 0.25 < bits - rate < 0.26


def test_gramians_include_the_current_sample_and_codecs_do_not():
    layer = made("s5").double()
    (source,) = sources(layer)
    with torch.no_grad():
        _, Q = gramians(layer.system())
        C = real_matrices(layer.system())[2]
    torch.testing.assert_close(source.observe[0], Q - C.mT @ C)


def test_dropout_does_not_reach_a_codec():
    """A model that is left in training mode is read as in evaluation, and stays as it was."""
    torch.manual_seed(0)
    stack = Stack([Mamba(8, d_state=4), Mamba(8, d_state=4)], dropout=0.5).double()
    data = torch.randn(6, 24, 8, dtype=torch.float64)
    expected = fit_codec(stack.eval(), data, error=0.01).identity
    assert fit_codec(stack.train(), data, error=0.01).identity == expected
    assert stack.training
