"""The published names that end in `_ref`: slow forms, written directly from the equations.

They share no code with the fast functions that they check: they are loops over time, or one matrix
of decays. `causal_conv1d_ref` and similar functions are sums over taps, in `convolution.py`;
`selective_scan_ref` and `selective_state_update_ref` run the loop of
`longstate.ops.selective_scan.reference`.

Axes: b batch, t time, d channels, h heads, p channels per head, n state, g groups, c chunks,
l samples in one.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.interop.mamba_ssm.convolution import causal_conv1d_ref
from longstate.interop.mamba_ssm.scan import Result, selective_scan_ref


def layer_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    prenorm: bool = False,
    upcast: bool = False,
) -> Result:
    """Norm of x + residual (..., d) by PyTorch's function; with `prenorm` the sum too."""
    return _residual_norm(F.layer_norm, x, weight, bias, residual, eps, prenorm, upcast)


def residual_rms_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    prenorm: bool = False,
    upcast: bool = False,
) -> Result:
    """The same for an RMS norm."""

    def norm(v: Tensor, shape: tuple[int], weight: Tensor, bias: Tensor | None, eps: float):
        y = F.rms_norm(v, shape, weight, eps)
        return y if bias is None else y + bias

    return _residual_norm(norm, x, weight, bias, residual, eps, prenorm, upcast)


def _residual_norm(norm, x, weight, bias, residual, eps, prenorm, upcast) -> Result:
    dtype = x.dtype
    if upcast:
        x, weight, bias, residual = (_wide(v) for v in (x, weight, bias, residual))
    total = x if residual is None else (x + residual).to(x.dtype)
    y = norm(total.to(weight.dtype), (x.shape[-1],), weight, bias, eps).to(dtype)
    return (y, total) if prenorm else y


def _wide(v: Tensor | None) -> Tensor | None:
    return None if v is None else v.to(torch.promote_types(v.dtype, torch.float32))


def rms_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    upcast: bool = True,
) -> Tensor:
    """`rmsnorm_fn` (..., d) group by group; with `upcast=False` in the precision of `x`."""
    dtype, size = x.dtype, x.shape[-1] if group_size is None else group_size
    if upcast:
        x, weight, bias, z = (_wide(v) for v in (x, weight, bias, z))  # type: ignore[assignment]
    if z is not None and not norm_before_gate:
        x = x * torch.sigmoid(z) * z
    parts = [v / (v * v).mean(-1, keepdim=True).add(eps).sqrt() for v in x.split(size, dim=-1)]
    y = torch.cat(parts, dim=-1) * weight
    if bias is not None:
        y = y + bias
    if z is not None and norm_before_gate:
        y = y * torch.sigmoid(z) * z
    return y.to(dtype)


