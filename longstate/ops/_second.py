"""Derivatives of a backward op: those of the reference, which PyTorch differentiates.

Let g = J(x)^T v be what a backward gives, from inputs x and gradients v of the results. Its own
derivatives are found by running the reference on x, its backward on v, and PyTorch's backward of
that. They are differentiable again, to any order.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Tensors = Sequence[Tensor | None]


def differentiable(x: Tensor | None) -> bool:
    return x is not None and (x.is_floating_point() or x.is_complex())


def derivatives(
    reference: Callable[[Tensors], Tensors],
    restore: Callable[[Tensors], Tensors],
    given: Tensors,
    cotangents: Tensors,
    count: int,
    to_gradients: Tensors,
) -> list[Tensor | None]:
    """Gradients of what a backward op was given.

    Args:
        reference: the results that the op returns, from its inputs.
        restore: the op's inputs, from `given`.
        given: tensors that the backward op was given, without those that follow.
        cotangents: gradients of the op's results, which the backward op was given last.
        count: number of inputs of the op.
        to_gradients: gradients of the gradients that the backward op returned.

    Returns:
        One for each tensor of `given` and then of `cotangents`, None where there is none.
    """
    order = torch.is_grad_enabled()
    with torch.enable_grad():
        first = [_view(x) for x in (*given, *cotangents)]
        inputs = [_view(x) for x in restore(first[: len(given)])]
        results = [
            (y, v)
            for y, v in zip(reference(inputs), first[len(given) :], strict=True)
            if v is not None and y is not None and y.requires_grad
        ]
        wanted = [i for i in range(count) if differentiable(inputs[i])]
        found = _gradients(results, [inputs[i] for i in wanted], True)
        pairs = [
            (g, to_gradients[i])
            for i, g in zip(wanted, found, strict=True)
            if g is not None and g.requires_grad and to_gradients[i] is not None
        ]
        places = [i for i, x in enumerate(first) if differentiable(x)]
        second: list[Tensor | None] = [None] * len(first)
        values = _gradients(pairs, [first[i] for i in places], order)
        for i, value in zip(places, values, strict=True):
            second[i] = value
    return second


def _view(x: Tensor | None) -> Tensor | None:
    """`x` as a variable of its own, also where one tensor is given in two places."""
    if x is None or not differentiable(x):
        return x
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _gradients(
    pairs: Sequence[tuple[Tensor, Tensor | None]], wanted: Tensors, create_graph: bool
) -> Tensors:
    """Of the results, each with its weight, in `wanted`, none of which is None."""
    if not pairs:
        return [None] * len(wanted)
    results, weights = zip(*pairs, strict=True)
    known = [x for x in wanted if x is not None]
    return torch.autograd.grad(
        results, known, weights, create_graph=create_graph, allow_unused=True
    )
