"""One registration for every op: the custom op, its backward, and what PyTorch needs of both.

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

The reference runs where kernels cannot: when `impl` is "reference", in forward-mode
differentiation, inside the transforms of `torch.func`, and for second and higher derivatives.
"""

from collections.abc import Callable
from typing import Any, get_type_hints

import torch
from torch import Tensor

from longstate.ops._choice import plain
from longstate.ops._second import Second, differentiable, unnarrowed
from longstate.ops._transforms import transformed

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
    copied: str = "",
    restore: Callable[..., dict[str, Tensor]] | None = None,
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
        copied: like `unsaved`, but where a gradient of such an input may be asked for, a copy of it
            is kept for second derivatives. The input itself may change in place in any case.
        restore: for second derivatives, the inputs named in `unsaved` and `copied`, from the inputs
            and the saved results. Those in `unsaved` by operations that PyTorch differentiates, of
            results that are returned.

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
    op = _define(
        name,
        f"({schema}) -> ({', '.join(f'Tensor {key}' for key in results)})",
        lambda *values: _bare(unnarrowed(values[0], lambda: forward(make(values)))),
        lambda *values: _bare(fake(make(values))),
    )

    def gradients(*values: Any) -> list[Tensor]:
        """Of every tensor; an empty one where there is none."""
        given, rest = make(values[: len(hints)]), values[len(hints) :]
        found = unnarrowed(values[0], lambda: backward(given, *rest))
        return [
            found[key].contiguous() if key in found and x is not None else _nothing(values)
            for key, x in zip(tensors, given, strict=False)
        ]

    extra = [f"Tensor saved_{key}" for key in saved] + [f"Tensor? grad_{key}" for key in returned]
    back = _define(
        f"{name}_backward",
        f"({', '.join([schema, *extra])}) -> Tensor[]",
        gradients,
        lambda *values: [_fake_gradient(x, values) for x in values[:count]],
    )
    places = [results.index(key) for key in saved]
    unread, copies = [*unsaved.split(), *copied.split()], copied.split()

    def without_memory(key: str, x: Tensor | None) -> bool:
        """Whether the backward gets only the shape of an input."""
        return key in unread and x is not None and not (key in copies and x.requires_grad)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        output = _results(output)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[len(returned) :])
        ctx.options = inputs[count:]
        kept = [
            x.new_empty(()).expand(x.shape) if without_memory(key, x) else x
            for key, x in zip(tensors, inputs[:count], strict=True)
        ]
        ctx.save_for_backward(*kept, *(output[i] for i in places))

    def differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        values = ctx.saved_tensors  # read once: checkpointing recomputes them for each reading
        given, read = values[:count], values[count:]
        found = back(*given, *ctx.options, *read, *grads[: len(returned)])
        wanted = [g if differentiable(x) else None for x, g in zip(given, found, strict=True)]
        return *wanted, *[None] * len(ctx.options)

    torch.library.register_autograd(op, differentiate, setup_context=setup)
    form = reference if restore is not None or not unread else None
    second = Second(name, make, tensors, len(hints), len(saved), form, restore, without_memory)
    torch.library.register_autograd(back, second.differentiate, setup_context=second.setup)

    def run(values: Any) -> tuple[Tensor, ...]:
        if getattr(values, "impl", None) == "reference" or transformed(values):
            if reference is None:
                raise NotImplementedError(
                    f"{name} has no form for forward-mode differentiation or torch.func; "
                    "use backward() or torch.autograd.grad"
                )
            return reference(values)
        if plain(*values[:count]):
            return unnarrowed(values[0], lambda: forward(values))[: len(returned)]
        if copies and _wants_gradient(tuple(getattr(values, key) for key in copies)):
            values = values._replace(**{key: getattr(values, key).clone() for key in copies})
        if "keep" in hints:
            values = values._replace(keep=_wants_gradient(values[:count]))
        return _results(op(*values))[: len(returned)]

    run.op, run.backward_op = op, back  # type: ignore[attr-defined]
    return run


def _define(
    name: str, schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]
) -> torch._ops.OpOverload:
    """The op `longstate::name` for all devices.

    Not by `torch.library.custom_op`, whose first call imports PyTorch's compiler, which takes
    seconds.
    """
    whole = f"longstate::{name}"
    torch.library.define(whole, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(whole, "default", kernel)
    torch.library.register_fake(whole, fake)
    found: torch._ops.OpOverload = getattr(torch.ops.longstate, name).default
    return found


def _bare(results: tuple[Tensor, ...]) -> Any:
    """The results in the form that PyTorch expects: a single one without a tuple."""
    return results[0] if len(results) == 1 else tuple(results)


def _results(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _nothing(values: tuple[Any, ...]) -> Tensor:
    return values[0].new_empty(0)


def _fake_gradient(x: Tensor | None, values: tuple[Any, ...]) -> Tensor:
    if x is None or not differentiable(x):
        return _nothing(values)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _wants_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
