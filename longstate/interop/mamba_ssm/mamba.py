"""`mamba_ssm.Mamba`, its constructor, parameters and calls, on `longstate.ops`.

    x, z = in_proj(u)
    x = silu(conv1d(x))
    r, B, C = x_proj(x)
    y = scan(x; step = softplus(dt_proj(r)), A = -exp(A_log), B, C, D) * silu(z)
    out = out_proj(y)

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), and the
authors' package, version 2.3. `longstate.layers.Mamba` has the same parameters and the interface of
longstate. Differs from the package: with `inference_params`, a prompt may be read in pieces.

Axes: b batch, t time, d channels inside (expand * d_model), n state, r rank of the step, k taps.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.interop.mamba_ssm.cache import (
    InferenceParams,
    StatefulLayer,
    past_inputs,
    push,
    step_bias,
)
from longstate.interop.mamba_ssm.inputs import expect, wide
from longstate.layers._base import full_precision
from longstate.ops import selective_scan, short_conv


class Mamba(StatefulLayer):
    """A selective state space layer.

    Args:
        d_model: channels in and out.
        d_state: n.
        d_conv: k.
        expand: channels inside, as a multiple of `d_model`.
        dt_rank: r. "auto": d_model / 16, rounded up.
        dt_min, dt_max: range of the initial steps.
        dt_init: weights of `dt_proj`: "random" or "constant".
        dt_scale: size of those weights.
        dt_init_floor: least initial step.
        conv_bias, bias: whether the convolution and the outer projections have a bias.
        use_fast_path: as published; it has no effect here.
        layer_idx: where `inference_params` keeps this layer's states.
        device, dtype: of the parameters. `A_log` and `D` are float32.

    Raises:
        InputError: `dt_init` does not exist, or `dt_min` is not in (0, dt_max].
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        options = ("random", "constant")
        expect(dt_init in options, f"dt_init must be 'random' or 'constant'; got {dt_init!r}")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = d = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if isinstance(dt_rank, str) else dt_rank
        self.use_fast_path, self.layer_idx = use_fast_path, layer_idx
        self.state_shape = (d, d_state)
        like = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(d_model, 2 * d, bias=bias, **like)
        self.conv1d = nn.Conv1d(
            d, d, d_conv, groups=d, padding=d_conv - 1, bias=conv_bias, **like
        )  # holds the weights; short_conv runs them
        self.x_proj = nn.Linear(d, self.dt_rank + 2 * d_state, bias=False, **like)
        self.dt_proj = nn.Linear(self.dt_rank, d, **like)
        size = dt_scale * self.dt_rank**-0.5
        if dt_init == "constant":
            nn.init.constant_(self.dt_proj.weight, size)
        else:
            nn.init.uniform_(self.dt_proj.weight, -size, size)
        self.dt_proj.bias = nn.Parameter(step_bias(d, dt_min, dt_max, dt_init_floor, **like))
        rates = torch.arange(1, d_state + 1, dtype=torch.float32, device=device)
        self.A_log = nn.Parameter(rates.log().repeat(d, 1))
        self.D = nn.Parameter(torch.ones(d, device=device))
        self.out_proj = nn.Linear(d, d_model, bias=bias, **like)
        # marks that training code for the package uses
        self.dt_proj.bias._no_reinit = True  # type: ignore[attr-defined]
        self.A_log._no_weight_decay = self.D._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(
        self,
        hidden_states: Float[Tensor, "b t m"],
        inference_params: InferenceParams | None = None,
    ) -> Float[Tensor, "b t m"]:
        """Outputs; with `inference_params`, from its states, which are updated in place.

        Raises:
            InputError: a shape does not fit, or the layer has no `layer_idx` and needs one.
        """
        self._check_input("hidden_states", hidden_states)
        if inference_params is None:
            return self._advance(hidden_states)
        return self._advance(
            hidden_states, *self._cached_states(inference_params, len(hidden_states))
        )

    def _advance(
        self, u: Tensor, conv_state: Tensor | None = None, ssm_state: Tensor | None = None
    ) -> Tensor:
        inside, z = self.in_proj(u).chunk(2, dim=-1)
        with full_precision(u):
            x, _ = short_conv(
                inside, self.conv1d.weight[:, 0], self.conv1d.bias, past_inputs(conv_state),
                activation="silu",
            )  # fmt: skip
        low, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        step, bias = self._step(low)
        with full_precision(u):
            A = -self.A_log.to(wide(self.A_log)).exp()
            y, last = selective_scan(
                x, step, A, B, C, self.D, z, ssm_state, dt_bias=bias, dt_softplus=True
            )
        if conv_state is not None and ssm_state is not None:
            push(conv_state, inside)
            ssm_state.copy_(last.detach())
        return self.out_proj(y)

    def _step(self, low: Tensor) -> tuple[Tensor, Tensor | None]:
        """Steps before their bias, and the bias: the scan adds it in float32."""
        if type(self.dt_proj) is nn.Linear:
            return F.linear(low, self.dt_proj.weight), self.dt_proj.bias
        return self.dt_proj(low), None  # with LoRA or quantisation the module must be called

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, d_state={self.d_state}"
