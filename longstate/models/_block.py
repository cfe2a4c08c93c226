"""One residual block around a layer that mixes along time.

    x = x + mixer(norm(x))                       gate "none"
    x = x + GLU(W gelu(mixer(norm(x))))          gate "glu"
    x = x + mixer(norm(x))                       gate "mlp"
    x = x + V gelu(W norm'(x))

Gate "auto" is "none" for a layer with its own output projection, such as Mamba, and "glu" for all
others, such as S4, as published.

Axes: b batch, t time, d channels.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.errors import InputError
from longstate.layers._base import Layer, State, as_options
from longstate.layers._gated import RMSNorm
from longstate.models._dropout import Dropout

Norm = Literal["rms", "layer"]
Gate = Literal["auto", "glu", "mlp", "none"]
_WIDER = 4  # channels inside an MLP, as a multiple of those outside


class Block(nn.Module):
    """One residual block. Its state is the state of its layer.

    Args:
        mixer: any layer.
        norm: "layer" or "rms", before the layer.
        eps: added to the mean square in the norm.
        gate: "auto", "glu", "mlp" or "none"; see the top of this file.
        dropout: share of the block's added output that is set to zero in training.
    """

    def __init__(
        self,
        mixer: Layer,
        *,
        norm: Norm = "layer",
        eps: float = 1e-5,
        gate: Gate = "auto",
        dropout: float = 0.0,
    ):
        super().__init__()
        d = mixer.d_model
        self.norm = make_norm(norm, d, eps)
        self.mixer = mixer
        form = resolve(gate, mixer)
        self.gate: nn.Module | None = None
        if form == "glu":
            self.gate = nn.Linear(d, 2 * d)
        elif form == "mlp":
            self.gate = MLP(d, make_norm(norm, d, eps))
        self.dropout = Dropout(dropout)

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
        call = as_options(dt, mask, reset, rate)
        y, state = self.mixer(apply_norm(self.norm, u), state, **call)
        return self._add(u, y), state

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
        """`forward` for one sample."""
        call = as_options(dt, mask, reset, rate)
        y, state = self.mixer.step(apply_norm(self.norm, u), state, **call)
        return self._add(u, y), state

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.gate, MLP):
            x = x + self._dropped(y.to(x.dtype))
            y = self.gate(x)
        elif self.gate is not None:
            y = F.glu(self.gate(F.gelu(y).to(weight_dtype(self.norm))), dim=-1)
        return x + self._dropped(y.to(x.dtype))

    def _dropped(self, y: Tensor) -> Tensor:
        return self.dropout(y) if self.training else y  # saves a call without effect

    def last_maps(self) -> list[Tensor]:
        """The weights of the linear maps that write into the residual; empty if there are none."""
        if isinstance(self.gate, nn.Linear):
            return [self.gate.weight]
        own = getattr(self.mixer, "out_proj", None)
        maps = [own.weight] if isinstance(own, nn.Linear) else []
        return [*maps, self.gate.out.weight] if isinstance(self.gate, MLP) else maps


class MLP(nn.Module):
    """A norm, then two linear maps with a GELU between them.

    Args:
        d: channels.
        norm: applied first.
    """

    def __init__(self, d: int, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.into, self.out = nn.Linear(d, _WIDER * d), nn.Linear(_WIDER * d, d)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        x = apply_norm(self.norm, x)
        return self.out(F.gelu(self.into(x.to(self.into.weight.dtype))))


def resolve(gate: Gate, layer: Layer | type[Layer]) -> Gate:
    """The gate of a block around this layer, with "auto" replaced by its meaning.

    Raises:
        InputError: there is no such gate.
    """
    if gate not in ("auto", "glu", "mlp", "none"):
        raise InputError(f"gate must be 'auto', 'glu', 'mlp' or 'none'; got {gate!r}")
    if gate != "auto":
        return gate
    return "none" if layer.own_gate else "glu"


def make_norm(norm: Norm, d: int, eps: float = 1e-5) -> nn.Module:
    """A norm over `d` channels, by name."""
    if norm not in ("layer", "rms"):
        raise InputError(f"norm must be 'rms' or 'layer'; got {norm!r}")
    return RMSNorm(d, eps=eps) if norm == "rms" else nn.LayerNorm(d, eps=eps)


def apply_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Call a norm. RMSNorm converts types itself; PyTorch's LayerNorm needs equal types."""
    return norm(x.to(norm.weight.dtype) if isinstance(norm, nn.LayerNorm) else x)


def weight_dtype(norm: nn.Module) -> torch.dtype:
    """The type of a norm's weights."""
    weight: Any = norm.weight  # a parameter, or a tensor that stands in for it
    return weight.dtype
