"""States of layers between calls, as in `mamba_ssm.utils.generation`.

A layer's two states are (conv_state, ssm_state) in `key_value_memory_dict[layer_idx]`. They are
updated in place. A `seqlen_offset` of 0 means a new prompt; otherwise the input continues the text.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from longstate.interop.mamba_ssm.inputs import expect, expect_axes, expect_shape


@dataclass
class InferenceParams:
    """The states of all layers during generation.

    Attributes:
        max_seqlen, max_batch_size: as published; not read here.
        seqlen_offset: number of tokens so far.
        batch_size_offset: as published; not read here.
        key_value_memory_dict: states of each layer, by its `layer_idx`.
        lengths_per_sample (b): as published; not read here.
    """

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict = field(default_factory=dict)
    lengths_per_sample: Tensor | None = None

    def reset(self, max_seqlen: int, max_batch_size: int) -> None:
        """Start again. The next prompt clears the states."""
        self.max_seqlen, self.max_batch_size, self.seqlen_offset = max_seqlen, max_batch_size, 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


class StatefulLayer(nn.Module):
    """Base of layers with the published `step` and `allocate_inference_cache`.

    Subclasses set the attributes below, and define `_advance`.
    """

    d_model: int
    d_conv: int
    layer_idx: int | None
    conv1d: nn.Conv1d
    state_shape: tuple[int, ...]
    """Shape of `ssm_state` without its batch."""

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Zero states (b, channels, d_conv) and (b, *state_shape); `max_seqlen` has no effect.

        In the type of the weights if `dtype` is None.
        """
        weight = self.conv1d.weight
        zeros = weight.new_zeros(batch_size, dtype=dtype or weight.dtype)
        conv = zeros.new_zeros(batch_size, self.d_conv, len(weight)).mT  # channels contiguous
        return conv, zeros.new_zeros(batch_size, *self.state_shape)

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One token.

        Args:
            hidden_states (b, 1, d_model): input.
            conv_state, ssm_state: as from `allocate_inference_cache`. Updated in place.

        Returns:
            Output (b, 1, d_model), and the two states.

        Raises:
            InputError: more than one token, or states of other shapes.
        """
        expect_shape("hidden_states", hidden_states, (len(hidden_states), 1, self.d_model))
        self._check_states(len(hidden_states), conv_state, ssm_state)
        return self._advance(hidden_states, conv_state, ssm_state), conv_state, ssm_state

    def _advance(self, u: Tensor, conv_state: Tensor, ssm_state: Tensor) -> Tensor:
        raise NotImplementedError

    def _cached_states(self, params: InferenceParams, batch: int) -> tuple[Tensor, Tensor]:
        """This layer's states; zero before a new prompt."""
        expect(
            self.layer_idx is not None,
            f"{type(self).__name__} needs layer_idx, to find its states in inference_params",
        )
        states = params.key_value_memory_dict
        if self.layer_idx not in states:
            states[self.layer_idx] = self.allocate_inference_cache(batch, params.max_seqlen)
        conv_state, ssm_state = states[self.layer_idx]
        self._check_states(batch, conv_state, ssm_state)
        if params.seqlen_offset == 0:
            conv_state.zero_()
            ssm_state.zero_()
        return conv_state, ssm_state

    def _check_states(self, batch: int, conv_state: Tensor, ssm_state: Tensor) -> None:
        expect_shape("conv_state", conv_state, (batch, len(self.conv1d.weight), self.d_conv))
        expect_shape("ssm_state", ssm_state, (batch, *self.state_shape))

    def _check_input(self, name: str, u: Tensor) -> None:
        expect_axes(name, u, "batch, time, channels")
        expect(u.shape[1] > 0, f"{name} has no samples")
        expect_shape(name, u, (*u.shape[:2], self.d_model))


def past_inputs(conv_state: Tensor | None) -> Tensor | None:
    """Taps (b, k - 1, d) of `short_conv` from a state (b, d, k), which has one more input."""
    return None if conv_state is None else conv_state[..., 1:].mT.clone()


def push(conv_state: Tensor, x: Tensor) -> None:
    """Append x (b, t, d) to the inputs in a state (b, d, k), in place."""
    new = x.detach()[:, -conv_state.shape[2] :].mT.to(conv_state.dtype)
    conv_state.copy_(torch.cat([conv_state, new], dim=-1)[..., -conv_state.shape[2] :])


def step_bias(
    n: int, dt_min: float, dt_max: float, floor: float, device=None, dtype=None
) -> Tensor:
    """b (n) such that softplus(b) is log-uniform in [dt_min, dt_max], and at least `floor`."""
    expect(0 < dt_min <= dt_max, f"dt_min must be in (0, dt_max = {dt_max}]; got {dt_min}")
    u = torch.rand(n, device=device, dtype=dtype)
    dt = torch.exp(u * math.log(dt_max / dt_min) + math.log(dt_min)).clamp(min=floor)
    return dt + torch.log(-torch.expm1(-dt))
