"""The chunked algorithm of Mamba-2 in its published stages, in plain PyTorch.

    cumulate: S = cumsum(A dt) in each chunk                             `_chunk_cumsum_fwd`
    state:    from zero in each chunk, sum exp(S_end - S_t) dt_t x_t B_t^T      `chunk_state`
    pass on:  h_{c+1} = exp(S_end) h_c + state_c                         `state_passing`
    scan:     out from the state before a chunk and the samples in it    `chunk_scan`

For code that uses the stages of `mamba_ssm.ops.triton`, version 2.3, and for its tests. `ssd.py`
does not use them.

Axes: b batch, t time, c chunks, l samples of a chunk, h heads, p channels per head, n state, g
groups, s sequences in one row.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.interop.mamba_ssm.inputs import expect, expect_shape, wide
from longstate.interop.mamba_ssm.ssd import NO_LIMITS, Limits, step_sizes


def _chunk_cumsum_fwd(
    dt: Tensor,
    A: Tensor,
    chunk_size: int,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: Limits = NO_LIMITS,
) -> tuple[Tensor, Tensor]:
    """Sums of A dt from the start of each chunk, and steps (b, h, c, l), 0 after the end.

    Args: dt (b, t, h), A, dt_bias (h); the others as in `mamba_chunk_scan_combined`.
    """
    expect_shape("A", A, (dt.shape[2],))
    steps = _in_chunks(step_sizes(dt, dt_bias, dt_softplus, dt_limit), chunk_size)
    steps = steps.permute(0, 3, 1, 2)  # (b, h, c, l)
    return (steps * A[:, None, None]).cumsum(-1), steps.contiguous()


def _chunk_state_fwd(
    B: Tensor,
    x: Tensor,
    dt: Tensor,
    dA_cumsum: Tensor,
    seq_idx: Tensor | None = None,
    states: Tensor | None = None,
    states_in_fp32: bool = True,
) -> Tensor:
    """The state after each chunk from a zero state: (b, c, h, p, n).

    Args:
        B (b, t, g, n), x (b, t, h, p), dt, dA_cumsum (b, h, c, l).
        seq_idx (b, t): only the last sequence of a chunk is used, if it is not negative.
        states (b, c, h, p, n): where to write the result. None: new memory.
        states_in_fp32: whether the result is float32, or of the type of `B`.
    """
    size = dt.shape[3]
    weight = torch.exp(dA_cumsum[..., -1:] - dA_cumsum) * dt
    if seq_idx is not None:
        ids = _in_chunks(seq_idx, size, fill=-1)  # (b, c, l)
        ends = _last(seq_idx, size)[..., None]
        weight = weight.masked_fill(~((ids == ends) & (ends >= 0))[:, None], 0)
    v, B_wide = (_in_chunks(w.to(weight.dtype), size) for w in (x, B))
    v = v * weight.permute(0, 2, 3, 1)[..., None]
    v = v.unflatten(3, (B.shape[2], -1))  # (b, c, l, g, h / g, p)
    found = torch.einsum("bclgop,bclgn->bcgopn", v, B_wide).flatten(2, 3)
    found = found if states_in_fp32 else found.to(B.dtype)
    return found if states is None else states.copy_(found)


def chunk_state(
    B: Tensor, x: Tensor, dt: Tensor, dA_cumsum: Tensor, states_in_fp32: bool = True
) -> Tensor:
    """`_chunk_state_fwd` for one sequence a row."""
    return _chunk_state_fwd(B, x, dt, dA_cumsum, states_in_fp32=states_in_fp32)


def _state_passing_fwd(
    states: Tensor,
    dA_chunk_cumsum: Tensor,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    chunk_size: int | None = None,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """States before each chunk (b, c, h, d), d = p n, and after the last (b, h, d).

    Args:
        states (b, c, h, d): state after each chunk from zero.
        dA_chunk_cumsum (b, h, c): log of each chunk's decay.
        initial_states (b, h, d): before the first chunk; of sequence 0, if there is `seq_idx`.
        seq_idx (b, t), chunk_size: the state is cleared if a chunk ends with another sequence than
            the previous chunk.
        out_dtype: of the states before chunks. That of `states` when None.
    """
    decay = dA_chunk_cumsum.exp().transpose(1, 2)[..., None]  # (b, c, h, 1)
    if seq_idx is not None:
        assert chunk_size is not None, "seq_idx needs chunk_size"
        ends = _last(seq_idx, chunk_size)
        same = ends == F.pad(ends, (1, 0))[:, :-1]
        decay = decay.masked_fill(~same[..., None, None], 0)
    h = torch.zeros_like(states[:, 0]) if initial_states is None else initial_states
    h, before = h.to(wide(states, h)), []
    for c in range(states.shape[1]):
        before.append(h)
        h = decay[:, c] * h + states[:, c]
    return torch.stack(before, 1).to(states.dtype if out_dtype is None else out_dtype), h


def state_passing(
    states: Tensor, dA_chunk_cumsum: Tensor, initial_states: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`_state_passing_fwd` for one sequence a row."""
    return _state_passing_fwd(states, dA_chunk_cumsum, initial_states)


