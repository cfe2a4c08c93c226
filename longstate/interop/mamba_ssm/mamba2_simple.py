"""`mamba_ssm.modules.mamba2_simple`: Mamba-2 without generation, with learnable initial states.

Axes: b batch, t time, m channels, h heads, p channels per head, n state.
"""

import torch
from torch import Tensor, nn

from longstate.interop.mamba_ssm.gated_norm import RMSNorm
from longstate.interop.mamba_ssm.inputs import expect, expect_shape
from longstate.interop.mamba_ssm.mamba2 import Mamba2
from longstate.interop.mamba_ssm.ssd import NO_LIMITS, Limits


class Mamba2Simple(Mamba2):
    """`Mamba2` with one norm over all channels, and without states between calls.

    Args:
        learnable_init_states: whether every sequence starts from `init_states` (h, p, n).
        activation: of the convolution; "silu" or "swish", the same.
        All others as for `Mamba2`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: int = 2,
        headdim: int = 128,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: Limits = NO_LIMITS,
        learnable_init_states: bool = False,
        activation: str = "swish",
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        device=None,
        dtype=None,
    ):
        expect(activation in ("silu", "swish"), f"activation must be silu; got {activation!r}")
        super().__init__(
            d_model, d_state, d_conv, conv_init, expand, headdim, ngroups=ngroups,
            A_init_range=A_init_range, dt_min=dt_min, dt_max=dt_max, dt_init_floor=dt_init_floor,
            dt_limit=dt_limit, bias=bias, conv_bias=conv_bias, chunk_size=chunk_size,
            use_mem_eff_path=use_mem_eff_path, layer_idx=layer_idx, device=device, dtype=dtype,
        )  # fmt: skip
        self.norm = RMSNorm(self.d_ssm, norm_before_gate=False, device=device, dtype=dtype)
        self.init_states: nn.Parameter | None = None
        if learnable_init_states:
            zeros = torch.zeros(self.state_shape, device=device, dtype=dtype)
            self.init_states = nn.Parameter(zeros)
            self.init_states._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, u: Tensor, seq_idx: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Outputs (b, t, m) of u (b, t, m). seq_idx (b, t): which sequence a sample belongs to."""
        self._check_input("u", u)
        expect_shape("seq_idx", seq_idx, tuple(u.shape[:2]))
        before = None
        if self.init_states is not None:
            before = self.init_states.expand(len(u), *self.init_states.shape)
        return self._advance(u, None, before, seq_idx=seq_idx)
