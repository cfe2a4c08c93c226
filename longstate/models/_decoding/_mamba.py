"""Mamba, and the residual block around it, with one or a few samples in one kernel call.

`prepare_for_decoding` replaces `Mamba` and its block by these classes. The samples of a call share
one reading of the weights. The kernel is used where it is faster: on a CPU, without gradients,
masks, resets and irregular time, for few rows (sequences times samples), and unless several threads
would be faster. In all other cases the methods of the parent class are used.

Axes: b batch, t time, i channels outside, d channels inside, n state, k taps.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import State
from longstate.layers._gated import RMSNorm
from longstate.layers.mamba import Mamba
from longstate.models._block import Block
from longstate.models._decoding._linear import PanelLinear
from longstate.ops._choice import plain
from longstate.ops.matvec import FEW
from longstate.ops.selective_step import BoundStep, Norm, Panels, Weights

# Bytes of weights, once for every four rows; with more, several threads are faster than one call.
_ALONE = 2**24


class _FewAtOnce(nn.Module):
    """`forward` and `step` of a class that has `in_one_call`, which come before its parent's."""

    init_state: Callable[[int], State]

    def forward(
        self,
        u: Float[Tensor, "b t i"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t i"], State]:
        """Any number of samples."""
        if _is_few(u) and dt is None and mask is None and reset is None and rate == 1:
            done = self.in_one_call(u, self.init_state(len(u)) if state is None else state)
            if done is not None:
                return done
        parent: Any = super()
        return parent.forward(u, state, dt=dt, mask=mask, reset=reset, rate=rate)

    def step(
        self,
        u: Float[Tensor, "b i"],
        state: State,
        *,
        dt: Float[Tensor, " b"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b i"], State]:
        """One sample."""
        if dt is None and mask is None and reset is None and rate == 1:
            done = self.in_one_call(u, state)
            if done is not None:
                return done
        parent: Any = super()
        return parent.step(u, state, dt=dt, mask=mask, reset=reset, rate=rate)

    def in_one_call(
        self, u: Float[Tensor, "b *t i"], state: State
    ) -> tuple[Float[Tensor, "b *t i"], State] | None:
        """Samples by the kernel. None if it is not faster, or if an argument does not fit: then
        the parent class raises the error."""
        raise NotImplementedError


class DecodingMamba(_FewAtOnce, Mamba):
    """`Mamba` with its weights in panels, and samples that read them in one call."""

    _bound: BoundStep | None

    def in_one_call(
        self, u: Float[Tensor, "b *t i"], state: State, norm: Norm | None = None
    ) -> tuple[Float[Tensor, "b *t i"], State] | None:
        """With the norm and the residual of a block if a `norm` is given."""
        if self.dt_limit != (0.0, None):  # the kernel does not clamp
            return None
        inner: dict[str, Any] = self._modules  # attributes of a module are slow to look up
        own: dict[str, Any] = self._parameters
        conv = inner["conv1d"]._parameters
        A_log, weight = own["A_log"], conv["weight"]
        weights: list[Any] = [A_log, own["D"], weight, conv["bias"]]
        size = 0
        for name in ("in_proj", "x_proj", "dt_proj", "out_proj"):
            if type(inner[name]) is not PanelLinear:
                return None
            parts = inner[name].parts()
            weights += parts
            size += parts[0].nbytes
        rows = u.shape[:-1].numel()
        if size * -(-rows // 4) > _ALONE and torch.get_num_threads() > 1:
            return None
        if type(state) is not dict or len(state) != 2:
            return None
        taps: Any = state.get("taps")
        ssm: Any = state.get("ssm")
        scale = None if norm is None else norm.weight
        if rows > FEW or not plain(u, taps, ssm, scale, *weights[:4]):
            return None
        b, i, (d, n), past = len(u), u.shape[-1], A_log.shape, weight.shape[2] - 1
        fits, wide = i == self.d_model and u.is_floating_point(), _wide(own["D"].dtype)
        if not fits or not _is(taps, (b, past, d), wide) or not _is(ssm, (b, d, n), wide):
            return None
        bound = self.__dict__.get("_bound")
        if bound is None or not bound.is_of(weights, norm):
            bound = self.__dict__["_bound"] = BoundStep(self._weights(), norm)
        y, taps, ssm = bound(u, taps, ssm)
        return y.to(u.dtype), {"taps": taps, "ssm": ssm}

    def _weights(self) -> Weights:
        maps: Any = (self.in_proj, self.x_proj, self.dt_proj, self.out_proj)
        into, steering, step, out = (Panels(*linear.parts()) for linear in maps)
        conv = self.conv1d
        return Weights(into, conv.weight[:, 0], conv.bias, steering, step, self.A_log, self.D, out)


class DecodingBlock(_FewAtOnce, Block):
    """`Block` around a `DecodingMamba`: norm and residual are part of the same kernel call."""

    def init_state(self, batch: int) -> State:
        """That of the layer."""
        return self.mixer.init_state(batch)

    def in_one_call(
        self, u: Float[Tensor, "b *t i"], state: State
    ) -> tuple[Float[Tensor, "b *t i"], State] | None:
        inner: dict[str, Any] = self._modules
        norm = inner["norm"]
        if type(norm) is not RMSNorm:
            return None
        scale: Any = norm._parameters["weight"]
        return inner["mixer"].in_one_call(u, state, Norm(scale, norm.eps))


def _is_few(u: Any) -> bool:
    """Whether `u` (b, t, i) has few rows, at least one."""
    return isinstance(u, Tensor) and u.dim() == 3 and 0 < u.shape[:2].numel() <= FEW


def swap_in(model: nn.Module) -> None:
    """Replace the plain classes by the decoding classes; other subclasses are not replaced."""
    for module in model.modules():
        if type(module) is Mamba:
            module.__class__ = DecodingMamba
    for module in model.modules():
        if type(module) is Block and type(module.mixer) is DecodingMamba and module.gate is None:
            module.__class__ = DecodingBlock


def _is(x: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    return type(x) is Tensor and x.shape == shape and x.dtype == dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type of the states of a layer whose parameters are of this type."""
    return dtype if dtype == torch.float64 else torch.float32
