"""Causal attention with several heads, for hybrids with state space layers.

    q, k, v = in_proj(u), split into heads
    y_t = sum over s <= t of softmax_s(q_t . k_s / sqrt(p)) v_s
    out = out_proj(y)

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv:1706.03762. Positions are rotary
(Su et al., "RoFormer", 2021, arXiv:2104.09864), so that only the distance of two samples matters,
or absent: next to a recurrent layer attention does not need them.

The state holds the keys and values that later samples can still see, newest last. With
`window=None` these are all, and the state grows with the input: then the clause "a state holds no
sequence" of the contract does not hold. With a window the state has a fixed size, and all clauses
hold.

Axes: b batch, t time, d channels, h heads, p channels per head, s samples in the state.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._attend import attend
from longstate.layers._base import Layer, State, check_call, full_precision, zero_masked
from longstate.ops._double import widen
from longstate.ops._transforms import can_look

_BASE = 10_000.0  # ratio of the longest wavelength to the shortest, as in RoFormer


class Attention(Layer):
    """Every sample attends to itself and to earlier samples.

    State: {"k", "v": (b, s, h, p), "length": (b)}. The last `length` of the s entries of a row are
    samples; the others are 0.

    Args:
        d_model: channels in and out.
        n_heads: h; divides `d_model`. With rotary positions each head needs an even number of
            channels.
        window: samples that a sample attends to, itself included; None is all.
        positions: "rotary" or "none".

    Raises:
        ValueError: an option does not exist, heads do not fit into the channels, or `dt` or `rate`
            is given to a call: attention counts samples and has no time step.
    """

    own_gate = True

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int = 8,
        window: int | None = None,
        positions: Literal["rotary", "none"] = "rotary",
    ):
        super().__init__()
        if positions not in ("rotary", "none"):
            raise ValueError(f"positions must be 'rotary' or 'none'; got {positions!r}")
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads must divide d_model = {d_model}; got {n_heads}")
        if positions == "rotary" and d_model // n_heads % 2:
            raise ValueError(
                f"rotary positions turn pairs of channels; {n_heads} heads have "
                f"{d_model // n_heads} each: choose n_heads so that it is even, or positions='none'"
            )
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 sample, or None; got {window}")
        self.d_model, self.n_heads, self.window = d_model, n_heads, window
        self.d_head, self.positions = d_model // n_heads, positions
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    @property
    def grows(self) -> bool:
        return self.window is None

    def init_state(self, batch: int) -> State:
        """No keys and no values."""
        weight = self.out_proj.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        size = 0 if self.window is None else self.window - 1
        zeros = weight.new_zeros(batch, size, self.n_heads, self.d_head, dtype=dtype)
        return {"k": zeros, "v": zeros.clone(), "length": zeros.new_zeros(batch)}

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
        if dt is not None or rate != 1:
            raise ValueError("Attention takes neither dt nor rate: it has no time step. Mamba does")
        state = check_call(self, u, state, dt, mask, reset)
        if state["k"].shape != state["v"].shape:
            raise ValueError(
                "Attention expects as many keys as values in its state; got "
                f"{tuple(state['k'].shape)} and {tuple(state['v'].shape)}"
            )
        with_old = self._with_old(u, state, mask)
        with full_precision(u):
            y = self._attend(*with_old, state["length"], mask, reset)
            after = self._kept(*with_old[1:], state["length"], mask, reset)
        y = self.out_proj(y.flatten(2).to(self.out_proj.weight.dtype))
        y = zero_masked(y, mask)
        return y.to(u.dtype), after

    def state_after(
        self,
        u: Float[Tensor, "b t d"],
        state: State = None,
        *,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> State:
        """The state after these samples, without their outputs."""
        state = check_call(self, u, state, None, mask, reset)
        _, k, v, old = self._with_old(u, state, mask)
        return self._kept(k, v, old, state["length"], mask, reset)

    def joined(
        self,
        k: Float[Tensor, "b s h p"],
        v: Float[Tensor, "b s h p"],
        seen: Bool[Tensor, "b s"],
    ) -> State:
        """A state of these keys and values, where `seen` is True; in the order of time."""
        return self._kept(k, v, 0, k.new_zeros(len(k)), seen, None)

    def _with_old(
        self, u: Tensor, state: State, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """q (b, t, h, p); k and v (b, s + t, h, p) with those of the state; s."""
        u = zero_masked(u, mask)
        qkv = self.in_proj(u.to(self.in_proj.weight.dtype)).to(state["k"].dtype)
        q, k, v = qkv.unflatten(-1, (3, self.n_heads, self.d_head)).unbind(2)
        with full_precision(u):
            k, v = torch.cat([state["k"], k], 1), torch.cat([state["v"], v], 1)
        return q, k, v, state["k"].shape[1]

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        old: int,
        length: Tensor,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> Tensor:
        """y (b, t, h, p) of q (b, t, h, p), and k, v (b, s + t, h, p) of which s = `old`."""
        place = _places(mask, q) + old
        if self.positions == "rotary":
            before = torch.arange(old, device=q.device).expand(len(q), -1)
            q, k = _turn(q, place), _turn(k, torch.cat([before, place], 1))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        plain = old == 0 and mask is None and reset is None and self.window is None
        seen = None if plain else self._seen(place, old, length, mask, reset)
        return attend(q, k, v, seen).transpose(1, 2)

    def _seen(
        self,
        place: Tensor,
        old: int,
        length: Tensor,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> Tensor:
        """Which samples (b, t, s + t) each one attends to. Always itself, so no row is empty."""
        b, t = place.shape
        slots = torch.arange(old, device=place.device)
        time = torch.arange(t, device=place.device)
        before = (slots >= old - length[:, None])[:, None].expand(b, t, old)
        now = (time <= time[:, None]).expand(b, t, t)
        if mask is not None:
            now = now & mask[:, None]
        if reset is not None:
            part = reset.long().cumsum(1)
            before = before & (part == 0)[..., None]
            now = now & (part[:, None] == part[..., None])
        now = now | torch.eye(t, dtype=torch.bool, device=place.device)
        if self.window is not None:
            before = before & (place[..., None] - slots < self.window)
            now = now & (place[..., None] - place[:, None] < self.window)
        return torch.cat([before, now], dim=2)

    def _kept(
        self,
        k: Tensor,
        v: Tensor,
        old: int,
        length: Tensor,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> State:
        """The state after these keys and values (b, s + t, h, p): those the next sample can see."""
        b, whole = k.shape[:2]
        length = length.detach()
        if mask is None and reset is None:
            size = whole if self.window is None else self.window - 1
            length = (length + (whole - old)).clamp(max=size)
            if size < whole:  # a view would keep all of them in memory
                k, v = k[:, whole - size :].clone(), v[:, whole - size :].clone()
            return {"k": k, "v": v, "length": length}
        there = torch.arange(old, device=k.device) >= old - length[:, None]
        new = k.new_ones(b, whole - old, dtype=torch.bool) if mask is None else mask
        if reset is not None:
            part = reset.long().cumsum(1)
            there = there & (part[:, -1:] == 0)
            new = new & (part == part[:, -1:])
        there = torch.cat([there, new], dim=1)
        order = there.long().argsort(dim=1, stable=True)  # unmasked samples move to the end
        there = there.gather(1, order)
        if self.window is not None:
            size = self.window - 1
        else:
            size = int(there.any(0).sum()) if can_look() else whole
        order, there = order[:, whole - size :, None, None], there[:, whole - size :]
        order = order.expand(-1, -1, *k.shape[2:])
        k, v = (torch.where(there[..., None, None], x.gather(1, order), 0) for x in (k, v))
        return {"k": k, "v": v, "length": there.sum(1).to(length.dtype)}


def _places(mask: Tensor | None, u: Tensor) -> Tensor:
    """The number of each sample (b, t); masked samples are not counted."""
    if mask is None:
        return torch.arange(u.shape[1], device=u.device).expand(len(u), -1)
    return mask.long().cumsum(1) - 1


def _turn(v: Tensor, place: Tensor) -> Tensor:
    """Rotate channels i and i + p / 2 of v (b, t, h, p) by the angle place * _BASE^(-2 i / p)."""
    half = v.shape[-1] // 2
    speed = _BASE ** -(torch.arange(half, device=v.device, dtype=widen(v).dtype) / half)
    angle = place[..., None].to(speed.dtype) * speed
    cos, sin = (x[:, :, None].to(v.dtype) for x in (angle.cos(), angle.sin()))
    first, second = v.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
