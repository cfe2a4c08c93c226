"""A layer or a model together with its current state.

    y = stream.push(u)        is        y, state = module(u, state)

A single sample, or token, goes through `module.step` if the module has one. The result equals that
of a call of length 1 up to rounding.

The state is data. A call never changes the state that it was given, so a snapshot needs no copy and
many streams may share one.

Axes: b batch, t time, ... other axes of the module's inputs (d channels; none for tokens).
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from longstate.errors import InputError
from longstate.layers._base import State
from longstate.stream import _batch as batch
from longstate.stream._saving import Codec, read, save_state
from longstate.stream._tree import fit, flatten, init_state


class Snapshot(NamedTuple):
    """The state and the position of a stream at one time.

    The tensors are shared with the stream. Do not write to them; write to copies (`select`,
    `torch.clone`).

    Attributes:
        state: of the module; None before the first sample.
        position: number of samples pushed so far.
    """

    state: State
    position: int


class Stream:
    """A stream: push samples, get outputs. The state is kept between the calls.

    Args:
        module: a layer, a stack, a language model: `y, state = module(u, state)` and
            `init_state(batch)`; `y_t, state = module.step(u_t, state)` is optional. Its mode,
            training or evaluation, is not changed.
        state: the initial state, for example after a prefix. None: zero, with as many rows as the
            first push.
        chunk: samples per call of `module`; a longer input is cut into pieces of this length, so
            that memory does not grow with it. None: one call per push.
        grad: whether to record gradients, until `detach`. Without gradients memory does not grow.

    Raises:
        InputError: `module` has no state, or `state` does not fit it.
    """

    def __init__(
        self,
        module: nn.Module,
        state: State = None,
        *,
        chunk: int | None = None,
        grad: bool = False,
    ):
        if not flatten(init_state(module, 1)):
            raise InputError(
                f"this {type(module).__name__} carries no state from one call to the next, so it "
                "cannot stream (a bidirectional layer needs the whole sequence)"
            )
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk must be at least 1 sample; got {chunk}")
        self.module, self.chunk, self.grad = module, chunk, grad
        # looked up in the class: a compiled module also has the uncompiled methods of the inner one
        self._steps = callable(getattr(type(module), "step", None))
        self._now = Snapshot(None if state is None else fit(module, flatten(state)), 0)

    @property
    def state(self) -> State:
        """The current state; None before the first push of a new stream."""
        return self._now.state

    @property
    def position(self) -> int:
        """Number of samples pushed, masked ones included."""
        return self._now.position

    def push(
        self,
        u: Tensor,
        *,
        dt: Tensor | None = None,
        mask: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> Tensor:
        """Process samples and update the state.

        Args:
            u (b, t, ...): inputs of the module.
            dt, mask, reset (b, t): see `Layer`; passed to the module only if given.

        Returns:
            y (b, t, ...): outputs of the module.

        Raises:
            ValueError: the module does not accept them. The stream is unchanged.
        """
        if u.dim() < 2:
            raise InputError(f"u must have a batch and a time axis; got shape {tuple(u.shape)}")
        given = {k: v for k, v in (("dt", dt), ("mask", mask), ("reset", reset)) if v is not None}
        for name, option in given.items():
            if option.shape != u.shape[:2]:
                raise InputError(
                    f"{name} must have the shape {tuple(u.shape[:2])}; got {tuple(option.shape)}"
                )
        length = u.shape[1]
        chunk, outputs = self.chunk or max(length, 1), []
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            state = self.state if self.state is not None else init_state(self.module, len(u))
            for start in range(0, max(length, 1), chunk):
                end = start + chunk
                now = {name: option[:, start:end] for name, option in given.items()}
                y, state = self._call(u[:, start:end], state, now)
                outputs.append(y)
        self._now = Snapshot(state, self.position + length)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def _call(self, u: Tensor, state: State, given: dict[str, Any]) -> tuple[Tensor, State]:
        if u.shape[1] == 1 and self._steps:
            y, state = self.module.step(  # type: ignore[operator]
                u[:, 0], state, **{name: option[:, 0] for name, option in given.items()}
            )
            return y[:, None], state
        return self.module(u, state, **given)

    def snapshot(self) -> Snapshot:
        """The current state and position. Nothing is copied."""
        return self._now

    def roll_back(self, snapshot: Snapshot) -> None:
        """Return to a snapshot; samples pushed since then have no effect.

        Raises:
            InputError: the argument is not a snapshot.
        """
        if not isinstance(snapshot, Snapshot):
            kind = type(snapshot).__name__
            raise InputError(f"roll_back expects what snapshot() returned; got a {kind}")
        self._now = snapshot

    def fork(self, n: int = 1) -> "Stream":
        """An independent stream with a copy of the current state.

        Args:
            n: copies of every row, next to each other: rows 0, 0, 1, 1 for n = 2.
        """
        other = Stream(self.module, chunk=self.chunk, grad=self.grad)
        state = None if self.state is None else batch.fork(self.state, n)
        other._now = Snapshot(state, self.position)
        return other

    def detach(self) -> None:
        """Detach the state, so that backward stops here: truncated back-propagation."""
        state = tree_map(lambda t: t if t is None else t.detach(), self.state)
        self._now = Snapshot(state, self.position)

    def save(self, path: str | Path, *, codec: Codec | None = None) -> None:
        """Write state and position, atomically; see `save_state`."""
        if self.state is None:
            raise InputError("there is nothing to save: the stream has not begun")
        save_state(path, self.module, self.state, position=self.position, codec=codec)

    def load(self, path: str | Path, *, codec: Codec | None = None) -> None:
        """Go on where a stream of the same module was saved; see `load_state`.

        Raises:
            InputError: see `load_state`. The stream is unchanged.
        """
        self._now = Snapshot(*read(path, self.module, codec))
