"""Make a module for the names, shapes and types of its tensors alone."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_IN_PLACE = {"normal_", "uniform_", "zero_", "fill_", "mul_", "div_"}
_REAL = {"exp", "expm1", "log", "log1p", "logit", "sqrt", "div", "__rdiv__", "__rpow__"}
_TRUTH = {"lt", "gt", "__eq__"}
_ELEMENTWISE = {
    *("neg", "clamp", "tril", "triu", "where", "add", "sub", "__rsub__", "mul", "outer"),
    *("remainder", *_REAL, *_TRUTH),
}


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Context manager: tensors made within have neither memory nor numbers (PyTorch's meta device).

    The random state does not change, and there are no warnings, such as of unusual sizes.
    """
    with (
        torch.device("meta"),
        _Elementwise(),
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


class _Elementwise(TorchFunctionMode):
    """Functions with which layers make their first parameters, of tensors without numbers.

    PyTorch finds the shape of a logarithm by a part of its compiler, whose first use takes seconds
    to import. What is not here goes that way too.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if name in _IN_PLACE and not any(isinstance(x, Tensor) for x in args[1:]):
            changed: Tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if changed.is_meta:
                return changed
        if name == "arange" and kwargs.keys() <= {"dtype"}:
            return _arange(*args, **kwargs)
        if name == "diag" and args[0].is_meta and args[0].dim() == 1:
            return args[0].new_empty(2 * args[0].shape)
        if name in ("expand", "repeat") and args[0].is_meta:
            tiled = _tiled(name, args[0].shape, *args[1:])
            return function(*args, **kwargs) if tiled is None else args[0].new_empty(tiled)
        if name in _ELEMENTWISE and kwargs.keys() <= {"min", "max"}:
            values = (args[0][:, None], args[1]) if name == "outer" else args
            tensors = [x for x in values if isinstance(x, Tensor)]
            shape = _broadcast(*(t.shape for t in tensors))
            if all(t.is_meta for t in tensors) and shape is not None:
                return torch.empty(shape, dtype=_kind(name, *values[-2:]), device="meta")
        return function(*args, **kwargs)


def _arange(*bounds: float, dtype: torch.dtype | None = None) -> Tensor:
    start, end, step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    whole = all(isinstance(x, int) for x in bounds)
    default = torch.int64 if whole else torch.get_default_dtype()
    return torch.empty(math.ceil((end - start) / step), dtype=dtype or default, device="meta")


def _tiled(name: str, shape: torch.Size, *sizes: Any) -> list[int] | None:
    """The shape of an expanded or repeated tensor; None where there is none."""
    sizes = sizes if isinstance(sizes[0], int) else tuple(sizes[0])
    own = (1,) * (len(sizes) - len(shape)) + tuple(shape)
    if len(own) != len(sizes):
        return None
    if name == "repeat":
        return [n * times for n, times in zip(own, sizes, strict=True)]
    fits = all(n == 1 or size in (n, -1) for n, size in zip(own, sizes, strict=True))
    return [n if size == -1 else size for n, size in zip(own, sizes, strict=True)] if fits else None


def _broadcast(*shapes: torch.Size) -> tuple[int, ...] | None:
    """The shape of an elementwise result; None where there is none."""
    shape = []
    for sizes in zip_longest(*map(reversed, shapes), fillvalue=1):
        size, *others = {*sizes} - {1} or {1}
        if others:
            return None
        shape.append(size)
    return tuple(reversed(shape))


def _kind(name: str, *values: Any) -> torch.dtype:
    """The type of an elementwise result."""
    kind = torch.bool if name in _TRUTH else torch.result_type(values[0], values[-1])
    whole = name in _REAL and not (kind.is_floating_point or kind.is_complex)
    return torch.get_default_dtype() if whole else kind
