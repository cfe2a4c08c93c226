"""Spikes around a layer: every input and output of it is 0 or 1, at random, with a learned rate.

    p_t = a u_t + b               s_t = 1 with probability min(max(p_t, 0), 1), otherwise 0
    v   = layer(s)
    q_t = c v_t + e               o_t = 1 with probability min(max(q_t, 0), 1), otherwise 0
    y   = W o

Each channel is a neuron, and W mixes them. A neuron has no memory of its own spikes, so all samples
are drawn at once and the layer keeps its fast form. The gradient of a spike is that of its rate: 1
where the rate is between 0 and 1, and 0 elsewhere. In evaluation the rates take the place of the
spikes, as their means, and a pass is the same each time; `sample=True` draws there too.

Bal, Sengupta, "P-SpikeSSM: Harnessing Probabilistic Spiking State Space Models for Long-Range
Dependency Tasks", ICLR 2025, arXiv:2406.02923. Differs from the paper's code: input and output
draw their own random numbers, where the code uses the same ones; there is no norm inside, because
the blocks of this library have one in front; the GELU of the paper's block is not here.

Axes: b batch, t time, d channels.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import Layer, State, as_options, check_call, of_no_rows, zero_masked
from longstate.layers._wrapper import Wrapper


class SpikeRates(NamedTuple):
    """Spikes per sample and channel: of what the layer reads, and of what it writes."""

    read: float
    written: float


class Spiking(Wrapper):
    """A layer that reads and writes spikes.

        layer = Spiking(S4D(16))

    Its state is that of the layer inside.

    Args:
        layer: any layer; it is not changed.
        sample: whether to draw spikes in evaluation too.
    """

    def __init__(self, layer: Layer, *, sample: bool = False):
        super().__init__(layer)
        self.sample = sample
        self.read_scale = nn.Parameter(torch.ones(self.d_model))
        self.read_shift = nn.Parameter(torch.zeros(self.d_model))
        self.write_scale = nn.Parameter(torch.ones(self.d_model))
        self.write_shift = nn.Parameter(torch.zeros(self.d_model))
        self.out_proj = nn.Linear(self.d_model, self.d_model)

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
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        _, written, state = self._spikes(u, state, dt, mask, reset, rate)
        y = self.out_proj(written.to(self.out_proj.weight.dtype))
        return zero_masked(y, mask).to(u.dtype), state

    @torch.no_grad()
    def rates(self, u: Float[Tensor, "b t d"], state: State = None) -> SpikeRates:
        """How often the neurons spike on `u`."""
        state = check_call(self, u, state, None, None, None)
        read, written, _ = self._spikes(u, state, None, None, None, 1.0)
        return SpikeRates(float(read.mean()), float(written.mean()))

    def _spikes(
        self,
        u: Tensor,
        state: State,
        dt: Tensor | None,
        mask: Tensor | None,
        reset: Tensor | None,
        rate: float,
    ) -> tuple[Tensor, Tensor, State]:
        """Spikes or rates (b, t, d) of both sides, and the state of the layer."""
        wide = zero_masked(u.to(torch.promote_types(self.read_scale.dtype, torch.float32)), mask)
        read = self._drawn(self.read_scale.to(wide.dtype) * wide + self.read_shift.to(wide.dtype))
        v, state = self.layer(read, state, **as_options(dt, mask, reset, rate))
        return read, self._drawn(self.write_scale * v + self.write_shift), state

    def _drawn(self, p: Tensor) -> Tensor:
        rate = p.clamp(0, 1)
        if not (self.training or self.sample):
            return rate
        spikes = (torch.rand_like(rate) < rate).to(rate.dtype)
        return rate + (spikes - rate).detach()

    def extra_repr(self) -> str:
        return f"sample={self.sample}"
