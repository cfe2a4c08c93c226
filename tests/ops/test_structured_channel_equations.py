"""dplr_channel_scan and allpass_channel_scan: their equations, and what they refuse."""

import pytest
import torch
from scipy.signal import lfilter
from torch.testing import assert_close

from longstate.ops import diagonal_channel_scan
from longstate.systems import DPLRSystem
from tests.ops.helpers import randn
from tests.ops.structured_channels import (
    CASES,
    COMPLEX,
    allpass,
    allpass_inputs,
    dplr,
    dplr_inputs,
)


@pytest.mark.parametrize("impl", ["reference", "cpu", "chunks"])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_dplr_is_the_system_of_that_name(impl, r):
    d, t = 4, 70
    _, A, P, Q, B, C, h0 = dplr_inputs(d=d, r=r).values()
    D = torch.zeros(d, 1, 1, dtype=torch.float64)
    system = DPLRSystem(A, P, Q, B[..., None], C[:, None], D, conjugate=True, discrete=True)
    u = torch.zeros(2, t, d, dtype=torch.float64)
    free, _ = dplr(impl, u, A, P, Q, B, C, h0)
    assert_close(free, system.state_response(h0, t)[..., 0].mT)
    u[:, 0] = 1
    y, _ = dplr(impl, u, A, P, Q, B, C)
    assert_close(y[0], system.impulse_response(t)[..., 0, 0].mT)


def test_without_a_low_rank_part_it_is_the_diagonal_scan():
    tensors = dplr_inputs()
    tensors["P"] = torch.zeros_like(tensors["P"])
    u, A, _, _, B, C, h0 = tensors.values()
    assert_close(dplr("cpu", **tensors), diagonal_channel_scan(u, A, B, C, h0))


@pytest.mark.parametrize("impl", ["reference", "cpu", "chunks"])
def test_allpass_is_a_cascade_of_all_pass_filters(impl):
    u, rho, C, _ = allpass_inputs(t=70, n=6).values()
    y, last = allpass(impl, u, rho, C)
    for i, r in enumerate(rho.tolist()):
        signal, expected = u[..., i].numpy(), 0
        for k in range(6):
            signal = lfilter([-r, 1], [1, -r], signal)
            expected = expected + C[i, k].item() * signal
            assert_close(last[:, i, k + 1], torch.from_numpy(signal[:, -1].copy()))
        assert_close(y[..., i], torch.from_numpy(expected))


@pytest.mark.parametrize("impl", ["reference", "cpu", "chunks"])
def test_sections_without_rho_are_delays(impl):
    u = torch.arange(1.0, 8, dtype=torch.float64)[None, :, None]
    C = torch.tensor([[1.0, 0.0, 100.0]], dtype=torch.float64)
    y, last = allpass(impl, u, torch.zeros(1, dtype=torch.float64), C)
    assert y[0, :, 0].tolist() == [0, 1, 2, 103, 204, 305, 406]
    assert last[0, 0].tolist() == [7, 6, 5, 4]


def test_a_section_keeps_the_energy():
    u = torch.zeros(1, 400, 1, dtype=torch.float64)
    u[:, :50] = randn(1, 50, 1)
    C = torch.eye(8, dtype=torch.float64)[-1:]
    y, _ = allpass("cpu", u, torch.tensor([0.5], dtype=torch.float64), C)
    assert_close(y.square().sum(), u.square().sum())


# What they refuse


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.zeros(5, 3)}, "A must be .* complex"),
        ({"P": torch.zeros(5, 3, 1)}, "P and Q must be .* type of A"),
        ({"Q": torch.zeros(5, 3, 2, dtype=COMPLEX)}, "P and Q must be"),
        ({"B": torch.zeros(5, 2, dtype=COMPLEX)}, "B and C must be"),
        ({"u": torch.zeros(2, 9, 4)}, "channels"),
        ({"u": torch.zeros(2, 0, 5)}, "u must be"),
        ({"u": torch.zeros(2, 9, 5, dtype=COMPLEX)}, "u must be .* real"),
        ({"h0": torch.zeros(2, 5)}, "h0 must be"),
        ({"reset": torch.zeros(2, 9)}, "reset must be"),
    ],
)
def test_dplr_names_wrong_inputs(change, message):
    with pytest.raises(ValueError, match=message):
        dplr("cpu", **dplr_inputs(t=9) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"C": torch.zeros(5, 3, dtype=COMPLEX)}, "C must be .* real"),
        ({"C": torch.zeros(5, 0)}, "C must be"),
        ({"rho": torch.zeros(5)}, "rho must be .* type of C"),
        ({"rho": torch.zeros(4, dtype=torch.float64)}, "rho must be"),
        ({"u": torch.zeros(2, 9, 4)}, "channels"),
        ({"h0": torch.zeros(2, 5, 3)}, "h0 must be"),
        ({"lengths": torch.tensor([1, 2]), "mask": torch.ones(2, 9) > 0}, "not both"),
    ],
)
def test_allpass_names_wrong_inputs(change, message):
    with pytest.raises(ValueError, match=message):
        allpass("cpu", **allpass_inputs(t=9) | change)


@pytest.mark.parametrize(("call", "inputs"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("impl", ["triton", "magic"])
def test_names_the_implementations_there_are(call, inputs, impl):
    with pytest.raises(ValueError, match="impl"):
        call(impl, **inputs())
