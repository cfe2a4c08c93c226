"""Blocks one after another, and a last norm: one stack for every model.

`Stack` is itself a layer; its state is a list. The language model, whose inputs are tokens, runs
its blocks with the same code.

Axes: b batch, t time, d channels.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longstate.errors import InputError
from longstate.layers._base import Layer, State, as_options, check_call, check_step, of_no_rows
from longstate.models._block import Block, Gate, Norm, apply_norm, make_norm, weight_dtype


class Blocks(nn.Module):
    """Base of all stacks. The state is a list with one state for each block.

    Subclasses set `blocks`, a list of `Block`, and `norm`, the last norm.
    """

    blocks: nn.ModuleList
    norm: nn.Module
    segment: int | None = None
    """Samples that pass through all blocks together; see `Stack`. None is the whole sequence."""

    @property
    def grows(self) -> bool:
        """Whether the state of a block gets longer with every sample, as attention's does."""
        return any(block.mixer.grows for block in self.each_block())

    def init_state(self, batch: int) -> list[State]:
        """The state before the first sample of `batch` sequences: zero."""
        return [block.mixer.init_state(batch) for block in self.each_block()]

    def _run(
        self,
        x: Tensor,
        states: Sequence[State],
        dt: Tensor | None,
        mask: Tensor | None,
        reset: Tensor | None,
        rate: float = 1.0,
        seen: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[State]]:
        """x (b, t, d) through the blocks and the last norm; 0 where the mask is False.

        The input of each block, (b, t, d), is appended to `seen`; there are no segments then.
        """
        if self.segment is None or seen is not None:
            return self._run_together(x, states, dt, mask, reset, rate, seen)
        check_segment(self, self.segment)
        # not by slices: each would have a gradient of the whole length
        parts = [[None] if v is None else v.split(self.segment, 1) for v in (x, dt, mask, reset)]
        outputs = []
        for i, piece in enumerate(parts[0]):
            flags = [v[i] if len(v) > 1 else v[0] for v in parts[1:]]
            y, states = checkpoint(
                self._run_together, piece, states, *flags, rate, use_reentrant=False
            )
            outputs.append(y)
        return torch.cat(outputs, dim=1), list(states)

    def _run_together(
        self,
        x: Tensor,
        states: Sequence[State],
        dt: Tensor | None,
        mask: Tensor | None,
        reset: Tensor | None,
        rate: float,
        seen: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[State]]:
        new, call = [], as_options(dt, mask, reset, rate)
        for block, state in zip(self.each_block(), states, strict=True):
            if seen is not None:
                seen.append(x)
            x, state = self._call(block, x, state, call)
            new.append(state)
        return self._last(x, mask), new

    def _call(
        self, block: Block, x: Tensor, state: State, call: dict[str, Any]
    ) -> tuple[Tensor, State]:
        """Run one block. A subclass may add something before and after it."""
        return block(x, state, **call)

    def _step(
        self,
        x: Tensor,
        states: Sequence[State],
        dt: Tensor | None,
        mask: Tensor | None,
        reset: Tensor | None,
        rate: float = 1.0,
    ) -> tuple[Tensor, list[State]]:
        """`_run` for one sample, x (b, d)."""
        new = []
        for block, state in zip(self.each_block(), states, strict=True):
            x, state = block.step(x, state, dt=dt, mask=mask, reset=reset, rate=rate)
            new.append(state)
        return self._last(x, mask), new

    def _last(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = apply_norm(self.norm, x)
        return x if mask is None else x.masked_fill(~mask[..., None], 0)

    def each_block(self) -> list[Block]:
        """The blocks, typed as `Block`."""
        return cast(list[Block], list(self.blocks))


class Stack(Blocks, Layer):
    """Blocks one after another, and a last norm: itself a layer.

        Stack(repeat((Mamba, Mamba, Attention), 64, 12), norm="rms")

    Args:
        mixers: the layers, one per block, all of the same `d_model`.
        norm: "layer" or "rms", before every layer and at the end.
        gate: "auto", "glu", "mlp" or "none", after every layer; see `longstate.models.Block`.
        dropout: share of each block's added output that is set to zero in training.
        segment: samples that pass through all blocks together. Then the memory of training does
            not grow with the length of the sequence, except for u, y and the states at the ends of
            segments: the backward pass runs each segment once more from the state before it.
            Outputs and gradients are those of the whole sequence. None: no segments.

    Raises:
        InputError: there are no layers, their sizes differ, or `segment` is below 1 or given with
            bidirectional layers.
    """

    def __init__(
        self,
        mixers: Sequence[Layer],
        *,
        norm: Norm = "layer",
        gate: Gate = "auto",
        dropout: float = 0.0,
        segment: int | None = None,
    ):
        sizes = {mixer.d_model for mixer in mixers}
        if len(sizes) != 1:
            raise InputError(
                f"a stack needs layers of one d_model, at least one; got {sorted(sizes) or 'none'}"
            )
        super().__init__()
        self.d_model = sizes.pop()
        self.blocks = nn.ModuleList(
            Block(mixer, norm=norm, gate=gate, dropout=dropout) for mixer in mixers
        )
        self.norm = make_norm(norm, self.d_model)
        self.segment = segment
        if segment is not None:
            check_segment(self, segment)

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: list[State] | None = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t d"], list[State]]:
        states = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        y, new = self._run(self._wide(u, mask), states, dt, mask, reset, rate)
        return y.to(u.dtype), new

    def step(
        self,
        u: Float[Tensor, "b d"],
        state: list[State] | None,
        *,
        dt: Float[Tensor, " b"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b d"], list[State]]:
        states = check_step(self, u, state, dt, mask, reset, rate)
        y, new = self._step(self._wide(u, mask), states, dt, mask, reset, rate)
        return y.to(u.dtype), new

    def _wide(self, u: Tensor, mask: Tensor | None) -> Tensor:
        x = u.to(weight_dtype(self.norm))
        # masked samples may be NaN, which must not reach a gradient
        return x if mask is None else x.masked_fill(~mask[..., None], 0)


def check_segment(blocks: Blocks, segment: int) -> None:
    """Check that a stack can run in segments of this length."""
    if segment < 1:
        raise InputError(f"segment must be at least 1 sample, or None; got {segment}")
    if any(getattr(module, "bidirectional", False) for module in blocks.modules()):
        raise InputError("segment needs layers in one direction; build them bidirectional=False")


def repeat(pattern: Sequence[Callable[[int], Layer]], d_model: int, n_layers: int) -> list[Layer]:
    """`n_layers` new layers of `d_model` channels, built from the members of `pattern` in turn.

    Args:
        pattern: classes of layers, or functions of `d_model` that make one.
        d_model: channels.
        n_layers: number of layers; the pattern is repeated.
    """
    if not pattern or n_layers < 1:
        raise InputError(
            f"a stack needs a pattern and at least 1 layer; got {len(pattern)} kinds of layers and "
            f"n_layers={n_layers}"
        )
    return [pattern[i % len(pattern)](d_model) for i in range(n_layers)]
