"""`mamba_ssm.Mamba2`, its constructor, parameters and calls, on `longstate.ops`.

    z0, x0, z, (x, B, C), dt = in_proj(u)        z0, x0 if d_ssm is less than expand * d_model
    x, B, C = silu(conv1d(x, B, C))
    y = scan(x; step = clamp(softplus(dt + dt_bias)), A = -exp(A_log), B, C, D)
    out = out_proj([silu(z0) * x0, norm(y, z)])  without rmsnorm: y * silu(z)

Dao and Gu, "Transformers are SSMs" (2024), and the authors' package, version 2.3.
`longstate.layers.Mamba2` has the same parameters and the interface of longstate. Differs from the
package: `dt_limit` and `D_has_hdim` apply in generation too; with `inference_params`, a prompt may
be read in pieces; several devices are refused.

Axes: b batch, t time, h heads, p channels per head, n state, g groups, k taps, s sequences.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.interop.mamba_ssm.cache import (
    InferenceParams,
    StatefulLayer,
    past_inputs,
    push,
    step_bias,
)
from longstate.interop.mamba_ssm.convolution import causal_conv1d_varlen_states
from longstate.interop.mamba_ssm.gated_norm import RMSNorm
from longstate.interop.mamba_ssm.inputs import boundaries, expect, expect_axes, expect_shape
from longstate.interop.mamba_ssm.split_conv import Sizes
from longstate.interop.mamba_ssm.ssd import (
    NO_LIMITS,
    Limits,
    scan_heads,
    states_of_sequences,
    step_sizes,
)
from longstate.layers._base import full_precision
from longstate.ops import short_conv


class Mamba2(StatefulLayer):
    """A selective state space layer with one decay per head.

    Args:
        d_model: channels in and out.
        d_state: n.
        d_conv: k.
        conv_init: half-width of the convolution's initial weights. PyTorch's own when None.
        expand: channels inside, as a multiple of `d_model`.
        headdim: p.
        d_ssm: channels inside that are scanned; the others go through a gate. All when None.
        ngroups: g.
        A_init_range: range of the initial decay rates.
        D_has_hdim: whether `D` has one number for each channel, and not one for each head.
        rmsnorm: whether to normalise before the last projection.
        norm_before_gate: whether the gate comes after that norm.
        dt_min, dt_max, dt_init_floor: range of the initial steps, and their lower bound.
        dt_limit: smallest and largest step.
        bias, conv_bias: whether the projections and the convolution have a bias.
        chunk_size, use_mem_eff_path: as published; they have no effect here.
        layer_idx: where `inference_params` keeps this layer's states.
        process_group: not supported.
        sequence_parallel: as published; it has no effect without `process_group`.
        device, dtype: of the parameters. `D` is float32.

    Raises:
        InputError: sizes do not fit, a range is invalid, or `process_group` is given.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: int = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: Limits = NO_LIMITS,
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        process_group=None,
        sequence_parallel: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        expect(process_group is None, "process_group is not supported by longstate's Mamba2")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner, self.headdim, self.ngroups = expand * d_model, headdim, ngroups
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        self.sizes = _sizes(self.d_inner, self.d_ssm, headdim, ngroups, d_state)
        self.nheads, self.state_shape = self.sizes.heads, (self.sizes.heads, headdim, d_state)
        self.D_has_hdim, self.rmsnorm, self.dt_limit = D_has_hdim, rmsnorm, dt_limit
        self.norm_before_gate, self.chunk_size = norm_before_gate, chunk_size
        self.use_mem_eff_path, self.layer_idx = use_mem_eff_path, layer_idx
        like = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(d_model, sum(self.sizes.projected), bias=bias, **like)
        d = self.sizes.convolved
        self.conv1d = nn.Conv1d(
            d, d, d_conv, groups=d, padding=d_conv - 1, bias=conv_bias, **like
        )  # holds the weights; short_conv runs them
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self.dt_bias = nn.Parameter(step_bias(self.nheads, dt_min, dt_max, dt_init_floor, **like))
        self.A_log = nn.Parameter(_log_rates(self.nheads, A_init_range, device).to(dtype))
        self.D = nn.Parameter(torch.ones(self.d_ssm if D_has_hdim else self.nheads, device=device))
        if rmsnorm:
            self.norm = RMSNorm(
                self.d_ssm, group_size=self.d_ssm // ngroups, norm_before_gate=norm_before_gate,
                **like,
            )  # fmt: skip
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **like)
        for parameter in (self.dt_bias, self.A_log, self.D):
            # a mark that training code for the package uses
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(
        self,
        u: Float[Tensor, "*b m"],
        seqlen: int | None = None,
        seq_idx: Int[Tensor, "b t"] | None = None,
        cu_seqlens: Int[Tensor, " s_and_1"] | None = None,
        inference_params: InferenceParams | None = None,
    ) -> Float[Tensor, "*b m"]:
        """Outputs; with `inference_params`, from its states, which are updated in place.

        Args:
            u (b, t, d_model); or (b t, d_model) with `seqlen`.
            seqlen: t, if `u` has two axes.
            seq_idx (b, t): which sequence a sample belongs to. Negative is padding.
            cu_seqlens (s + 1): where sequences begin, and where the last one ends, in a batch of 1.
                With `inference_params` there is one state for each sequence. Needs `seq_idx`.
            inference_params: states so far.

        Raises:
            InputError: a shape does not fit; `cu_seqlens` is given without `seq_idx`, or when
                states of sequences are continued; or the layer needs a `layer_idx` and has none.
        """
        if seqlen is not None:
            expect_axes("u", u, "batch * time, channels")
            expect(
                seqlen > 0 and len(u) % seqlen == 0,
                f"seqlen must divide {len(u)} rows; got {seqlen}",
            )
            u = u.unflatten(0, (-1, seqlen))
        self._check_input("u", u)
        expect_shape("seq_idx", seq_idx, tuple(u.shape[:2]))
        expect(cu_seqlens is None or seq_idx is not None, "cu_seqlens needs seq_idx")
        states: tuple[Tensor, ...] = ()
        if inference_params is not None:
            packed = cu_seqlens is not None and inference_params.seqlen_offset == 0
            expect(
                packed or (cu_seqlens is None and seq_idx is None),
                "seq_idx with inference_params needs cu_seqlens and a seqlen_offset of 0",
            )
            expect(not packed or len(u) == 1, f"cu_seqlens needs a batch of 1; got {len(u)}")
            batch = len(u) if cu_seqlens is None else len(cu_seqlens) - 1
            states = self._cached_states(inference_params, batch)
        y = self._advance(u, *states, seq_idx=seq_idx, cu_seqlens=cu_seqlens)
        return y if seqlen is None else y.flatten(0, 1)

    def _advance(
        self,
        u: Tensor,
        conv_state: Tensor | None = None,
        ssm_state: Tensor | None = None,
        *,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        z0, x0, z, inside, dt = self.in_proj(u).split(self.sizes.projected, dim=-1)
        packed = cu_seqlens if conv_state is not None else None
        reset, mask = (None, None) if seq_idx is None else boundaries(seq_idx)
        with full_precision(u):
            xBC, _ = short_conv(
                inside, self.conv1d.weight[:, 0], self.conv1d.bias,
                past_inputs(conv_state) if packed is None else None,
                activation="silu", reset=reset, mask=mask,
            )  # fmt: skip
            x, B, C = self.sizes.split_convolved(xBC)
            steps = step_sizes(dt, self.dt_bias, True, self.dt_limit)
            A = -self.A_log.to(steps.dtype).exp()
            D = self.D.view(-1, self.headdim) if self.D_has_hdim else self.D
            gate = None if self.rmsnorm else z.unflatten(-1, x.shape[2:])
            before = ssm_state if packed is None else None
            y, last = scan_heads(x, steps, A, B, C, D, gate, before, seq_idx)
            if conv_state is not None and ssm_state is not None:
                if packed is None:
                    push(conv_state, inside)
                else:
                    width = conv_state.shape[2]
                    conv_state.copy_(causal_conv1d_varlen_states(inside[0], packed, width))
                    last = states_of_sequences(x, steps, A, B, C, None, seq_idx, packed)
                ssm_state.copy_(last.detach())
        y = y.flatten(2)
        if self.rmsnorm:
            y = self.norm(y, z)
        if self.sizes.beside:
            y = torch.cat([F.silu(z0) * x0, y], dim=-1)
        return self.out_proj(y)

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, d_state={self.d_state}, headdim={self.headdim}"


def _log_rates(n: int, limits: tuple[float, float], device: torch.device | str | None) -> Tensor:
    """Logarithms (n) of decay rates, drawn uniformly from a range."""
    low, high = limits
    expect(0 < low <= high, f"A_init_range must be a range above 0; got {limits}")
    return torch.empty(n, dtype=torch.float32, device=device).uniform_(low, high).log()


def _sizes(d_inner: int, d_ssm: int, headdim: int, ngroups: int, d_state: int) -> Sizes:
    expect(0 < d_ssm <= d_inner, f"d_ssm must be in (0, expand * d_model = {d_inner}]; got {d_ssm}")
    expect(
        headdim > 0 and d_ssm % headdim == 0,
        f"headdim must divide the {d_ssm} scanned channels; got {headdim}",
    )
    heads = d_ssm // headdim
    expect(
        ngroups > 0 and heads % ngroups == 0, f"ngroups must divide {heads} heads; got {ngroups}"
    )
    return Sizes(heads, headdim, ngroups, d_state, d_inner - d_ssm)
