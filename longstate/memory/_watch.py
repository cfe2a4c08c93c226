"""Find the layer that first produced NaN or infinity, and the token; and find saturated states.

    with watch(model) as seen:
        loss(model(tokens)).backward()
    print(seen.result())

The inputs and outputs of every called module are checked, and the gradients of its outputs and its
parameters. The source is a module with finite inputs and an output that is not finite, or one that
passes a value that is not finite to a part of itself. The results of the model do not change; each
check synchronises with the device.

For layers that mix along time the result also says how they forget: selective ones from a trace, in
float64 on the CPU (with a time of 1 between samples), linear ones from their eigenvalues.

A layer's `step` is not a call of the module: only the modules that it calls are checked.

Axes: b batch, t time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from longstate._nonfinite import first_bad
from longstate._numbers import cell, number
from longstate.memory._result import THIS_DATA, Result
from longstate.memory._saturation import Extremes, Forgetting, of_linear


class Trouble(NamedTuple):
    """The first value that was not finite.

    Attributes:
        layer: name of the module that produced it; for a gradient, where it was first found.
        type: class of the module.
        value: "NaN" or "infinity".
        call: number of the call of the model, from 1 on.
        row, token: place in the batch and along time. None if the tensor has no such axis.
        where: description of the place in words.
    """

    layer: str
    type: str
    value: str
    call: int
    row: int | None
    token: int | None
    where: str

    def __str__(self) -> str:
        place = "" if self.token is None else f", at token {self.token} of row {self.row}"
        return f"{self.layer} ({self.type}), call {self.call}{place}: {self.value} {self.where}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Watched(Result):
    """The result of `watch`.

    Args:
        calls: number of calls of the model.
        forward, gradient: the first value and the first gradient that was not finite, if any.
        layers: how each layer that mixes along time forgot.
    """

    calls: int
    forward: Trouble | None
    gradient: Trouble | None
    layers: tuple[Forgetting, ...]

    @property
    def finite(self) -> bool:
        return self.forward is None and self.gradient is None

    def rows(self) -> tuple[list[str], list[list[str]]]:
        def text(x: float | tuple[float, float] | None) -> str:
            if isinstance(x, tuple):
                return f"{number(x[0])} .. {number(x[1])}"
            return cell(x)

        body = [
            [
                v.layer, text(v.step), text(v.decay), f"{100 * v.frozen:.3g} %",
                f"{100 * v.empty:.3g} %", text(v.size), text(v.growth), v.saturated(),
            ]
            for v in self.layers
        ]  # fmt: skip
        return ["layer", "dt", "decay", "frozen", "empty", "|state|", "growth", ""], body

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        for name, keys in (("forward", Trouble._fields), ("gradient", Trouble._fields)):
            if plain[name] is not None:
                plain[name] = dict(zip(keys, plain[name], strict=True))
        plain["layers"] = [dict(zip(Forgetting._fields, v, strict=True)) for v in plain["layers"]]
        return {**plain, "finite": self.finite}


@contextmanager
def watch(model: nn.Module, *, ranges: bool = True) -> "Iterator[Watch]":
    """Context manager: check all values in a model while the block runs.

    Args:
        model: any module. All hooks are removed at the end of the block, also after an error.
        ranges: whether selective layers are traced, which takes about as long as their forward.

    Yields:
        The watch; `result()` can be called at any time.
    """
    seen = Watch(model, ranges)
    try:
        yield seen
    finally:
        seen.close()


class Watch:
    """Hooks in a model, and their findings. Created by `watch`."""

    def __init__(self, model: nn.Module, ranges: bool):
        self._model, self._ranges = model, ranges
        self._names = {id(m): name or type(m).__name__ for name, m in model.named_modules()}
        self._active: list[tuple[nn.Module, bool]] = []  # and whether what it got was finite
        self._busy, self._calls, self._fine = False, 0, ""
        self._grid: tuple[int, ...] = ()
        self._mask: Tensor | None = None
        self._forward: Trouble | None = None
        self._gradient: Trouble | None = None
        self._seen: dict[str, Extremes] = {}
        self._hooks: list[Any] = []
        for module in model.modules():
            self._hooks.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._leave))
        for name, p in model.named_parameters():
            if p.requires_grad:
                self._hooks.append(p.register_hook(self._of_gradient(name, "Parameter")))

    def close(self) -> None:
        """Remove every hook."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def result(self) -> Watched:
        """The findings so far."""
        layers = [v.summary(name) for name, v in self._seen.items()]
        for name, module in self._model.named_modules():
            if hasattr(module, "system"):
                layers.append(of_linear(name or type(module).__name__, module))
        stuck = [f"{v.layer} {v.saturated()}" for v in layers if v.saturated()]
        calls = f"{self._calls} call" + ("" if self._calls == 1 else "s")
        said = [f"Everything was finite in {calls}."]
        if self._forward or self._gradient:
            said = [f"First not finite: {v}." for v in (self._forward, self._gradient) if v]
        if stuck:
            said.append(f"Saturated: {'; '.join(stuck)}.")
        return Watched(
            kind="exact",
            scope=THIS_DATA,
            sentence=" ".join(said),
            calls=self._calls,
            forward=self._forward,
            gradient=self._gradient,
            layers=tuple(layers),
        )

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._busy:
            return
        if module is self._model:
            self._begin(args, kwargs)
        bad = self._find((args, kwargs))
        if bad is not None and self._forward is None:
            self._forward = self._blame(module, *bad)
        self._active.append((module, bad is None))
        if self._ranges and bad is None and hasattr(module, "trace") and args:
            self._busy = True
            try:
                seen = self._seen.setdefault(self._name(module), Extremes())
                seen.read(module, args, kwargs)
            finally:
                self._busy = False

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a call of the whole model: find the batch and time axes of its input."""
        self._active.clear()
        self._calls += 1
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        timed = given and (given[0].dim() > 2 or not given[0].is_floating_point())
        self._grid = tuple(given[0].shape[:2]) if timed else ()
        mask = kwargs.get("mask")
        self._mask = mask if isinstance(mask, Tensor) and mask.shape == self._grid else None

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._busy:
            return
        fine = True
        while self._active:  # a module that raised an exception did not leave
            last, fine = self._active.pop()
            if last is module:
                break
        bad = self._find(output)
        if bad is not None and self._forward is None and fine:
            where = "in its output, with finite inputs" + self._weights(module)
            self._forward = self._trouble(module, *bad, where)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(self._of_gradient(self._name(module), type(module).__name__))

    def _blame(self, module: nn.Module, value: str, place: tuple[int, int] | None) -> Trouble:
        """The input of `module` is not finite: the module that is running is the source."""
        for maker, fine in reversed(self._active):
            if fine:
                where = f"inside it, passed to {self._name(module)}"
                return self._trouble(maker, value, place, where + self._weights(maker))
        return self._trouble(module, value, place, "in its input")

    def _trouble(
        self, module: nn.Module, value: str, place: tuple[int, int] | None, where: str
    ) -> Trouble:
        row, token = place or (None, None)
        return Trouble(
            self._name(module), type(module).__name__, value, self._calls, row, token, where
        )

    def _weights(self, module: nn.Module) -> str:
        bad = first_bad(module.named_parameters())
        return "" if bad is None else f"; its parameter {bad} is not finite"

    def _name(self, module: nn.Module) -> str:
        return self._names[id(module)]

    def _of_gradient(self, name: str, kind: str):
        def look(gradient: Tensor | None) -> None:
            if self._gradient is not None or self._busy:
                return
            bad = self._find(gradient)
            if bad is None:
                self._fine = name
                return
            after = f"; the last finite one was that of {self._fine}" if self._fine else ""
            row, token = bad[1] or (None, None)
            self._gradient = Trouble(
                name, kind, bad[0], self._calls, row, token, f"in its gradient{after}"
            )

        return look

    def _find(self, values: Any) -> tuple[str, tuple[int, int] | None] | None:
        """The first value that is not finite: NaN or infinity, and its row and token."""
        for v in tree_leaves(values):
            if not isinstance(v, Tensor) or not (v.is_floating_point() or v.is_complex()):
                continue
            bad = ~v.detach().isfinite()
            timed = len(self._grid) == 2 and tuple(v.shape[:2]) == self._grid
            if timed and self._mask is not None:  # masked values may be anything
                bad = bad & self._mask.reshape(*self._grid, *(1,) * (v.dim() - 2)).to(bad.device)
            if not bool(bad.any()):
                continue
            value = "NaN" if bool(v.detach()[bad].isnan().any()) else "infinity"
            if not timed:
                return value, None
            rows = bad.flatten(2).any(-1) if v.dim() > 2 else bad
            token = int(rows.any(0).long().argmax())
            return value, (int(rows[:, token].long().argmax()), token)
        return None
