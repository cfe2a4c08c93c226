"""The penalty on the size of states: its numbers by other means, its gradient, and its training."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from typer.testing import CliRunner

from longstate import Forecaster, TextModel
from longstate.cli import app
from longstate.errors import InputError
from longstate.layers import DSS, S4, S4D, S5, GatedSSM, LinOSS, Longhorn, Mamba, Mamba2, Mamba3
from longstate.memory import hankel
from longstate.systems import DiagonalSystem, hankel_size, nuclear_norm
from longstate.train import Size, TextTraining, Training
from longstate.train._state_penalty import EVERY, StatePenalty, state_size

LAYERS = {
    "s4d": lambda: S4D(8, d_state=12),
    "s4d both ways": lambda: S4D(8, d_state=12, bidirectional=True),
    "s5": lambda: S5(8, d_state=12),
    "dss": lambda: DSS(8, d_state=12),
    "linoss": lambda: LinOSS(8, d_state=6),
    "mamba": lambda: Mamba(8, d_state=6),
    "mamba2": lambda: Mamba2(8, d_state=6, d_head=4, n_groups=2),
    "mamba3": lambda: Mamba3(8, d_state=6, d_head=4),
    "longhorn": lambda: Longhorn(8, d_state=6),
    "gated": lambda: GatedSSM(8, d_state=6),
}


def random_pair(n, seed, rank=None):
    g = torch.Generator().manual_seed(seed)
    L, R = (torch.randn(n, rank or n, 2, generator=g).double() for _ in range(2))
    L, R = torch.view_as_complex(L), torch.view_as_complex(R)
    return L @ L.mH, R @ R.mH


def test_the_nuclear_norm_is_the_sum_of_roots_of_eigenvalues():
    P, Q = random_pair(5, 0)
    values = torch.linalg.eigvals(P @ Q)
    assert_close(nuclear_norm(P, Q), values.real.clamp(min=0).sqrt().sum())


@pytest.mark.parametrize("seed", range(3))
def test_its_gradient_is_that_of_differences(seed):
    g = torch.Generator().manual_seed(seed)
    L, R = (torch.randn(4, 4, generator=g).double().requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda L, R: nuclear_norm(L @ L.mT, R @ R.mT), (L, R))
    one = torch.eye(3).double().requires_grad_()  # equal values, whose vectors are not determined
    (found,) = torch.autograd.grad(nuclear_norm(one, one.detach()), one)
    assert_close(found, torch.eye(3).double() / 2)


def test_gradients_are_finite_where_directions_are_missing():
    P, Q = random_pair(6, 1, rank=2)
    P.requires_grad_()
    (found,) = torch.autograd.grad(nuclear_norm(P, Q), P)
    assert bool(torch.view_as_real(found).isfinite().all())


def test_a_real_system_has_the_size_that_its_spectrum_says():
    torch.manual_seed(0)
    system = S4D(3, d_state=6, init="real").double().system()
    values = hankel(system).values
    assert_close(hankel_size(system), values.sum(-1) / values.square().sum(-1).sqrt())


def test_half_a_complex_system_by_its_hankel_matrix():
    """Singular values of C A^(i + j) B, of 400 lags, which is enough for |A| <= 0.9."""
    g = torch.Generator().manual_seed(0)
    A = 0.9 * torch.rand(4, generator=g) * torch.exp(3j * torch.rand(4, generator=g))
    B, C = (torch.view_as_complex(torch.randn(4, 2, generator=g)) for _ in range(2))
    A, B, C = (v.to(torch.complex128) for v in (A, B, C))
    kernel = (C * B * A ** torch.arange(800)[:, None]).sum(1)
    lags = torch.arange(400)
    values = torch.linalg.svdvals(kernel[lags[:, None] + lags])
    D = torch.zeros(1, 1).double()
    system = DiagonalSystem(A, B[:, None], C[None], D, conjugate=True, discrete=True)
    assert_close(hankel_size(system), values.sum() / values.square().sum().sqrt())


@pytest.mark.parametrize("name", LAYERS)
def test_is_between_one_and_the_root_of_the_number_of_states(name):
    torch.manual_seed(0)
    layer, u = LAYERS[name](), torch.randn(1, 40, 8)
    size = state_size(layer, u)
    first = float(size.detach())
    assert 1 <= first <= 6**0.5
    wanted = list(layer.parameters())
    found = torch.autograd.grad(size, wanted, allow_unused=True)
    assert all(g is None or bool(g.isfinite().all()) for g in found)
    assert any(g is not None and bool(g.any()) for g in found)
    optimiser = torch.optim.Adam(wanted, lr=0.02)
    for _ in range(20):
        optimiser.zero_grad()
        state_size(layer, u).backward()
        optimiser.step()
    assert float(state_size(layer, u).detach()) < first


def test_one_column_in_use_has_a_size_of_one():
    layer, u = Mamba(8, d_state=6), torch.randn(1, 40, 8)
    with torch.no_grad():
        layer.x_proj.weight[layer.rank + 1 : layer.rank + 6] = 0
    assert_close(state_size(layer, u), torch.tensor(1.0))


def test_directions_of_mamba2_do_not_depend_on_its_basis():
    """Unlike its columns: B and C turned by a rotation give the same outputs and the same size."""
    layer, u = Mamba2(8, d_state=6, d_head=4).double(), torch.randn(1, 40, 8).double()
    rotation = torch.linalg.qr(torch.randn(6, 6).double())[0]
    turned = layer.with_projection(rotation[None], rotation[None])
    assert_close(turned(u)[0], layer(u)[0])
    assert_close(state_size(turned, u), state_size(layer, u))


class Task(torch.nn.Module):
    """A layer and a loss of 3."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def loss(self):
        return 3 + 0 * self.layer(torch.ones(2, 30, 8))[0].sum()


