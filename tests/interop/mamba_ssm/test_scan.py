"""Mamba's scan and block by their published names, against the equation as a loop."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop import provide_mamba_ssm
from longstate.interop.mamba_ssm.references import mamba_inner_ref
from longstate.interop.mamba_ssm.scan import (
    mamba_inner_fn,
    selective_scan_fn,
    selective_scan_ref,
)
from tests.golden import assert_parity, golden
from tests.ops.helpers import assert_equals_reference, randn, uniform

COMPLEX = torch.complex128


def loop(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """Channel by channel, sample by sample."""

    def at(x, batch, channel, step):
        if x.dim() == 2:
            return x[channel]
        if x.dim() == 4:
            x = x[:, channel * x.shape[1] // u.shape[1]]
        if A.is_complex():
            x = torch.complex(x[..., ::2], x[..., 1::2])
        return x[batch, :, step]

    b, d, t = u.shape
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    rows, states = [], []
    for i in range(b):
        for j in range(d):
            h, row = torch.zeros_like(A[j]), []
            for k in range(t):
                h = torch.exp(delta[i, j, k] * A[j]) * h
                h = h + delta[i, j, k] * u[i, j, k] * at(B, i, j, k)
                y = (h * at(C, i, j, k)).sum()
                y = 2 * y.real if A.is_complex() else y
                y = y if D is None else y + D[j] * u[i, j, k]
                row.append(y if z is None else y * F.silu(z[i, j, k]))
            rows.append(torch.stack(row))
            states.append(h)
    return torch.stack(rows).view(b, d, t), torch.stack(states).view(b, d, -1)


def inputs(form_B="variable", form_C="variable", is_complex=False, b=2, d=4, n=3, t=7):
    def matrix(form, seed):
        length = 2 * t if is_complex else t
        if form == "constant":
            return randn(d, n, dtype=COMPLEX if is_complex else torch.float64, seed=seed)
        return randn(b, *([2] if form == "grouped" else []), n, length, seed=seed)

    A = -uniform(d, n, low=0.1, seed=3)
    return {
        "u": randn(b, d, t, seed=1),
        "delta": randn(b, d, t, seed=2),
        "A": torch.complex(A, randn(d, n, seed=4)) if is_complex else A,
        "B": matrix(form_B, 5),
        "C": matrix(form_C, 6),
        "D": randn(d, seed=7),
        "z": randn(b, d, t, seed=8),
        "delta_bias": randn(d, seed=9),
    }


def call(impl, **tensors):
    if impl == "reference":
        return loop(**tensors, delta_softplus=True)
    function = {"fn": selective_scan_fn, "ref": selective_scan_ref}[impl]
    return function(**tensors, delta_softplus=True, return_last_state=True)


FORMS = [("variable", "variable"), ("grouped", "grouped"), ("constant", "constant")]


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize(("form_B", "form_C"), [*FORMS, ("constant", "variable")])
def test_scan_is_the_equation_with_gradients(form_B, form_C, is_complex):
    tensors = inputs(form_B, form_C, is_complex)
    for impl in ("fn", "ref"):
        assert_equals_reference(call, impl, tensors)


def test_options_may_be_absent():
    tensors = {k: v for k, v in inputs().items() if k in ("u", "A", "B", "C")}
    tensors["delta"] = uniform(2, 4, 7, seed=2)
    expected, _ = loop(**tensors)
    found = selective_scan_fn(**tensors)
    assert isinstance(found, torch.Tensor)
    assert_close(found, expected)


def test_results_have_the_published_types_and_layout():
    tensors = {k: v.float() for k, v in inputs().items()}
    for name in ("u", "delta", "B", "C", "z"):
        tensors[name] = tensors[name].bfloat16()
    tensors["u"] = tensors["u"].mT.contiguous().mT
    out, last = selective_scan_fn(**tensors, return_last_state=True)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous()  # code written for the package takes views of it
    assert last.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        again, narrow = selective_scan_fn(**tensors, return_last_state=True)
    assert torch.equal(again, out)
    assert torch.equal(narrow, last)


def test_the_authors_own_numbers_by_the_published_name():
    data = golden("selective_scan")
    with provide_mamba_ssm():
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as published
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    tensors = {name: data[name].requires_grad_() for name in names}
    out, last = published(**tensors, delta_softplus=True, return_last_state=True)
    assert_parity(out, data["out"])
    assert_parity(last, data["last_state"])
    (out * data["cotangent"]).sum().backward()
    for name, x in tensors.items():
        assert_parity(x.grad, data[f"grad_{name}"])


def test_the_authors_own_grouped_numbers():
    data = golden("selective_scan_grouped")
    out = data.pop("out")
    assert_parity(selective_scan_fn(**data, delta_softplus=True), out)


def inner_by_the_equations(xz, conv_w, conv_b, x_proj, dt_proj, out_proj, A, D, bias, B_bias, rms):
    rank, t = dt_proj.shape[1], xz.shape[2]
    x, z = xz.chunk(2, dim=1)
    x = F.silu(F.conv1d(x, conv_w, conv_b, padding=conv_w.shape[2] - 1, groups=len(A))[..., :t])
    low, B, C = (x_proj @ x).split([rank, *[(len(x_proj) - rank) // 2] * 2], dim=1)

    def normed(v, weight):  # (b, n, t)
        return v / (v.square().mean(1, keepdim=True) + 0.1).sqrt() * weight[:, None]

    B = B + B_bias[:, None]
    delta = dt_proj @ low
    if rms is not None:
        B, C, delta = normed(B, rms), normed(C, rms), normed(delta, D)
    if A.is_complex():  # the state's real and imaginary parts take turns; published: time's do
        B, C = (v.unflatten(1, (-1, 2)).permute(0, 1, 3, 2).flatten(2) for v in (B, C))
    y, _ = loop(x, delta, A, B, C, D, z, bias, True)
    return (out_proj @ y).mT


def inner_inputs(is_complex):
    d, n, r, k, m = 4, 3, 2, 3, 5
    columns = 2 * n if is_complex else n
    return {
        "xz": randn(2, 2 * d, 6, seed=1),
        "conv_w": randn(d, 1, k, seed=2),
        "conv_b": randn(d, seed=3),
        "x_proj": randn(r + 2 * columns, d, seed=4),
        "dt_proj": randn(d, r, seed=5),
        "out_proj": randn(m, d, seed=6),
        "A": inputs(is_complex=is_complex)["A"],
        "D": randn(d, seed=7),
        "bias": randn(d, seed=8),
        "B_bias": randn(columns, seed=9),
        "rms": None if is_complex else randn(columns, seed=10),
    }


def inner(impl, xz, conv_w, conv_b, x_proj, dt_proj, out_proj, A, D, bias, B_bias, rms=None):
    if impl == "reference":
        return (
            inner_by_the_equations(
                xz, conv_w, conv_b, x_proj, dt_proj, out_proj, A, D, bias, B_bias, rms
            ),
        )
    weights = (conv_w, conv_b, x_proj, dt_proj, out_proj, None)
    if impl == "ref":
        return (mamba_inner_ref(xz, *weights, A, None, None, D, bias, B_proj_bias=B_bias),)
    return (
        mamba_inner_fn(
            xz, *weights, A, None, None, D, delta_bias=bias, B_proj_bias=B_bias,
            b_rms_weight=rms, c_rms_weight=rms, dt_rms_weight=None if rms is None else D,
            b_c_dt_rms_eps=0.1,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("is_complex", [False, True])
def test_inner_is_the_block_with_gradients(is_complex):
    tensors = inner_inputs(is_complex)
    assert_equals_reference(inner, "fn", tensors)
    assert_equals_reference(inner, "ref", tensors | {"rms": None})


def test_inner_takes_given_matrices():
    tensors = inner_inputs(False)
    B, C = randn(4, 3, seed=11), randn(2, 3, 6, seed=12)
    out_proj = torch.eye(4, dtype=torch.float64)
    low = tensors["x_proj"][:2]
    found = mamba_inner_fn(
        tensors["xz"], tensors["conv_w"], tensors["conv_b"], low, tensors["dt_proj"], out_proj,
        randn(4, seed=13), tensors["A"], B, C, tensors["D"], tensors["bias"], delta_softplus=False,
    )  # fmt: skip
    x, z = tensors["xz"].chunk(2, dim=1)
    x = F.silu(F.conv1d(x, tensors["conv_w"], tensors["conv_b"], padding=2, groups=4)[..., :6])
    y, _ = loop(x, tensors["dt_proj"] @ (low @ x), tensors["A"], B, C, tensors["D"], z,
                tensors["bias"])  # fmt: skip
    assert_close(found, y.mT + randn(4, seed=13))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (2, 4), r"u must be \(batch, channels, time\)"),
        ("u", (2, 4, 0), "u has no samples"),
        ("delta", (2, 4, 6), r"delta must be \(2, 4, 7\); got \(2, 4, 6\)"),
        ("A", (5, 3), r"A must be \(4, state\)"),
        ("B", (2, 3, 6), r"B must be \(2, 3, 7\)"),
        ("C", (2, 3, 3, 7), "C has 3 groups, which do not divide 4 channels"),
        ("D", (3,), r"D must be \(4,\)"),
        ("z", (2, 7, 4), "z must be"),
        ("delta_bias", (1, 4), "delta_bias must be"),
    ],
)
def test_scan_names_what_does_not_fit(name, shape, message):
    with pytest.raises(InputError, match=message):
        selective_scan_fn(**inputs() | {name: torch.zeros(shape)})


def test_more_refusals():
    with pytest.raises(InputError, match="B is complex, but A is real"):
        selective_scan_fn(**inputs() | {"B": torch.zeros(4, 3, dtype=COMPLEX)})
    complex_A = inputs(is_complex=True)["A"]
    with pytest.raises(InputError, match=r"B must be \(2, 3, 14\); got \(2, 3, 7\)"):
        selective_scan_fn(**inputs() | {"A": complex_A})
    tensors = inner_inputs(False)
    with pytest.raises(InputError, match="x_proj_weight must be"):
        inner("fn", **tensors | {"x_proj": torch.zeros(9, 4)})
    with pytest.raises(InputError, match="xz must be"):
        inner("fn", **tensors | {"xz": torch.zeros(2, 6, 6)})
    with pytest.raises(InputError, match="checkpoint_lvl must be 0 or 1; got 2"):
        mamba_inner_fn(*[torch.zeros(1)] * 8, checkpoint_lvl=2)
