"""Mamba-2's scan and block by their published names, against the equation as a loop."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop import provide_mamba_ssm
from longstate.interop.mamba_ssm.split_conv import (
    mamba_split_conv1d_scan_combined,
    mamba_split_conv1d_scan_ref,
)
from longstate.interop.mamba_ssm.ssd import (
    mamba_chunk_scan,
    mamba_chunk_scan_combined,
    ssd_chunk_scan_combined_ref,
    ssd_selective_scan,
)
from tests.golden import assert_parity, golden
from tests.ops.helpers import assert_equals_reference, randn, uniform

LIMITS = (0.1, 0.8)


def loop(
    x, dt, A, B, C, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
    softplus=True, limits=LIMITS,
):  # fmt: skip
    """Outputs, the last state, and the state after every sample, for one sample after the other."""
    b, t, h, p = x.shape
    dt = dt if dt_bias is None else dt + dt_bias
    dt = (F.softplus(dt) if softplus else dt).clamp(*limits)
    B, C = (v.repeat_interleave(h // v.shape[2], dim=2) for v in (B, C))
    zero = x.new_zeros(b, h, p, B.shape[3])
    state, outputs, states = zero if initial_states is None else initial_states, [], []
    ids = torch.zeros(b, t) if seq_idx is None else seq_idx
    for k in range(t):
        same = ids[:, k] == (0 if k == 0 else ids[:, k - 1])  # an initial state is of sequence 0
        state = torch.where(same[:, None, None, None], state, zero)
        drive = torch.einsum("bh,bhp,bhn->bhpn", dt[:, k], x[:, k], B[:, k])
        state = torch.exp(dt[:, k] * A)[..., None, None] * state + drive
        y = torch.einsum("bhpn,bhn->bhp", state, C[:, k])
        if D is not None:
            y = y + (D if D.dim() == 2 else D[:, None]) * x[:, k]
        outputs.append(y if z is None else y * F.silu(z[:, k]))
        states.append(state)
    return torch.stack(outputs, 1), state, torch.stack(states, 1)


def inputs(b=2, t=9, h=4, p=3, n=2, groups=2, wide_D=False, without=()):
    tensors = {
        "x": randn(b, t, h, p, seed=1),
        "dt": randn(b, t, h, seed=2),
        "A": -uniform(h, low=0.1, high=2.0, seed=3),
        "B": randn(b, t, groups, n, seed=4),
        "C": randn(b, t, groups, n, seed=5),
        "D": randn(h, p, seed=6) if wide_D else randn(h, seed=6),
        "z": randn(b, t, h, p, seed=7),
        "dt_bias": randn(h, seed=8),
        "initial_states": randn(b, h, p, n, seed=9),
    }
    return {name: x for name, x in tensors.items() if name not in without}


def call(impl, seq_idx=None, **tensors):
    if impl == "reference":
        return loop(**tensors, seq_idx=seq_idx)[:2]
    return mamba_chunk_scan_combined(
        **tensors, seq_idx=seq_idx, chunk_size=4, dt_softplus=True, dt_limit=LIMITS,
        return_final_states=True,
    )  # fmt: skip


@pytest.mark.parametrize("t", [1, 9, 130])
@pytest.mark.parametrize("wide_D", [False, True])
def test_scan_is_the_equation_with_gradients(t, wide_D):
    assert_equals_reference(call, "fn", inputs(t=t, wide_D=wide_D))


def test_scan_of_packed_sequences_with_gradients():
    ids = torch.tensor([[0, 0, 0, 3, 3, 1, 1, 1, 1], [2, 2, 5, 5, 5, 5, 5, 6, 6]])
    for without in ((), ("initial_states", "D", "z", "dt_bias")):
        assert_equals_reference(call, "fn", inputs(without=without) | {"seq_idx": ids.int()})


def test_options_may_be_absent_and_chunks_are_free():
    tensors = inputs(without=("D", "z", "dt_bias", "initial_states"))
    expected, _, _ = loop(**tensors, softplus=False, limits=(0, torch.inf))
    for chunk_size in (1, 64, 256):
        found = mamba_chunk_scan_combined(**tensors, chunk_size=chunk_size)
        assert isinstance(found, torch.Tensor)
        assert_close(found, expected)


@pytest.mark.parametrize("begin", [0, 1])
def test_states_of_packed_sequences(begin):
    tensors = inputs(b=1, t=12)
    bounds = torch.tensor([0, 5, 5, 6, 10], dtype=torch.int32)  # the last two samples are padding
    lengths = torch.tensor([5, 1, 4, 2])
    ids = torch.repeat_interleave(torch.tensor([begin, 2, 3, -1]), lengths)[None]
    y, final, states = mamba_chunk_scan_combined(
        **tensors, chunk_size=4, seq_idx=ids, cu_seqlens=bounds, dt_softplus=True,
        dt_limit=LIMITS, return_final_states=True, return_varlen_states=True,
    )  # fmt: skip
    expected, _, after = loop(**tensors, seq_idx=ids)
    assert_close(y[:, :10], expected[:, :10])
    assert not y[:, 10:].any()
    assert not final.any()
    assert_close(states, torch.stack([after[0, 4], 0 * after[0, 0], after[0, 5], after[0, 9]]))
    pair = mamba_chunk_scan_combined(
        **tensors, chunk_size=4, seq_idx=ids, cu_seqlens=bounds, dt_softplus=True,
        dt_limit=LIMITS, return_varlen_states=True,
    )  # fmt: skip
    assert torch.equal(pair[0], y)
    assert torch.equal(pair[1], states)


@pytest.mark.parametrize("wide_D", [False, True])
def test_padding_is_not_read(wide_D):
    tensors = inputs(b=1, wide_D=wide_D)
    ids = torch.tensor([[0, 0, 0, 1, 1, -1, -1, 2, 2]])
    expected = call("fn", seq_idx=ids, **tensors)
    for name in ("x", "dt", "B", "C", "z"):
        tensors[name] = tensors[name].clone()
        tensors[name][:, 5:7] = 1e9
    found = call("fn", seq_idx=ids, **tensors)
    assert not found[0][:, 5:7].any()
    for value, other in zip(found, expected, strict=True):
        assert torch.equal(value, other)


def test_results_have_the_published_types():
    tensors = {k: v.float() for k, v in inputs(b=1).items()}
    for name in ("x", "dt", "B", "C", "z"):
        tensors[name] = tensors[name].bfloat16()
    ids, bounds = torch.zeros(1, 9, dtype=torch.int32), torch.tensor([0, 9])
    options = {"seq_idx": ids, "cu_seqlens": bounds, "return_varlen_states": True}
    y, final, states = mamba_chunk_scan_combined(
        **tensors, chunk_size=4, return_final_states=True, **options
    )
    assert (y.dtype, final.dtype, states.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        again, state = mamba_chunk_scan_combined(**tensors, chunk_size=4, return_final_states=True)
    assert_close(again, y)
    assert_close(state, final)


def test_the_other_names_give_the_same():
    tensors = inputs(without=("initial_states",))
    expected, _, _ = loop(**tensors, limits=(0, torch.inf))
    for function in (mamba_chunk_scan, ssd_chunk_scan_combined_ref):
        assert_close(function(**tensors, chunk_size=4, dt_softplus=True), expected)
    assert_close(ssd_selective_scan(**tensors, dt_softplus=True), expected)
    limited, _, _ = loop(**tensors)
    assert_close(ssd_selective_scan(**tensors, dt_softplus=True, dt_limit=LIMITS), limited)
    per_channel = {
        "dt": tensors["dt"][..., None].expand(2, 9, 4, 3),
        "A": tensors["A"].repeat_interleave(3)[:, None].expand(12, 2),
        "D": tensors["D"][:, None].expand(4, 3),
        "dt_bias": tensors["dt_bias"][:, None].expand(4, 3),
    }
    assert_close(ssd_selective_scan(**tensors | per_channel, dt_softplus=True), expected)


def test_the_authors_own_numbers_by_the_published_name():
    data = golden("ssd")
    with provide_mamba_ssm():
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined as published
    tensors = {name: data[name] for name in ("x", "dt", "A", "B", "C")}
    for before, suffix in ((None, ""), (data["initial_state"], "_with_initial_state")):
        y, final = published(
            **tensors, chunk_size=8, initial_states=before, return_final_states=True
        )
        assert_parity(y, data["y" + suffix])
        assert_parity(final, data["final_state" + suffix])


def block_by_the_equations(zxbcdt, conv_w, conv_b, dt_bias, A, D, norm, out_proj, first):
    """Two groups, two channels beside."""
    h, p, n, groups, t = len(A), 3, 2, 2, zxbcdt.shape[1]
    inner, convolved = h * p, h * p + 2 * groups * n
    z0, x0, z, xBC, dt = zxbcdt.split([2, 2, inner, convolved, h], dim=-1)
    xBC = F.conv1d(xBC.mT, conv_w[:, None], conv_b, padding=3, groups=convolved)[..., :t].mT
    x, B, C = F.silu(xBC).split([inner, groups * n, groups * n], dim=-1)
    heads = x.unflatten(2, (h, p)), dt, A, B.unflatten(2, (groups, n)), C.unflatten(2, (groups, n))
    gate = None if norm is not None else z.unflatten(2, (h, p))
    y, final, _ = loop(*heads, D, gate, dt_bias)
    y = y.flatten(2)
    if norm is not None:
        y = y if first else y * F.silu(z)
        v = y.unflatten(2, (groups, -1))
        y = (v / (v.square().mean(-1, keepdim=True) + 0.1).sqrt()).flatten(2) * norm
        y = y * F.silu(z) if first else y
    return torch.cat([F.silu(z0) * x0, y], dim=-1) @ out_proj.T, final


def block(impl, norm=None, first=False, **tensors):
    if impl == "reference":
        return block_by_the_equations(**tensors, norm=norm, first=first)
    names = ("zxbcdt", "conv_w", "conv_b", "dt_bias", "A", "D")
    options = {
        "rmsnorm_weight": norm, "rmsnorm_eps": 0.1, "outproj_weight": tensors["out_proj"],
        "dt_limit": LIMITS, "ngroups": 2, "norm_before_gate": first,
        "headdim": 3 if tensors["D"].dim() == 1 else None,
    }  # fmt: skip
    tensors = [tensors[name] for name in names]
    y, final = mamba_split_conv1d_scan_combined(
        *tensors, 4, return_final_states=True, activation="silu", **options
    )
    torch.testing.assert_close(mamba_split_conv1d_scan_ref(*tensors, 4, **options), y)
    return y, final


def block_inputs(wide_D=False):
    return {
        "zxbcdt": randn(2, 7, 2 * 2 + 2 * 12 + 8 + 4, seed=1),
        "conv_w": randn(20, 4, seed=2),
        "conv_b": randn(20, seed=3),
        "dt_bias": randn(4, seed=4),
        "A": -uniform(4, low=0.1, seed=5),
        "D": randn(4, 3, seed=6) if wide_D else randn(4, seed=6),
        "out_proj": randn(5, 14, seed=7),
    }


@pytest.mark.parametrize("wide_D", [False, True])
@pytest.mark.parametrize("first", [None, False, True])
def test_split_block_is_the_equations_with_gradients(first, wide_D):
    norm = {} if first is None else {"norm": randn(12, seed=8)}

    def with_order(impl, **tensors):
        return block(impl, **tensors, first=bool(first))

    assert_equals_reference(with_order, "fn", block_inputs(wide_D) | norm)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 9, 12), r"x must be \(batch, time, heads, channels\)"),
        ("x", (2, 0, 4, 3), "x has no samples"),
        ("dt", (2, 9, 3), r"dt must be \(2, 9, 4\)"),
        ("A", (4, 2), r"A must be \(4,\)"),
        ("B", (2, 9, 3, 2), "B has 3 groups, which do not divide 4 heads"),
        ("C", (2, 9, 1, 2), r"C must be \(2, 9, 2, 2\)"),
        ("D", (3,), r"D must be \(4,\) or \(4, 3\)"),
        ("z", (2, 9, 4), "z must be"),
        ("dt_bias", (3,), "dt_bias must be"),
        ("initial_states", (2, 4, 2, 3), r"initial_states must be \(2, 4, 3, 2\)"),
        ("seq_idx", (2, 8), "seq_idx must be"),
    ],
)
def test_scan_names_what_does_not_fit(name, shape, message):
    with pytest.raises(InputError, match=message):
        mamba_chunk_scan_combined(**inputs() | {name: torch.zeros(shape)}, chunk_size=4)


def test_more_refusals():
    ids, bounds = torch.zeros(2, 9), torch.tensor([0, 9])
    with pytest.raises(InputError, match="chunk_size must be positive; got 0"):
        mamba_chunk_scan_combined(**inputs(), chunk_size=0)
    for options, message in (
        ({}, "needs cu_seqlens"),
        ({"cu_seqlens": bounds}, "needs seq_idx"),
        ({"cu_seqlens": bounds, "seq_idx": ids}, "needs a batch of 1; got 2"),
    ):
        with pytest.raises(InputError, match=message):
            mamba_chunk_scan_combined(
                **inputs(), chunk_size=4, **options, return_varlen_states=True
            )
    tensors = list(block_inputs().values())[:6]
    with pytest.raises(InputError, match="headdim is needed"):
        mamba_split_conv1d_scan_combined(*tensors, 4, ngroups=2)
    with pytest.raises(InputError, match="zxbcdt must have 36 columns, or an even number more"):
        mamba_split_conv1d_scan_combined(
            torch.zeros(2, 7, 37), *tensors[1:], 4, headdim=3, ngroups=2
        )
    with pytest.raises(InputError, match="conv1d_weight must have 12 \\+ 2 \\* 2 \\* d_state rows"):
        mamba_split_conv1d_scan_combined(
            tensors[0], torch.zeros(19, 4), *tensors[2:], 4, headdim=3, ngroups=2
        )
    with pytest.raises(InputError, match="ngroups must divide 4 heads; got 3"):
        mamba_split_conv1d_scan_combined(*tensors, 4, headdim=3, ngroups=3)
    with pytest.raises(InputError, match="outproj_bias needs outproj_weight"):
        mamba_split_conv1d_scan_combined(
            *tensors, 4, headdim=3, ngroups=2, outproj_bias=torch.zeros(5)
        )