def mamba_inner_ref(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """`mamba_inner_fn` from `causal_conv1d_ref` and `selective_scan_ref`."""
    x, z = xz.chunk(2, dim=1)
    u = causal_conv1d_ref(x, conv1d_weight[:, 0], conv1d_bias, activation="silu")
    assert isinstance(u, Tensor)  # not asked for final states
    columns = torch.einsum("rd,bdt->brt", x_proj_weight, u)
    r, n = delta_proj_weight.shape[1], A.shape[1] * (2 if A.is_complex() else 1)
    delta = torch.einsum("dr,brt->bdt", delta_proj_weight, columns[:, :r])
    rest = columns[:, r:]
    if B is None:
        B, rest = _read_off(rest[:, :n], B_proj_bias, A), rest[:, n:]
    if C is None:
        C = _read_off(rest[:, :n], C_proj_bias, A)
    y = selective_scan_ref(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)  # not asked for a state
    return F.linear(y.mT, out_proj_weight, out_proj_bias)


def _read_off(columns: Tensor, bias: Tensor | None, A: Tensor) -> Tensor:
    """B or C (b, n, t); for complex A (b, n, 2 t), with alternating real and imaginary parts."""
    if bias is not None:
        columns = columns + bias[:, None].to(columns.dtype)
    if not A.is_complex():
        return columns
    pairs = torch.stack([columns[:, 0::2], columns[:, 1::2]], dim=-1)  # (b, n, t, 2)
    return pairs.flatten(2)


def chunk_state_ref(B: Tensor, x: Tensor, dt: Tensor, dA_cumsum: Tensor) -> Tensor:
    """The state after each chunk from a zero state (b, c, h, p, n), sample by sample.

    Args: B (b, t, g, n), x (b, t, h, p), dt, dA_cumsum (b, h, c, l).
    """
    (b, t, h, p), n, size = x.shape, B.shape[3], dt.shape[3]
    left = []
    for c in range(dt.shape[2]):
        state, before = dA_cumsum.new_zeros(b, h, p, n), dA_cumsum.new_zeros(b, h)
        for i in range(size):
            now = dA_cumsum[:, :, c, i]
            state = torch.exp(now - before)[..., None, None] * state
            if c * size + i < t:
                state = state + _written(B, x, dt[:, :, c, i], c * size + i)
            before = now
        left.append(state)
    return torch.stack(left, dim=1)


def _written(B: Tensor, x: Tensor, dt: Tensor, at: int) -> Tensor:
    """dt x B^T (b, h, p, n) of one sample."""
    rows = B[:, at].repeat_interleave(x.shape[2] // B.shape[2], dim=1).to(dt.dtype)
    return (dt[..., None] * x[:, at].to(dt.dtype))[..., None] * rows[:, :, None]


def state_passing_ref(
    states: Tensor, dA_chunk_cumsum: Tensor, initial_states: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """States before each chunk (b, c, h, d) and after the last (b, h, d), by one matrix of decays.

    Args: states (b, c, h, d); dA_chunk_cumsum (b, h, c), the log of each chunk's decay;
        initial_states (b, h, d).
    """
    first = torch.zeros_like(states[:, 0]) if initial_states is None else initial_states
    written = torch.cat([first[:, None], states], dim=1)
    total = F.pad(dA_chunk_cumsum.cumsum(-1), (1, 0))  # (b, h, c + 1)
    decay = (total[..., :, None] - total[..., None, :]).tril().exp().tril()
    found = torch.einsum("bhij,bjhd->bihd", decay, written.to(decay.dtype))
    return found[:, :-1].to(states.dtype), found[:, -1]


def chunk_scan_ref(
    B: Tensor,
    C: Tensor,
    x: Tensor,
    dt: Tensor,
    dA_cumsum: Tensor,
    prev_states: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """Outputs (b, t, h, p) from the states before chunks, sample by sample.

    Args: as for `chunk_scan`.
    """
    t, h, size = x.shape[1], x.shape[2], dt.shape[3]
    outputs = []
    for i in range(t):
        c, l = divmod(i, size)
        before = dA_cumsum[:, :, c, l - 1] if l else torch.zeros_like(dA_cumsum[:, :, c, 0])
        if l == 0:
            state = prev_states[:, c].to(dA_cumsum.dtype)
        decay = torch.exp(dA_cumsum[:, :, c, l] - before)[..., None, None]
        state = decay * state + _written(B, x, dt[:, :, c, l], i)
        reads = C[:, i].repeat_interleave(h // C.shape[2], dim=1).to(state.dtype)
        outputs.append((state * reads[:, :, None]).sum(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + (D if D.dim() == 2 else D[:, None]) * x
    return (y if z is None else y * F.silu(z.to(y.dtype))).to(x.dtype)


def segsum(x: Tensor) -> Tensor:
    """Sums of x (..., t) over samples j + 1 to i, (..., t, t); -inf above the diagonal."""
    total = x.cumsum(-1)
    below = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).tril()
    return (total[..., :, None] - total[..., None, :]).masked_fill(~below, -torch.inf)


def ssd_minimal_discrete(
    X: Tensor, A: Tensor, B: Tensor, C: Tensor, block_len: int, initial_states: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(A_t) h_{t-1} + X_t B_t^T, Y_t = h_t C_t, as a loop.

    Args: X (b, t, h, p), A (b, t, h), B, C (b, t, h, n); block_len changes no result;
        initial_states (b, 1, h, p, n).

    Returns:
        Y (b, t, h, p) and the last state (b, h, p, n).
    """
    b, t, h, p = X.shape
    state = X.new_zeros(b, h, p, B.shape[-1]) if initial_states is None else initial_states[:, 0]
    outputs = []
    for i in range(t):
        written = X[:, i, ..., None] * B[:, i, :, None]
        state = A[:, i].exp()[..., None, None] * state + written
        outputs.append((state * C[:, i, :, None]).sum(-1))
    return torch.stack(outputs, dim=1), state
