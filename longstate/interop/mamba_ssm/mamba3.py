"""`mamba_ssm.Mamba3`: the constructor and calls of the package, by `longstate.layers.Mamba3`.

Parameters have the authors' names and shapes, so that their state dicts can be loaded. Differs from
the package: several inputs and outputs (`is_mimo`), the norm before the last projection
(`is_outproj_norm`) and another floor of the decay are refused. The states of a layer in
`inference_params` are (angle, ssm, k, v).

Axes: b batch, t time, m channels.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from longstate.interop.mamba_ssm.cache import InferenceParams
from longstate.interop.mamba_ssm.inputs import boundaries, expect, expect_axes, expect_shape
from longstate.layers import Mamba3 as Layer

_STATES = ("angle", "ssm", "k", "v")
_WIDE = ("D", "dt_bias")  # float32 at least
_FLOOR = 1e-4


class Mamba3(Layer):
    """A selective layer with a rotating state; single input, single output.

    Args:
        d_model: channels in and out.
        d_state, expand, headdim, ngroups, rope_fraction: sizes, as published.
        dt_min, dt_max, dt_init_floor: range of the initial steps, and their lower bound.
        A_floor: least decay rate; 1e-4 only.
        is_outproj_norm, is_mimo, mimo_rank: not supported.
        chunk_size, n_layer: as published; they have no effect here.
        dropout: 0 only.
        layer_idx: where `inference_params` keeps this layer's states.
        device, dtype: of the parameters.
        variant: the map to a decay rate, "rational" or "softplus"; see `longstate.layers.Mamba3`.

    Raises:
        InputError: an option is not supported.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        expand: int = 2,
        headdim: int = 64,
        ngroups: int = 1,
        rope_fraction: float = 0.5,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        A_floor: float = _FLOOR,
        is_outproj_norm: bool = False,
        is_mimo: bool = False,
        mimo_rank: int = 4,
        chunk_size: int = 64,
        dropout: float = 0.0,
        layer_idx: int | None = None,
        n_layer: int | None = None,
        device=None,
        dtype=None,
        variant: Literal["rational", "softplus"] = "rational",
    ):
        expect(not is_mimo, "is_mimo is not supported by longstate's Mamba3; leave it False")
        expect(not is_outproj_norm, "is_outproj_norm is not supported by longstate's Mamba3")
        expect(A_floor == _FLOOR, f"A_floor must be {_FLOOR} in longstate's Mamba3; got {A_floor}")
        expect(dropout == 0, "dropout is not supported by longstate's Mamba3")
        expect(
            dt_init_floor <= dt_min,
            f"dt_init_floor must be at most dt_min = {dt_min} in longstate's Mamba3; got "
            f"{dt_init_floor}",
        )
        super().__init__(
            d_model, d_state=d_state, expand=expand, d_head=headdim, n_groups=ngroups,
            rope_fraction=rope_fraction, variant=variant, dt_min=dt_min, dt_max=dt_max,
        )  # fmt: skip
        self.layer_idx = layer_idx
        self.to(device=device)
        for name, p in self.named_parameters():
            if name not in _WIDE:
                p.data = p.data.to(dtype)
            if name in (*_WIDE, "B_bias", "C_bias"):
                p._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(  # type: ignore[override]
        self,
        u: Tensor,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inference_params: InferenceParams | None = None,
    ) -> Tensor:
        """Outputs (b, t, m); with `inference_params`, from its states, which are replaced.

        Args:
            u (b, t, m): input.
            seq_idx (b, t): which sequence a sample belongs to. Negative is padding.
            cu_seqlens (s + 1): where sequences begin in a batch of 1, instead of `seq_idx`.
            inference_params: states so far.
        """
        expect_axes("u", u, "batch, time, channels")
        expect_shape("seq_idx", seq_idx, tuple(u.shape[:2]))
        if cu_seqlens is not None and seq_idx is None:
            expect(len(u) == 1, f"cu_seqlens needs a batch of 1; got {len(u)}")
            places = torch.arange(u.shape[1], device=u.device)
            seq_idx = torch.searchsorted(cu_seqlens.long(), places, right=True)[None] - 1
        flags: dict[str, Any] = {}
        if seq_idx is not None:
            expect(inference_params is None, "inference_params cannot be used with seq_idx")
            flags["reset"], flags["mask"] = boundaries(seq_idx)
        if inference_params is None:
            return self._run(u, None, flags)[0]
        expect(self.layer_idx is not None, "inference_params needs Mamba3(layer_idx=...)")
        memory = inference_params.key_value_memory_dict
        old = memory.get(self.layer_idx) if inference_params.seqlen_offset else None
        y, memory[self.layer_idx] = self._run(u, old, flags)
        return y

    def step(  # type: ignore[override]
        self, u: Tensor, *states: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One token u (b, m) or (b, 1, m). Returns the output, and the states angle, ssm, k, v."""
        one = u[:, None] if u.dim() == 2 else u
        y, after = self._run(one, states, {})
        angle, ssm, k, v = after
        return y[:, 0] if u.dim() == 2 else y, angle, ssm, k, v

    def _run(
        self, u: Tensor, old: tuple[Tensor, ...] | None, flags: dict[str, Any]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        state = None if old is None else dict(zip(_STATES, old, strict=True))
        y, after = super().forward(u, state, **flags)
        return y, tuple(after[name].detach() for name in _STATES)

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """Zero states (angle, ssm, k, v), float32 at least; `max_seqlen` has no effect."""
        zero = self.init_state(batch_size)
        return tuple(zero[name] for name in _STATES)
