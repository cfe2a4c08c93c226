"""PyTorch's other ways in: per-sample gradients, second derivatives, `vmap`, `jvp`."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.testing import assert_close

from longstate.layers import S4D, S5, Layer
from longstate.testing._states import annotations_unchecked
from tests.layers.test_contract import LAYERS, NO_DT

MORE = {
    "s4d, both ways": lambda: S4D(3, d_state=4, bidirectional=True),
    "s5, both ways": lambda: S5(3, d_state=4, bidirectional=True),
}
BATCH, TIME = 3, 7
every_layer = pytest.mark.parametrize("make", (LAYERS | MORE).values(), ids=LAYERS | MORE)


@pytest.fixture(autouse=True)
def unchecked():
    """Annotations are not checked: inside a transform tensors have one axis more."""
    with annotations_unchecked():
        yield


def made(make) -> tuple[Layer, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    layer = make().double()
    u = torch.randn(BATCH, TIME, layer.d_model, dtype=torch.float64)
    return layer, {name: p.detach() for name, p in layer.named_parameters()}, u


def options(name: str) -> list[dict[str, Tensor]]:
    """Marks and times, a row for each sample of the batch."""
    generator = torch.Generator().manual_seed(1)
    mask, reset = (torch.rand(2, BATCH, TIME, generator=generator) < 0.3).unbind()
    found = [{}, {"mask": ~mask, "reset": reset}]
    if name not in NO_DT | set(MORE):
        dt = torch.rand(BATCH, TIME, generator=generator, dtype=torch.float64)
        found += [{"dt": dt}, {"mask": ~mask, "reset": reset, "dt": dt}]
    return found


def loss(layer: Layer, parameters: dict[str, Tensor], u: Tensor, **call: Tensor) -> Tensor:
    return functional_call(layer, parameters, (u,), call)[0].square().sum()


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_each_sample_are_those_of_a_loop(name):
    layer, parameters, u = made(LAYERS[name])
    for call in options(name):
        rows = {key: x[:, None] for key, x in call.items()}

        def of_one(parameters, u, rows):
            return loss(layer, parameters, u[None], **rows)

        found = vmap(grad(of_one), (None, 0, 0))(parameters, u, rows)
        for i in range(BATCH):
            row = {key: x[i : i + 1] for key, x in call.items()}
            total = loss(layer, dict(layer.named_parameters()), u[i : i + 1], **row)
            wanted = torch.autograd.grad(total, list(layer.parameters()), allow_unused=True)
            for (key, _), value in zip(layer.named_parameters(), wanted, strict=True):
                value = torch.zeros_like(found[key][i]) if value is None else value
                assert_close(found[key][i], value, msg=lambda text, key=key: f"{key}: {text}")


@every_layer
def test_second_derivatives(make):
    """Twice backward, against a tangent through the gradient; and a penalty on the gradient."""
    layer, parameters, u = made(make)
    v = torch.randn_like(u)
    expected = jvp(grad(lambda u: loss(layer, parameters, u)), (u,), (v,))[1]
    u.requires_grad_()
    own = dict(layer.named_parameters())
    (g,) = torch.autograd.grad(loss(layer, own, u), u, create_graph=True)
    assert expected.abs().max() > 0
    assert_close(torch.autograd.grad((g * v).sum(), u, retain_graph=True)[0], expected)
    g.square().sum().backward()

    def penalty(parameters):
        return grad(lambda u: loss(layer, parameters, u))(u.detach()).square().sum()

    for name, value in grad(penalty)(parameters).items():
        found = layer.get_parameter(name).grad
        found = torch.zeros_like(value) if found is None else found
        assert_close(found, value, msg=lambda text, name=name: f"{name}: {text}")


@every_layer
def test_jacobians_and_vmap(make):
    layer, parameters, u = made(make)

    def run(u):
        return functional_call(layer, parameters, (u,))[0]

    assert_close(jacrev(run)(u[:1, :3]), jacfwd(run)(u[:1, :3]))
    assert_close(vmap(lambda row: run(row[None])[0])(u), layer(u)[0])
    state = layer.init_state(BATCH)
    if state != ():
        first = vmap(lambda row: layer.step(row[None], layer.init_state(1))[0][0])(u[:, 0])
        assert_close(first, layer.step(u[:, 0], state)[0])


@every_layer
def test_no_rows_and_no_samples(make):
    layer, parameters, u = made(make)

    def row(u):
        return functional_call(layer, parameters, (u[None],))[0][0]

    assert vmap(row)(u[:0]).shape == u[:0].shape
    none = torch.zeros(2, 0, TIME, layer.d_model, dtype=u.dtype)
    each = vmap(grad(lambda p, u: loss(layer, p, u)), (None, 0))(parameters, none)
    assert all(not g.any() for g in each.values())
    with pytest.raises(ValueError, match="without samples"):
        vmap(row)(u[:, :0])


def test_what_cannot_be_batched_is_refused():
    layer, mask = S4D(3, d_state=4, bidirectional=True), torch.ones(2, 1, 5, dtype=torch.bool)
    with pytest.raises(NotImplementedError, match="vmap over a mask or a reset"):
        vmap(lambda mask: layer(torch.zeros(1, 5, 3), mask=mask)[0])(mask)
