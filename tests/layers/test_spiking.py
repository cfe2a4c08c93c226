"""Spikes around a layer: rates, gradients, and what evaluation does."""

import torch

from longstate.layers import S4D, Mamba, Spiking
from longstate.models._saving import load_layer, save_layer


def made(**options) -> Spiking:
    torch.manual_seed(0)
    return Spiking(S4D(4, d_state=6), **options).double()


def test_the_mean_of_spikes_is_the_clamped_rate():
    layer = made().train()
    p = torch.tensor([-0.5, 0.0, 0.2, 0.7, 1.0, 1.5]).double().expand(20_000, 6)
    spikes = layer._drawn(p)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    wanted = p[0].clamp(0, 1)
    error = 5 * (wanted * (1 - wanted) / 20_000).sqrt()  # five standard errors
    assert bool(((spikes.mean(0) - wanted).abs() <= error).all())


def test_the_gradient_of_a_spike_is_that_of_its_rate():
    p = torch.tensor([-0.5, 0.2, 0.7, 1.5]).double().requires_grad_()
    made().train()._drawn(p).sum().backward()
    assert p.grad.tolist() == [0, 1, 1, 0]


def test_evaluation_computes_the_equation_with_rates():
    layer = made().eval()
    u = torch.randn(2, 9, 4).double()
    v, _ = layer.layer(u.clamp(0, 1))
    y, _ = layer(u)
    torch.testing.assert_close(y, layer.out_proj(v.clamp(0, 1)))
    assert torch.equal(layer(u)[0], y)


def test_training_and_sample_draw_spikes():
    u = torch.rand(2, 50, 4).double()
    assert not torch.equal(made().train()(u)[0], made().eval()(u)[0])
    always = made(sample=True).eval()
    assert not torch.equal(always(u)[0], always(u)[0])
    torch.manual_seed(1)
    first = always(u)[0]
    torch.manual_seed(1)
    assert torch.equal(always(u)[0], first)


def test_the_reported_rates_are_those_of_the_spikes():
    layer = made().eval()
    u = torch.randn(2, 30, 4).double()
    rates = layer.rates(u)
    assert rates.read == float(u.clamp(0, 1).mean())
    assert 0 <= rates.written <= 1


def test_saved_and_loaded(tmp_path):
    layer = Spiking(Mamba(4, d_state=3)).eval()
    save_layer(layer, tmp_path / "layer.safetensors")
    u = torch.randn(1, 5, 4)
    assert torch.equal(load_layer(tmp_path / "layer.safetensors")(u)[0], layer(u)[0])
