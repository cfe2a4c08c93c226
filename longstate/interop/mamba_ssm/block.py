"""`mamba_ssm.modules.block` and `.mlp`: a residual block, and the gated MLP inside it.

    residual = residual + x
    x = mixer(norm(residual))
    residual = residual + x          with an MLP
    x = mlp(norm2(residual))

The sum is passed on beside x, so that it can stay in float32. Parameter names are those of
`mamba-ssm` 2.3; the tests compare them with its checkpoints.

Axes: b batch, t time, m channels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.interop.mamba_ssm.inputs import expect, wide
from longstate.interop.mamba_ssm.mamba import Mamba
from longstate.interop.mamba_ssm.mamba2 import Mamba2
from longstate.interop.mamba_ssm.mamba3 import Mamba3
from longstate.interop.mamba_ssm.mha import MHA
from longstate.interop.mamba_ssm.residual_norm import RMSNorm

MIXERS: dict[str, type[nn.Module]] = {"Mamba1": Mamba, "Mamba2": Mamba2, "Mamba3": Mamba3}


class GatedMLP(nn.Module):
    """fc2(y * activation(gate)), where fc1 gives y and gate.

    Args:
        in_features: channels in.
        hidden_features: channels inside, rounded up to `multiple_of`. 8/3 of those in when None.
        out_features: channels out. As many as in when None.
        activation: of the gate.
        bias: whether the maps have one.
        multiple_of: divides the channels inside.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        activation: Callable[[Tensor], Tensor] = F.silu,
        bias: bool = False,
        multiple_of: int = 128,
        device=None,
        dtype=None,
    ):
        super().__init__()
        inside = int(8 * in_features / 3) if hidden_features is None else hidden_features
        inside = -(-inside // multiple_of) * multiple_of
        out = in_features if out_features is None else out_features
        like = {"device": device, "dtype": dtype}
        self.fc1 = nn.Linear(in_features, 2 * inside, bias=bias, **like)
        self.activation = activation
        self.fc2 = nn.Linear(inside, out, bias=bias, **like)

    def forward(self, x: Tensor) -> Tensor:
        y, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(y * self.activation(gate))


class Block(nn.Module):
    """A mixer between a norm and a sum, and an MLP after it unless `mlp_cls` is nn.Identity.

    Args:
        dim: channels.
        mixer_cls, mlp_cls, norm_cls: called with `dim`; norms are LayerNorm or RMSNorm.
        fused_add_norm: as published; it has no effect here.
        residual_in_fp32: whether the sum is kept in float32.
    """

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        mlp_cls: Callable[[int], nn.Module] = nn.Identity,
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ):
        super().__init__()
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.norm = norm_cls(dim)
        self.mixer = mixer_cls(dim)
        self.mlp: nn.Module | None = None
        if mlp_cls is not nn.Identity:
            self.norm2 = norm_cls(dim)
            self.mlp = mlp_cls(dim)

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor | None = None,
        inference_params: Any = None,
        **mixer_kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """The output of the mixer or the MLP, not yet added, and the sum (b, t, m)."""
        x, residual = self._add_and_norm(self.norm, hidden_states, residual)
        x = self.mixer(x, inference_params=inference_params, **mixer_kwargs)
        if self.mlp is not None:
            x, residual = self._add_and_norm(self.norm2, x, residual)
            x = self.mlp(x)
        return x, residual

    def _add_and_norm(
        self, norm: nn.Module, x: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        total = x if residual is None else x + residual
        y = norm(total.to(norm.get_parameter("weight").dtype))
        return y, total.to(wide(total)) if self.residual_in_fp32 else total

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None
    ) -> Any:
        """Zero states of the mixer."""
        mixer: Any = self.mixer
        return mixer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype)


def create_block(
    d_model: int,
    d_intermediate: int,
    ssm_cfg: dict[str, Any] | None = None,
    attn_layer_idx: list[int] | None = None,
    attn_cfg: dict[str, Any] | None = None,
    norm_epsilon: float = 1e-5,
    rms_norm: bool = False,
    residual_in_fp32: bool = False,
    fused_add_norm: bool = False,
    layer_idx: int | None = None,
    device=None,
    dtype=None,
) -> Block:
    """The block at one place of a `MixerModel`.

    Args:
        d_model: channels.
        d_intermediate: channels inside the MLP; 0: none.
        ssm_cfg: options of the mixer; "layer" is its kind, "Mamba1", "Mamba2" or "Mamba3".
        attn_layer_idx: places with attention instead of the mixer.
        attn_cfg: its options.
        norm_epsilon, rms_norm: of the norms.
        residual_in_fp32, fused_add_norm: see `Block`.
        layer_idx: the place.
        device, dtype: of the parameters.
    """
    like = {"device": device, "dtype": dtype}
    options = dict(ssm_cfg or {})
    kind = options.pop("layer", "Mamba1")
    expect(kind in MIXERS, f"ssm_cfg['layer'] must be one of {', '.join(MIXERS)}; got {kind!r}")
    mixer: Callable[[int], nn.Module] = partial(
        MIXERS[kind], layer_idx=layer_idx, **options, **like
    )
    if layer_idx is not None and layer_idx in (attn_layer_idx or ()):
        mixer = partial(MHA, layer_idx=layer_idx, **(attn_cfg or {}), **like)
    norm = partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_epsilon, **like)
    mlp: Any = nn.Identity
    if d_intermediate:
        mlp = partial(GatedMLP, hidden_features=d_intermediate, out_features=d_model, **like)
    block = Block(d_model, mixer, mlp, norm, fused_add_norm, residual_in_fp32)
    block.layer_idx = layer_idx  # type: ignore[assignment]
    return block
