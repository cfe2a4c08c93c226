"""A layer whose steps come from the time stamps, from the input, or are learned.

    dt_t = product of the sources
    y    = layer(u, dt=dt)

    source       dt_t                                stamps   a step may be split
    constant     1                                   ignored
    learned      s                                   ignored
    tokens       softplus(w u_t + c)                 ignored
    linear       gap_t                               read     yes
    saturating   a (1 - exp(-gap_t / scale))         read     no
    cosine       softplus(w cos(f gap_t + p) + c)    read     no

gap_t, the `dt` of a call, is the time since the previous sample. "May be split" means that a sample
which repeats the next one changes no later state, in layers that hold their input between samples:
S5, S4D and DSS with the zero-order hold, LinearCDE and GatedSSM. The steps of the two parts must
add up. This is so for "linear" and for products of it with "learned" or "tokens". It holds for no
source in S5 and S4D with the bilinear rule, LinOSS and Mamba-3, whose rules are approximate in
time; in Mamba and Mamba-2, whose convolution counts samples and whose input enters by Euler's rule;
and in CfC and GRUD, whose gates act once for every sample.

Li et al., "DyG-Mamba: Continuous State Space Modeling on Dynamic Graphs", 2024, arXiv:2408.06966,
has "saturating" (in the paper, as reported by others) and "cosine" (in the code). Differs from
these: gaps are not divided by the time from the first event to the query, which a stream does not
know, but have a learned scale; all channels have one step, to be multiplied by each layer's own;
and "cosine" is one linear function of the cosines, not two. The graph model around it is not here.

Axes: b batch, t time, d channels.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import (
    Layer,
    State,
    as_options,
    check_call,
    check_step,
    of_no_rows,
    scaled,
    zero_masked,
)
from longstate.layers._steps import SOURCES
from longstate.layers._wrapper import Wrapper

Step = Literal["constant", "learned", "tokens", "linear", "saturating", "cosine"]


class Timed(Wrapper):
    """A layer with a step that is given by one or more sources.

        layer = Timed(S5(16), step="saturating")
        layer = Timed(S4D(16), step=("linear", "tokens"))
        y, state = layer(u, dt=intervals(times, unit=60.0))

    Its state is that of the layer inside.

    Args:
        layer: any layer that takes `dt`; it is not changed.
        step: one source or several, which are multiplied; see the top of this file.

    Raises:
        ValueError: there is no such source; or, in a call, the layer takes no `dt`. With "constant"
            alone any layer can be used.
    """

    def __init__(self, layer: Layer, *, step: Step | Sequence[Step] = "linear"):
        super().__init__(layer)
        names = (step,) if isinstance(step, str) else tuple(step)
        known = get_args(Step)
        if not names or any(name not in known for name in names):
            raise ValueError(f"step must be one or more of {', '.join(known)}; got {step!r}")
        self.step_sources = names
        self.sources = nn.ModuleList(
            SOURCES[name](self.d_model) for name in names if name != "constant"
        )

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
        u = zero_masked(u, mask)
        return self.layer(u, state, **as_options(self.steps(u, dt, rate), mask, reset, 1.0))

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
        state = check_step(self, u, state, dt, mask, reset, rate)
        u = zero_masked(u, mask)
        return self.layer.step(u, state, **as_options(self.steps(u, dt, rate), mask, reset, 1.0))

    def steps(
        self, u: Float[Tensor, "*b d"], dt: Float[Tensor, "*b"] | None = None, rate: float = 1.0
    ) -> Float[Tensor, "*b"] | None:
        """The steps that the layer inside is given; None if all are 1.

        Args:
            u (..., d): input.
            dt (...): time since the previous sample; 1 everywhere when None.
            rate: multiplies `dt`.
        """
        if not self.sources:
            return None
        gap = scaled(u, dt, rate)
        wide = torch.promote_types(u.dtype, torch.float32)
        gap = u.new_ones(u.shape[:-1], dtype=wide) if gap is None else gap.to(wide)
        found = torch.ones_like(gap)
        for source in self.sources:
            found = found * source(u, gap)
        return found

    def extra_repr(self) -> str:
        return f"step={self.step_sources!r}"
