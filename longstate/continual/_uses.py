"""How a model uses each of its parameters, and the features that its matrices see.

Axes: s samples, d features, o outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from longstate.errors import InputError
from longstate.ops._double import widen

_PART = 8192  # samples that are added to a factor together: limits the memory
_SHAPES = {"size", "dim", "numel", "new_zeros", "new_ones", "new_empty", "new_full"}
_FLAGS = {"is_complex", "is_floating_point", "__hash__"}


class Uses:
    """All uses of one parameter.

    Attributes:
        factor (d + 1, d + 1): upper triangular; factor' factor is the sum over all samples of the
            products of (x, 1), for the inputs x of `F.linear`. None: no such use.
        rows (o): which rows `F.embedding` has read. None: no such use.
        partners: of a weight, the names of the biases that were added; of a bias, those of the
            weights. "" stands for none, or for a tensor that is no parameter.
        other: name of a function of another kind that has read the parameter, or "".
        eps: rounding error of the features.
    """

    def __init__(self) -> None:
        self.factor: Tensor | None = None
        self.rows: Tensor | None = None
        self.partners: set[str] = set()
        self.other = ""
        self.eps = 0.0

    def add_features(self, x: Tensor) -> None:
        """Add the features x (..., d) of one call."""
        self.eps = max(self.eps, torch.finfo(x.dtype).eps)
        for part in x.detach().flatten(0, -2).split(_PART):
            new = F.pad(widen(part), (0, 1), value=1.0)
            if self.factor is not None:
                new = torch.cat([self.factor.to(new), new])
            self.factor = torch.linalg.qr(new, mode="r").R

    def add_rows(self, index: Tensor, count: int) -> None:
        """Add the rows that one call of `F.embedding` reads."""
        if self.rows is None:
            self.rows = torch.zeros(count, dtype=torch.bool, device=index.device)
        self.rows[index.flatten()] = True


class Watch(TorchFunctionMode):
    """Context in which every call of PyTorch that reads a watched parameter is recorded.

    Args:
        names: of the watched parameters, by their id.
        uses: where they are recorded, by name.
    """

    def __init__(self, names: dict[int, str], uses: dict[str, Uses]):
        super().__init__()
        self.names, self.uses = names, uses

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read = [v for v in tree_leaves((args, kwargs)) if id(v) in self.names]
        if read:
            self._record(func, args, kwargs, read, result)
        return result

    def _record(
        self, func: Callable, args: Any, kwargs: Any, read: list[Tensor], result: Any
    ) -> None:
        name = getattr(func, "__name__", "")
        metadata = name == "__get__" and not isinstance(result, Tensor)
        if metadata or name in _SHAPES | _FLAGS or any(result is p for p in read):
            return
        if func is F.linear:
            read = self._linear(*args, **kwargs)
        elif func is F.embedding:
            read = self._embedding(*args, **kwargs)
        for p in read:
            uses = self._of(self.names[id(p)])
            uses.other = uses.other or name

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[Tensor]:
        """Record features. Returns the parameters that were read in another way."""
        name, added = self.names.get(id(weight), ""), self.names.get(id(bias), "")
        if not name or weight.dim() != 2 or weight.is_complex():
            return [p for p in (input, weight, bias) if p is not None and id(p) in self.names]
        if not bool(torch.isfinite(input).all()):
            raise InputError(
                f"an input of {name!r} has values that are not finite; watch() needs data on which "
                "the model works"
            )
        self._of(name).add_features(input)
        self._of(name).partners.add(added)
        if added:
            self._of(added).partners.add(name)
        return [input] if id(input) in self.names else []

    def _embedding(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> list[Tensor]:
        if id(weight) in self.names:
            self._of(self.names[id(weight)]).add_rows(input, len(weight))
        return []

    def _of(self, name: str) -> Uses:
        return self.uses.setdefault(name, Uses())
