"""Derivatives that no kernel has: second ones, and the transforms of `torch.func`."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vmap
from torch.testing import assert_close

from longstate.ops import selective_scan
from tests.ops.every_op import OPS, split
from tests.ops.helpers import randn

every_op = pytest.mark.parametrize(("call", "inputs"), OPS.values(), ids=OPS)


def function(call, tensors: dict[str, Tensor], impl: str) -> Callable[..., tuple[Tensor, ...]]:
    """The op as a function of what has derivatives."""
    numbers, flags = split(tensors)
    return lambda *values: call(impl, **dict(zip(numbers, values, strict=True)), **flags)


def real_sum(results: tuple[Tensor, ...]) -> Tensor:
    """A real number that depends on every result, not only linearly."""
    total = torch.zeros((), dtype=torch.float64)
    for i, y in enumerate(results):
        weighed = y * torch.cos(torch.arange(y.numel()) + i).view(y.shape).double()
        total = total + torch.real(weighed).sum() + torch.real(y * y.conj()).sum()
    return total


@every_op
def test_gradgradcheck(call, inputs):
    numbers, _ = split(inputs())
    values = [x.requires_grad_() for x in numbers.values()]
    assert torch.autograd.gradgradcheck(function(call, inputs(), "cpu"), values)


@every_op
def test_third_derivatives_are_those_of_the_reference(call, inputs):
    def third(impl):
        values = [x.requires_grad_() for x in split(inputs())[0].values()]
        total = real_sum(function(call, inputs(), impl)(*values))
        for _ in range(2):
            found = torch.autograd.grad(total, values, create_graph=True)
            total = sum(torch.real(g * g.conj()).sum() for g in found)
        return torch.autograd.grad(total, values)

    assert_close(third("cpu"), third("reference"))


@every_op
def test_transforms(call, inputs):
    values = list(split(inputs())[0].values())
    fast, plain = (function(call, inputs(), impl) for impl in ("cpu", "reference"))
    first = values[0]
    rest, tangent = values[1:], torch.linspace(-1, 1, first.numel()).view(first.shape).to(first)

    def of(run):
        return lambda x: real_sum(run(x, *rest))

    expected = torch.autograd.grad(of(plain)(first.requires_grad_()), first)[0]
    first = first.detach()
    assert_close(grad(of(fast))(first), expected)
    second = jvp(grad(of(plain)), (first,), (tangent,))
    assert_close(jvp(grad(of(fast)), (first,), (tangent,)), second)
    if not first.is_complex():  # PyTorch has no jacrev of a complex input
        found, wanted = (
            jacrev(lambda x, run=run: torch.view_as_real(run(x, *rest)[0] + 0j))(first)
            for run in (fast, plain)
        )
        assert_close(found, wanted)
    several = torch.stack([first, 2 * first])
    alone = [plain(x, *rest) for x in several]
    assert_close(
        vmap(lambda x: fast(x, *rest))(several), tuple(map(torch.stack, zip(*alone, strict=True)))
    )
    gradients = torch.stack([grad(of(plain))(x) for x in several])
    assert_close(vmap(grad(of(fast)))(several), gradients)


@every_op
def test_flags_may_differ_in_vmap(call, inputs):
    numbers, flags = split(inputs())
    if not flags:
        pytest.skip("takes no mask")
    several = {name: torch.stack([x, ~x]) for name, x in flags.items()}
    found = vmap(lambda marks: call("cpu", **numbers, **marks))(several)
    alone = [call("reference", **numbers, **{k: x[i] for k, x in several.items()}) for i in (0, 1)]
    assert_close(found, tuple(map(torch.stack, zip(*alone, strict=True))))


@every_op
def test_an_input_given_twice_has_second_derivatives(call, inputs):
    """Its gradients are found one by one, and add up."""
    numbers, flags = split(inputs())

    def hessian_product(impl):
        values = {name: x.clone().requires_grad_() for name, x in numbers.items()}
        other = {name: values[name] for name in values}
        shapes = {}
        for name, x in values.items():  # the first of each shape and type stands for all
            other[name] = shapes.setdefault((x.shape, x.dtype), x)
        total = real_sum(call(impl, **other, **flags))
        used = list(shapes.values())
        found = torch.autograd.grad(total, used, create_graph=True)
        return torch.autograd.grad(sum(torch.real(g * g.conj()).sum() for g in found), used)

    assert_close(hessian_product("cpu"), hessian_product("reference"))


def test_a_start_without_gradient_may_change_before_second_derivatives():
    u, dt, A = (
        randn(1, 40, 3, seed=1),
        torch.ones(1, 40, 3).double() / 9,
        -torch.ones(3, 2).double(),
    )
    b, c = randn(2, 1, 40, 2, seed=2)
    h0 = randn(1, 3, 2, seed=3)

    def second(change, impl):
        x, start = u.clone().requires_grad_(), h0.clone()
        y, _ = selective_scan(x, dt * x, A, b, c, h0=start, impl=impl)
        if change:
            start.zero_()
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), x)[0]

    assert_close(second(True, "cpu"), second(False, "reference"))
