"""Derivatives of a backward op: those of the reference, which PyTorch differentiates.

Let g = J(x)^T v be what a backward gives, from inputs x and gradients v of the results. Its own
derivatives are found by running the reference on x, its backward on v, and PyTorch's backward of
that. They are differentiable again, to any order.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Tensors = Sequence[Tensor | None]


def differentiable(x: Tensor | None) -> bool:
    return x is not None and (x.is_floating_point() or x.is_complex())


def unnarrowed(x: Tensor, run: Callable[[], Any]) -> Any:
    """`run()` without autocast, under which a forward or a backward may be called."""
    if not torch.is_autocast_enabled(x.device.type):
        return run()
    with torch.autocast(x.device.type, enabled=False):
        return run()


class Second(NamedTuple):
    """The autograd of a backward op; see `register` in `longstate/ops/_op.py`.

    The backward op is given the op's inputs (tensors, then options), the saved results, and the
    gradients of the returned results.
    """

    name: str
    make: Callable[[Any], Any]  # the op's NamedTuple of inputs, from their values
    tensors: list[str]  # names of the inputs that are tensors
    inputs: int  # number of inputs, options among them
    saved: int  # number of saved results
    reference: Callable[[Any], tuple[Tensor, ...]] | None
    restore: Callable[..., dict[str, Tensor]] | None
    without_memory: Callable[[str, Tensor | None], bool]

    def setup(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.options = inputs[len(self.tensors) : self.inputs]
        ctx.save_for_backward(*inputs[: len(self.tensors)], *inputs[self.inputs :])

    def differentiate(self, ctx: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
        values = ctx.saved_tensors
        found = unnarrowed(values[0], lambda: self._derivatives(values, ctx.options, grads))
        count = len(self.tensors)
        return *found[:count], *[None] * len(ctx.options), *found[count:]

    def _derivatives(
        self, values: Tensors, options: tuple[Any, ...], to_gradients: Tensors
    ) -> list[Tensor | None]:
        """Gradients of the tensors `values` that the backward op was given, None where there is
        none, from those of the gradients that it returned."""
        if self.reference is None:
            raise NotImplementedError(f"{self.name} has no second derivatives")
        order, end = torch.is_grad_enabled(), len(self.tensors) + self.saved
        with torch.enable_grad():
            first = [_view(x) for x in values]
            inputs = [_view(x) for x in self._inputs(values, first[:end], options)]
            results = [
                (y, v)
                for y, v in zip(
                    self.reference(self.make((*inputs, *options))), first[end:], strict=True
                )
                if v is not None and y.requires_grad
            ]
            wanted = [i for i, x in enumerate(inputs) if differentiable(x)]
            found = _gradients(results, [inputs[i] for i in wanted], True)
            pairs = [
                (g, to_gradients[i])
                for i, g in zip(wanted, found, strict=True)
                if g is not None and g.requires_grad and to_gradients[i] is not None
            ]
            places = [i for i, x in enumerate(first) if differentiable(x)]
            second: list[Tensor | None] = [None] * len(first)
            last = _gradients(pairs, [first[i] for i in places], order)
            for i, value in zip(places, last, strict=True):
                second[i] = value
        return second

    def _inputs(self, values: Tensors, known: Tensors, options: tuple[Any, ...]) -> Tensors:
        """The op's inputs, from those that the backward op was given and the saved results."""
        given = known[: len(self.tensors)]
        if self.restore is None:
            return given
        found = self.restore(self.make((*given, *options)), *known[len(given) :])
        return [
            found[key] if self.without_memory(key, value) else x
            for key, value, x in zip(self.tensors, values, given, strict=False)
        ]


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
