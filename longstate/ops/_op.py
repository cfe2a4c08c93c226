"""One registration for every op: the custom op, its backward, and what PyTorch asks of both.

An op is described by a NamedTuple of its tensors and options. Its fields make the schema, and its
functions get them by name:

    class Scan(NamedTuple):
        a: Tensor
        x: Tensor
        h0: Tensor | None
        impl: str

    def forward(s: Scan): ...  # the results: those returned, then those only saved
    def fake(s: Scan): ...  # the same, empty
    def backward(s: Scan, h, grad_h, grad_last): ...  # {"a": ..., "x": ..., "h0": ...}
    def reference(s: Scan): ...  # the results returned, by PyTorch alone

    scan = register("scan", Scan, forward, fake, backward, reference, returns="h last", saves="h")
    h, last = scan(Scan(a, x, h0, "cpu"))

A gradient has the shape and type of its input, so that the backward needs no fake of its own.

The reference runs where the kernels have no answer: when `impl` is "reference", in forward-mode
differentiation, and inside the transforms of `torch.func`.
"""

from collections.abc import Callable
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch.autograd import forward_ad

_SCHEMA: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    bool: "bool",
    int: "SymInt",
    float: "float",
    str: "str",
}


def register(
    name: str,
    inputs: type,
    forward: Callable[[Any], tuple[Tensor, ...]],
    fake: Callable[[Any], tuple[Tensor, ...]],
    backward: Callable[..., dict[str, Tensor]],
    reference: Callable[[Any], tuple[Tensor, ...]] | None = None,
    *,
    returns: str,
    saves: str = "",
    unsaved: str = "",
) -> Callable[[Any], tuple[Tensor, ...]]:
    """Register `longstate::name` and its backward; returns the function that runs the op.

    Args:
        name: name of the op.
        inputs: a NamedTuple class: first the tensors, each `Tensor` or `Tensor | None`, then the
            options (bool, int, float, str). An option `keep` is filled in: whether a gradient may
            be asked for.
        forward: the results. None of them may share memory with an input or with another.
        fake: empty tensors of the shapes, types and strides of the results.
        backward: gradients by name of the input, from the inputs, the saved results, and the
            gradients of the returned results, each of which may be None. What it leaves out has
            no gradient.
        reference: the returned results, by operations that PyTorch differentiates.
        returns: names of the results that the caller gets.
        saves: names of the results that the backward reads. Those not in `returns` are results of
            the op that the caller does not see.
        unsaved: names of the inputs that the backward does not read. It gets tensors of their
            shape without memory, and their memory is free after the forward.

    Returns:
        The function (inputs) -> the returned results. Its attributes `op` and `backward_op` are the
        registered ops.
    """
    make: Callable[[Any], Any] = inputs._make  # type: ignore[attr-defined]
    hints = get_type_hints(inputs)
    tensors = [key for key, kind in hints.items() if kind in (Tensor, Tensor | None)]
    returned, saved = returns.split(), saves.split()
    results = returned + [key for key in saved if key not in returned]
    count = len(tensors)
    schema = ", ".join(f"{_SCHEMA[kind]} {key}" for key, kind in hints.items())
    op = torch.library.custom_op(
        f"longstate::{name}",
        lambda *values: _bare(forward(make(values))),
        mutates_args=(),
        schema=f"({schema}) -> ({', '.join(f'Tensor {key}' for key in results)})",
    )
    op.register_fake(lambda *values: _bare(fake(make(values))))

    def gradients(*values: Any) -> list[Tensor]:
        """Of every tensor; an empty one where there is none."""
        given, rest = make(values[: len(hints)]), values[len(hints) :]
        found = backward(given, *rest)
        return [
            found[key].contiguous() if key in found and x is not None else _nothing(values)
            for key, x in zip(tensors, given, strict=False)
        ]

    def fake_gradients(*values: Any) -> list[Tensor]:
        return [
            torch.empty_like(x, memory_format=torch.contiguous_format)
            if _differentiable(x)
            else _nothing(values)
            for x in values[:count]
        ]

    extra = [f"Tensor saved_{key}" for key in saved] + [f"Tensor? grad_{key}" for key in returned]
    back = torch.library.custom_op(
        f"longstate::{name}_backward",
        gradients,
        mutates_args=(),
        schema=f"({', '.join([schema, *extra])}) -> Tensor[]",
    )
    back.register_fake(fake_gradients)
    shapes_only = [key in unsaved.split() for key in tensors]
    places = [results.index(key) for key in saved]
    keep = list(hints).index("keep") if "keep" in hints else None

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        output = _results(output)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[len(returned) :])
        ctx.options = inputs[count:]
        given = zip(inputs[:count], shapes_only, strict=True)
        kept = [x.new_empty(()).expand(x.shape) if bare else x for x, bare in given]
        ctx.save_for_backward(*kept, *(output[i] for i in places))

    def differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        values = ctx.saved_tensors  # read once: checkpointing recomputes them for each reading
        given, read = values[:count], values[count:]
        found = back(*given, *ctx.options, *read, *grads[: len(returned)])
        wanted = [g if _differentiable(x) else None for x, g in zip(given, found, strict=True)]
        return *wanted, *[None] * len(ctx.options)

    op.register_autograd(differentiate, setup_context=setup)

    def run(values: Any) -> tuple[Tensor, ...]:
        if getattr(values, "impl", None) == "reference" or _transformed(values):
            if reference is None:
                raise NotImplementedError(
                    f"{name} has no form for forward-mode differentiation or torch.func; "
                    "use backward() or torch.autograd.grad"
                )
            return reference(values)
        if keep is not None:
            values = (*values[:keep], _wants_gradient(values[:count]), *values[keep + 1 :])
        return _results(op(*values))[: len(returned)]

    run.op, run.backward_op = op, back  # type: ignore[attr-defined]
    return run


def _bare(results: tuple[Tensor, ...]) -> Any:
    """As PyTorch wants them: an op of one result gives it without a tuple."""
    return results[0] if len(results) == 1 else tuple(results)


def _results(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _nothing(values: tuple[Any, ...]) -> Tensor:
    return values[0].new_empty(0)


def _differentiable(x: Tensor | None) -> bool:
    return x is not None and (x.is_floating_point() or x.is_complex())


def _wants_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _transformed(values: tuple[Any, ...]) -> bool:
    """Whether a custom op would lose a tangent or a transform of these tensors."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level < 0:
        return False
    tensors = [x for x in values if isinstance(x, Tensor)]
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)
