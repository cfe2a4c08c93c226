"""The published `torch.autograd.Function`s: classes whose `apply` calls a function of this library.

Gradients come from the ops, so these classes have no `forward` and `backward`.

Axes: b batch, d channels, t time.
"""

from typing import Any

from torch import Tensor

from longstate.interop.mamba_ssm.convolution import causal_conv1d_fn
from longstate.interop.mamba_ssm.scan import mamba_inner_fn, selective_scan_fn


class SelectiveScanFn:
    """`SelectiveScanFn.apply(...)` is `selective_scan_fn(...)`."""

    @staticmethod
    def apply(*args: Any) -> Tensor | tuple[Tensor, Tensor]:
        return selective_scan_fn(*args)


class MambaInnerFn:
    """`MambaInnerFn.apply(...)` is `mamba_inner_fn(...)`."""

    @staticmethod
    def apply(*args: Any) -> Tensor:
        return mamba_inner_fn(*args)


class CausalConv1dFn:
    """`CausalConv1dFn.apply(...)` is `causal_conv1d_fn(...)`."""

    @staticmethod
    def apply(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        seq_idx: Tensor | None = None,
        initial_states: Tensor | None = None,
        return_final_states: bool = False,
        final_states_out: Tensor | None = None,
        activation: str | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """`activation` may be True, which means "silu", as in the package."""
        activation = "silu" if activation is True else activation or None
        return causal_conv1d_fn(
            x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out,
            activation,
        )  # fmt: skip