def chunk_scan(
    B: Tensor,
    C: Tensor,
    x: Tensor,
    dt: Tensor,
    dA_cumsum: Tensor,
    prev_states: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """Outputs (b, t, h, p) from the states before chunks, in the type of `x`.

    Args: B, C (b, t, g, n), x, z (b, t, h, p), dt, dA_cumsum (b, h, c, l),
        prev_states (b, c, h, p, n), D (h) or (h, p). t is a whole number of chunks.
    """
    size = dt.shape[3]
    expect(x.shape[1] % size == 0, f"time must be whole chunks of {size}; got {x.shape[1]}")
    heads_per_group = x.shape[2] // B.shape[2]
    dtype = dA_cumsum.dtype
    v, B, C = (_in_chunks(w.to(dtype), size) for w in (x, B, C))
    B, C = (w.repeat_interleave(heads_per_group, 3) for w in (B, C))  # (b, c, l, h, n)
    between = (dA_cumsum[..., :, None] - dA_cumsum[..., None, :]).clamp(max=0).exp().tril()
    scores = torch.einsum("bclhn,bcshn->bhcls", C, B) * between * dt[..., None, :]
    y = torch.einsum("bhcls,bcshp->bclhp", scores, v)
    since = dA_cumsum.exp().permute(0, 2, 3, 1)[..., None]  # (b, c, l, h, 1)
    y = y + torch.einsum("bclhn,bchpn->bclhp", C * since, prev_states.to(dtype))
    if D is not None:
        y = y + (D if D.dim() == 2 else D[:, None]) * v
    y = y.flatten(1, 2)
    return (y if z is None else y * F.silu(z.to(dtype))).to(x.dtype)


def chunk_state_varlen(
    B: Tensor, x: Tensor, dt: Tensor, dA_cumsum: Tensor, cu_seqlens: Tensor, chunk_states: Tensor
) -> Tensor:
    """States at the ends of concatenated sequences: (s, h, p, n).

    Args: B (t, g, n), x (t, h, p), dt, dA_cumsum (h, c, l), cu_seqlens (s + 1),
        chunk_states (c, h, p, n) before each chunk.
    """
    size, states = dt.shape[2], []
    for begin, end in pairwise(cu_seqlens.tolist()):
        if begin == end:
            states.append(torch.zeros_like(chunk_states[0]))
            continue
        chunk = (end - 1) // size
        first, start, stop = chunk * size, max(begin - chunk * size, 0), end - chunk * size
        S = dA_cumsum[:, chunk, :stop]
        weight = torch.exp(S[:, -1:] - S[:, start:]) * dt[:, chunk, start:stop]  # (h, l)
        v = x[first + start : end].to(weight.dtype) * weight.T[..., None]
        v = v.unflatten(1, (B.shape[1], -1))
        state = torch.einsum("lgop,lgn->gopn", v, B[first + start : end].to(v.dtype)).flatten(0, 1)
        if begin < first:
            state = state + S[:, -1].exp()[:, None, None] * chunk_states[chunk]
        states.append(state.to(chunk_states.dtype))
    return torch.stack(states)


def _in_chunks(v: Tensor, size: int, fill: float = 0) -> Tensor:
    """(b, t, ...) as (b, c, l, ...), padded at the end."""
    missing = -v.shape[1] % size
    v = F.pad(v, (*(0, 0) * (v.dim() - 2), 0, missing), value=fill)
    return v.unflatten(1, (-1, size))


def _last(seq_idx: Tensor, size: int) -> Tensor:
    """The sequence that each chunk ends with (b, c)."""
    t = seq_idx.shape[1]
    ends = torch.arange(size, t + size, size, device=seq_idx.device).clamp(max=t) - 1
    return seq_idx[:, ends]
