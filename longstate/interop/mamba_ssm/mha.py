"""`mamba_ssm.modules.mha`: causal attention between Mamba layers, with its cache.

    q, k, v = conv1d(in_proj(x))       the convolution if d_conv > 0
    out = out_proj(softmax(scale q k^T) v)

with q and k rotated by their positions if `rotary_emb_dim` > 0. Source: `mamba-ssm` 2.3; the
rotation is that of `flash-attn`, which the package uses. The cache of a layer is
(k and v, inputs of the convolution or None).

Axes: b batch, t time, m channels, h heads, g heads of keys and values, p channels per head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.interop.mamba_ssm.cache import InferenceParams, past_inputs, push
from longstate.interop.mamba_ssm.inputs import expect, expect_axes, wide
from longstate.ops import short_conv


class MHA(nn.Module):
    """Causal attention. See the equations in the module docstring.

    Args:
        embed_dim: channels in and out.
        num_heads, num_heads_kv: h and g; g = h when None.
        head_dim: p; embed_dim / h when None.
        mlp_dim: channels of an MLP beside the heads, up and gate, rounded up to 256; 0: none.
        qkv_proj_bias, out_proj_bias: whether the projections have a bias.
        softmax_scale: 1 / sqrt(p) when None.
        causal: whether a sample attends to earlier samples only; needed for a cache.
        layer_idx: where `inference_params` keeps this layer's cache.
        d_conv: taps of the convolution; 0: none.
        rotary_emb_dim: channels of each head that rotate.
        rotary_emb_base: base of the frequencies.
        rotary_emb_interleaved: whether pairs are neighbours, instead of one from each half.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_heads_kv: int | None = None,
        head_dim: int | None = None,
        mlp_dim: int = 0,
        qkv_proj_bias: bool = True,
        out_proj_bias: bool = True,
        softmax_scale: float | None = None,
        causal: bool = False,
        layer_idx: int | None = None,
        d_conv: int = 0,
        rotary_emb_dim: int = 0,
        rotary_emb_base: float = 10000.0,
        rotary_emb_interleaved: bool = False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.embed_dim, self.num_heads, self.d_conv = embed_dim, num_heads, d_conv
        self.num_heads_kv = num_heads if num_heads_kv is None else num_heads_kv
        expect(
            num_heads % self.num_heads_kv == 0,
            f"num_heads_kv must divide num_heads = {num_heads}; got {num_heads_kv}",
        )
        expect(
            head_dim is not None or embed_dim % num_heads == 0,
            f"num_heads must divide embed_dim = {embed_dim}, without head_dim; got {num_heads}",
        )
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.mlp_dim = -(-mlp_dim // 256) * 256
        self.softmax_scale, self.causal, self.layer_idx = softmax_scale, causal, layer_idx
        self.rotary_emb_dim, self.rotary_emb_base = rotary_emb_dim, rotary_emb_base
        self.rotary_emb_interleaved = rotary_emb_interleaved
        d = self.head_dim * (num_heads + 2 * self.num_heads_kv)
        like = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(embed_dim, d + self.mlp_dim, bias=qkv_proj_bias, **like)
        if d_conv:
            self.conv1d = nn.Conv1d(d, d, d_conv, groups=d, padding=d_conv - 1, **like)
        self.out_proj = nn.Linear(
            self.head_dim * num_heads + self.mlp_dim // 2, embed_dim, bias=out_proj_bias, **like
        )

    def forward(self, x: Tensor, inference_params: InferenceParams | None = None) -> Tensor:
        """Outputs (b, t, m); with `inference_params`, after its cache, which is extended.

        Raises:
            InputError: a shape does not fit, or a cache is not possible.
        """
        expect_axes("x", x, "batch, time, channels")
        past = conv_state = None
        offset = 0
        if inference_params is not None:
            expect(self.causal, "inference_params needs MHA(causal=True)")
            expect(self.layer_idx is not None, "inference_params needs MHA(layer_idx=...)")
            offset = inference_params.seqlen_offset
            memory = inference_params.key_value_memory_dict
            if offset == 0 or self.layer_idx not in memory:
                memory[self.layer_idx] = self.allocate_inference_cache(
                    len(x), inference_params.max_seqlen
                )
            past, conv_state = memory[self.layer_idx]
            expect(
                len(past) == len(x) and offset + x.shape[1] <= past.shape[1],
                f"the cache is for {len(past)} rows and {past.shape[1]} tokens; got {len(x)} rows "
                f"up to token {offset + x.shape[1]}",
            )
        qkv = self.in_proj(x)
        qkv, beside = qkv.split([qkv.shape[-1] - self.mlp_dim, self.mlp_dim], dim=-1)
        if self.d_conv:
            inside = qkv
            qkv = short_conv(
                inside, self.conv1d.weight[:, 0], self.conv1d.bias, past_inputs(conv_state)
            )[0]
            if conv_state is not None:
                push(conv_state, inside)
        h, g = self.num_heads, self.num_heads_kv
        q, k, v = qkv.unflatten(-1, (-1, self.head_dim)).split([h, g, g], dim=2)
        if self.rotary_emb_dim:
            q, k = self._rotated(q, offset), self._rotated(k, offset)
        if past is not None:
            past[:, offset : offset + x.shape[1]] = torch.stack([k, v], dim=2).detach()
            k, v = past[:, : offset + x.shape[1]].to(q.dtype).unbind(2)
        y = self._attend(q, k, v, offset).flatten(2)
        if self.mlp_dim:
            up, gate = beside.chunk(2, dim=-1)
            y = torch.cat([y, up * F.silu(gate)], dim=-1)
        return self.out_proj(y)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, offset: int) -> Tensor:
        """q (b, t, h, p) on k and v (b, offset + t, g, p): (b, t, h, p)."""
        t, s = q.shape[1], k.shape[1]
        seen = None
        if self.causal:
            seen = torch.ones(t, s, dtype=torch.bool, device=q.device).tril(offset)
        return F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=seen,
            scale=self.softmax_scale, enable_gqa=q.shape[2] != k.shape[2],
        ).transpose(1, 2)  # fmt: skip

    def _rotated(self, x: Tensor, offset: int) -> Tensor:
        """x (b, t, heads, p), its first channels rotated by their positions from `offset` on."""
        r, t = self.rotary_emb_dim, x.shape[1]
        like: dict[str, Any] = {"device": x.device, "dtype": wide(x)}
        exponents = torch.arange(0, r, 2, **like) / r
        places = torch.arange(offset, offset + t, **like)
        angle = (places[:, None] * self.rotary_emb_base**-exponents)[:, None]  # (t, 1, r / 2)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        turning, still = x.split([r, x.shape[-1] - r], dim=-1)
        if self.rotary_emb_interleaved:
            a, b = turning.unflatten(-1, (-1, 2)).unbind(-1)
            turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        else:
            a, b = turning.chunk(2, dim=-1)
            turned = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
        return torch.cat([turned, still], dim=-1)

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Zero keys and values (b, max_seqlen, 2, g, p), and past inputs (b, d, k) or None."""
        weight = self.out_proj.weight
        kv = weight.new_zeros(
            batch_size, max_seqlen, 2, self.num_heads_kv, self.head_dim, dtype=dtype
        )
        if not self.d_conv:
            return kv, None
        return kv, kv.new_zeros(batch_size, self.d_conv, len(self.conv1d.weight)).mT
