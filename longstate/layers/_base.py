"""The contract of every layer: `y, state = layer(u, state)`.

Training, streaming, chunked prefill, irregular time and packing are the same call. `state` is a
pytree of tensors, batch first, that holds everything the next call needs; a full pass, a chunk and
a step take and return the same structure. `longstate.testing.check_layer` asserts all of it.

Axes: b batch, t time, d channels.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._pytree import tree_map

from longstate.layers._difference import difference
from longstate.layers._dynamics import Dynamic
from longstate.layers._made import remembering
from longstate.ops._transforms import can_look

State = Any
"""A tensor, or a tuple, list or dict of states. The first axis of every tensor is the batch."""


class Layer(Dynamic):
    """Mixes along time. Subclasses set `d_model` and `dynamics`, and define the methods below.

    `forward` is the same call for every layer, and `step` is that call for one sample: u is (b, d)
    then, and dt, mask and reset are (b).
    """

    d_model: int
    own_gate: bool = False
    """Whether the layer ends in its own output projection, so that a block need not add one."""
    scans: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    """The operations that the state goes through, by its parts, if these are all that depends on
    it. `longstate.parallel` puts others in their place."""
    if TYPE_CHECKING:  # nn.Module.__call__ returns Any

        def __call__(
            self,
            u: Tensor,
            state: State = None,
            *,
            dt: Tensor | None = None,
            mask: Tensor | None = None,
            reset: Tensor | None = None,
            rate: float = 1.0,
        ) -> tuple[Tensor, State]: ...

    @property
    def grows(self) -> bool:
        """Whether axis 1 of the tensors in its state gets longer with every sample."""
        return False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = remembering(cls.__init__)  # type: ignore[method-assign]

    def init_state(self, batch: int) -> State:
        """The state before the first sample of `batch` sequences: zero."""
        raise NotImplementedError

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Process a whole sequence, or the next piece of one.

        Args:
            u (b, t, d): input. float16 and bfloat16 are widened inside; y comes back in u's type.
            state: what an earlier call returned, or `init_state(b)`. Zero when None. It is never
                changed in place, so it can be used again. It is differentiable; for truncated
                back-propagation call `state = tree_map(Tensor.detach, state)`.
            dt (b, t): time since the previous sample, as a multiple of the regular interval; at
                least 0. None means 1 everywhere.
            mask (b, t): bool. A False sample is skipped, wherever it is: it does not change the
                state or any later output, its `dt` is ignored, and y there is 0.
            reset (b, t): bool. True clears the state before that sample (masked or not), so that
                several sequences can be packed into one row.
            rate: the sampling interval as a multiple of the one that the layer was trained with,
                above 0: 2 runs a model of a 16 kHz signal at 8 kHz. The same as `dt = rate` at
                every sample; if both are given, they are multiplied. S4 accepts `rate` although it
                accepts no `dt`.

        Returns:
            y (b, t, d), and the state after the last sample.

        Raises:
            ValueError: an argument does not fit; or `dt`, or a `rate` other than 1, is given to a
                layer without a time step.
        """
        raise NotImplementedError

    def step(
        self,
        u: Float[Tensor, "b d"],
        state: State,
        *,
        dt: Float[Tensor, " b"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b d"], State]:
        """Process one sample. Layers override this where it can be faster than `forward`."""

        dt, mask, reset = (None if x is None else x[:, None] for x in (dt, mask, reset))
        call = as_options(dt, mask, reset, rate)
        y, state = self(u[:, None], state, **call)
        return y[:, 0], state

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}"


def check_call(
    layer: Layer,
    u: Tensor,
    state: State,
    dt: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    rate: float = 1.0,
) -> State:
    """Check the arguments of a call. Returns the state, zero when None was given.

    Raises:
        ValueError: names the argument, the value and what was expected.
    """
    name = type(layer).__name__
    if u.dim() != 3 or u.shape[2] != layer.d_model:
        raise ValueError(
            f"{name} expects u of shape (batch, time, {layer.d_model}); got {tuple(u.shape)}"
        )
    if u.shape[1] == 0:
        raise ValueError(f"{name} got a sequence without samples: u has shape {tuple(u.shape)}")
    if not u.is_floating_point():
        raise ValueError(f"{name} expects a floating-point u; got {u.dtype}")
    for label, flag in (("mask", mask), ("reset", reset)):
        if flag is not None and (flag.shape != u.shape[:2] or flag.dtype != torch.bool):
            raise ValueError(
                f"{name} expects {label} to be a bool tensor of shape {tuple(u.shape[:2])}; "
                f"got {flag.dtype} of shape {tuple(flag.shape)}"
            )
    if dt is not None:
        _check_dt(name, u, dt)
    if rate != 1:
        check_rate(name, rate)
    if state is None:
        return layer.init_state(u.shape[0])
    check_state(layer, state, u.shape[0])
    return state


def check_step(
    layer: Layer,
    u: Tensor,
    state: State,
    dt: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    rate: float = 1.0,
) -> State:
    """`check_call` for one sample: u (b, d), dt, mask and reset (b)."""
    if u.dim() != 2 or u.shape[1] != layer.d_model:
        raise ValueError(
            f"{type(layer).__name__}.step expects u of shape (batch, {layer.d_model}); "
            f"got {tuple(u.shape)}"
        )
    dt, mask, reset = (None if x is None else x[:, None] for x in (dt, mask, reset))
    return check_call(layer, u[:, None], state, dt, mask, reset, rate)


def _check_dt(name: str, u: Tensor, dt: Tensor) -> None:
    if dt.shape != u.shape[:2]:
        raise ValueError(f"{name} expects dt of shape {tuple(u.shape[:2])}; got {tuple(dt.shape)}")
    # Reading values would break a compiled graph or a transform, and synchronise with a GPU.
    if can_look() and dt.device.type == "cpu":
        with torch.no_grad():
            if not bool(((dt >= 0) & (dt < torch.inf)).all()):
                raise ValueError(f"{name} expects every dt to be finite and at least 0")


def check_rate(name: str, rate: float) -> None:
    """Check that `rate` is a finite number above 0."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
        raise ValueError(f"{name} expects rate to be a finite number above 0; got {rate!r}")


def check_state(layer: Layer, state: State, batch: int) -> None:
    """Check that a state has the structure, shapes and types of this layer's, for `batch` rows.

    Raises:
        ValueError: names the first place that differs.
    """
    empty = layer.init_state(0)  # a state of the full batch would take longer than a step
    wrong = difference(state, empty, batch, layer.grows)
    if wrong is not None:
        where = "state" + "".join(f"[{key!r}]" for key in wrong.path)
        raise ValueError(
            f"{type(layer).__name__} expects {where} to be {wrong.wanted} for a batch of {batch}; "
            f"got {wrong.found}: pass what an earlier call returned, or None to begin"
        )


def as_options(
    dt: Tensor | None, mask: Tensor | None, reset: Tensor | None, rate: float
) -> dict[str, Any]:
    """The options of a call that were given. A module need not accept the others."""
    given = {"dt": dt, "mask": mask, "reset": reset, "rate": None if rate == 1 else rate}
    return {name: value for name, value in given.items() if value is not None}


def no_step(layer: Layer) -> ValueError:
    """The error of `step` for a bidirectional layer."""
    return ValueError(
        f"{type(layer).__name__}(bidirectional=True) needs the whole sequence and has no step; "
        "build it with bidirectional=False to stream"
    )


def zero_masked(u: Tensor, mask: Tensor | None) -> Tensor:
    """`u` (b, t, d) or (b, d), 0 where the mask is False. Masked samples may be NaN."""
    return u if mask is None else u.masked_fill(~mask[..., None], 0)


def scaled(u: Tensor, dt: Tensor | None, rate: float) -> Tensor | None:
    """The time before each sample (b, t) at another `rate`; None is 1 everywhere."""
    if rate == 1:
        return dt
    return u.new_full(u.shape[:-1], rate, dtype=_wide(u)) if dt is None else dt.to(_wide(u)) * rate


def _wide(u: Tensor) -> torch.dtype:
    return torch.promote_types(u.dtype, torch.float32)


def of_no_rows(layer: Layer, u: Tensor) -> tuple[Tensor, State]:
    """The result for a batch without rows: that for one row of zeros, with the row removed."""
    zero = u.new_zeros(1, 1, u.shape[2]) + u.sum()
    y, state = layer.forward(zero)
    return y[:0].expand(u.shape), tree_map(lambda s: s[:0].clone(), state)


def full_precision(u: Tensor) -> AbstractContextManager:
    """Context in which autocast does not narrow decays, states and their products."""
    if not torch.is_autocast_enabled(u.device.type):
        return nullcontext()  # much cheaper to enter
    return torch.autocast(u.device.type, enabled=False)
