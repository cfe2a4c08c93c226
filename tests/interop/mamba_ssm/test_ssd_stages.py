"""The stages of the chunked algorithm together give the whole scan, also for packed sequences."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop.mamba_ssm.ssd import mamba_chunk_scan_combined
from longstate.interop.mamba_ssm.ssd_stages import (
    _chunk_cumsum_fwd,
    _chunk_state_fwd,
    _state_passing_fwd,
    chunk_scan,
    chunk_state,
    chunk_state_varlen,
    state_passing,
)
from tests.interop.mamba_ssm.test_ssd import inputs
from tests.ops.helpers import results

LIMITS = (0.1, 0.8)


def call(impl, x, dt, A, B, C, D, z, dt_bias, initial_states):
    options = {"dt_softplus": True, "dt_limit": LIMITS}
    if impl == "whole":
        return mamba_chunk_scan_combined(
            x, dt, A, B, C, 4, D, z, dt_bias, initial_states, return_final_states=True, **options
        )
    S, steps = _chunk_cumsum_fwd(dt, A, 4, dt_bias, **options)
    states = chunk_state(B, x, steps, S).flatten(3)
    before, final = state_passing(states, S[..., -1], initial_states.flatten(2))
    shape = initial_states.shape[2:]
    y = chunk_scan(B, C, x, steps, S, before.unflatten(3, shape), D, z)
    return y, final.unflatten(2, shape)


@pytest.mark.parametrize("wide_D", [False, True])
def test_stages_are_the_whole_with_gradients(wide_D):
    tensors = inputs(t=12, wide_D=wide_D)
    expected, found = (results(call, impl, tensors) for impl in ("whole", "stages"))
    for name, value in expected.items():
        assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_sums_stop_behind_the_last_sample():
    dt, A = torch.ones(1, 5, 1, dtype=torch.float64), -torch.ones(1, dtype=torch.float64)
    S, steps = _chunk_cumsum_fwd(dt, A, 4)
    assert_close(S[0, 0], torch.tensor([[-1.0, -2, -3, -4], [-1, -1, -1, -1]]).double())
    assert_close(steps[0, 0], torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]]).double())


def test_states_of_packed_sequences():
    t = inputs(b=1, t=14, without=("D", "z", "dt_bias", "initial_states"))
    t["dt"] = t["dt"].exp()
    bounds = torch.tensor([0, 3, 3, 4, 11, 14])
    lengths = bounds.diff()
    ids = torch.repeat_interleave(torch.arange(5), lengths)[None]
    S, steps = _chunk_cumsum_fwd(t["dt"], t["A"], 4)
    states = _chunk_state_fwd(t["B"], t["x"], steps, S, ids)
    before, final = _state_passing_fwd(states.flatten(3), S[..., -1], None, ids, 4)
    packed = chunk_state_varlen(
        t["B"][0], t["x"][0], steps[0], S[0], bounds, before[0].unflatten(2, (3, 2))
    )
    for i, (begin, end) in enumerate(pairwise(bounds)):
        alone = {k: v if k == "A" else v[:, begin:end] for k, v in t.items()}
        if begin == end:
            assert not packed[i].any()
            continue
        _, expected = mamba_chunk_scan_combined(**alone, chunk_size=4, return_final_states=True)
        assert_close(packed[i], expected[0])
    assert_close(final.unflatten(2, (3, 2)), expected)
    padded = _chunk_state_fwd(t["B"], t["x"], steps, S, torch.full_like(ids, -1))
    assert not padded.any()


def test_types_and_buffers():
    t = {k: v.float() for k, v in inputs(t=8).items()}
    S, steps = _chunk_cumsum_fwd(t["dt"].bfloat16(), t["A"], 4, dt_softplus=True)
    assert S.dtype == steps.dtype == torch.float32
    B, x = t["B"].bfloat16(), t["x"].bfloat16()
    assert chunk_state(B, x, steps, S).dtype == torch.float32
    assert chunk_state(B, x, steps, S, states_in_fp32=False).dtype == torch.bfloat16
    buffer = torch.full((2, 2, 4, 3, 2), torch.nan)
    assert _chunk_state_fwd(B, x, steps, S, states=buffer) is buffer
    assert_close(buffer, chunk_state(B, x, steps, S))
    before, final = _state_passing_fwd(buffer.flatten(3), S[..., -1], out_dtype=torch.bfloat16)
    assert (before.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    y = chunk_scan(B, B, x, steps, S, before.unflatten(3, (3, 2)))
    assert y.dtype == torch.bfloat16
    with pytest.raises(InputError, match="time must be whole chunks of 4; got 7"):
        chunk_scan(B[:, :7], B[:, :7], x[:, :7], steps, S, buffer)
    with pytest.raises(InputError, match=r"A must be \(4,\)"):
        _chunk_cumsum_fwd(t["dt"], t["A"][:2], 4)