@pytest.mark.parametrize("name", ["s4d", "mamba"])
def test_counts_at_every_fourth_step_fourfold(name):
    task = Task(LAYERS[name]())
    penalty = StatePenalty(task, 0.5)
    for step in range(2 * EVERY):
        plain, total = penalty.loss(step, task.loss)
        assert float(plain.detach()) == 3
        u = torch.ones(1, 30, 8)
        size = state_size(task.layer, u).detach()
        more = 0.5 * EVERY * size.to(plain.dtype) if step % EVERY == 0 else torch.zeros(())
        assert_close(total.detach(), plain.detach() + more)
    assert not task.layer._forward_pre_hooks


def test_layers_without_a_size_are_refused():
    with pytest.raises(InputError, match=r"state_budget measures .*; got S4"):
        StatePenalty(S4(4), 0.1)
    with pytest.raises(InputError, match="needs a model with layers that have a state"):
        StatePenalty(torch.nn.Linear(2, 2), 0.1)
    with pytest.raises(InputError, match="state_budget"):
        Training(state_budget=-1.0)
    with pytest.raises(InputError, match="state_budget"):
        TextTraining(state_budget=float("nan"))


def sizes(model):
    return [float(state_size(b.mixer, None).detach()) for b in model.each_block()]


def test_a_forecaster_is_trained_smaller(tmp_path):
    g = np.random.default_rng(0)
    series = np.sin(np.arange(400) / 5) + 0.1 * g.standard_normal(400)
    found = {}
    for weight in (0.0, 0.3):
        training = Training(epochs=3, batch_size=16, dynamics_rate=1e-2, state_budget=weight)
        made = Forecaster(
            4, window=24, size=Size(d_model=8, n_layers=1, d_state=16), training=training
        )

        def show(_, made=made, weight=weight):  # the last step counts, not the best one
            found[weight] = sizes(made.model.backbone)[0]

        made.fit(series, show=show)
    assert found[0.3] < 0.9 * found[0.0]
    made.save(tmp_path / "model.safetensors")
    assert Forecaster.load(tmp_path / "model.safetensors").training.state_budget == 0.3


def test_a_run_goes_on_bit_for_bit_and_is_kept_apart(tmp_path):
    text = "the quick brown fox jumps over the lazy dog. " * 40

    def fit(out, steps, weight=0.1, show=None):
        training = TextTraining(batch_size=2, steps=steps, state_budget=weight)
        made = TextModel("s4d,mamba", d_model=8, context=16, training=training)
        return made.fit(text=text, out=out, show=show)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 7:
            raise Stop

    whole = fit(tmp_path / "whole", 12)
    with pytest.raises(Stop):
        fit(tmp_path / "parts", 12, show=stop)
    parts = fit(tmp_path / "parts", 12)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert json.loads((tmp_path / "whole" / "settings.json").read_text())["state_budget"] == 0.1
    with pytest.raises(InputError, match=r"its state budget is 0\.1, here it is 0\.2"):
        fit(tmp_path / "parts", 12, weight=0.2)


@pytest.mark.parametrize("command", ["text", "forecast"])
def test_is_an_option_of_the_command_line(command):
    shown = CliRunner().invoke(app, ["train", command, "--help"], env={"COLUMNS": "200"})
    assert "--state-budget" in shown.output
