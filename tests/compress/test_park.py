"""Parked states: bytes that come back, and bytes that are refused."""

import hashlib
import random

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_structure

from longstate.compress import codec_of, fit_codec, park, plain_codec, unpark
from longstate.compress._digits import write_numbers
from longstate.errors import InputError
from tests.compress.states import LINEAR, SELECTIVE, language, made, state_of


@pytest.fixture
def parked():
    layer = made("s4d")
    codec = fit_codec(layer, error=0.01)
    return park(state_of(layer, 3), codec), codec


def signed(body):
    return body + hashlib.blake2b(body, digest_size=8).digest()


@pytest.mark.parametrize("number", ["int8", "int4", "int3", "int2", "float16", "bfloat16", "exact"])
@pytest.mark.parametrize("name", [*LINEAR, *SELECTIVE])
def test_plain_numbers(name, number):
    layer = made(name)
    state = state_of(layer, 3)
    codec = plain_codec(layer, number)
    back = unpark(park(state, codec), codec)
    assert tree_structure(back) == tree_structure(state)
    most = {"int8": 1 / 127, "int4": 1 / 7, "int3": 1 / 3, "int2": 1.0, "float16": 2e-3}
    for x, y in zip(tree_leaves(state), tree_leaves(back), strict=True):
        assert x.dtype == y.dtype
        if number == "exact":
            assert torch.equal(x, y)
            continue
        x, y = (torch.view_as_real(v).flatten(-2) if v.is_complex() else v for v in (x, y))
        step = most.get(number, 1.6e-2) * x.abs().amax(-1, keepdim=True)
        assert bool(((x - y).abs() <= (0.5 + 2e-2) * step + 1e-7).all())


def test_sizes_equal_the_stated_bits():
    layer = made("mamba2")  # ssm (2, 4, 6), taps (3, 20)
    state = state_of(layer, 10)
    for number, bits in (("int8", 8), ("int4", 4), ("int2", 2), ("float16", 16), ("exact", 32)):
        codec = plain_codec(layer, number)
        scales = 16 * (8 + 3) if bits < 16 else 0
        assert codec.fixed_bits == 108 * bits + scales
        assert len(park(state, codec)) == 10 * codec.fixed_bits // 8 + 15 + 1 + 8
    assert plain_codec(layer, "int4", rest="exact").fixed_bits == 48 * 4 + 16 * 8 + 60 * 32
    assert codec.state_bits == 108 * 32


@pytest.mark.parametrize("batch", [0, 1, 300])
def test_any_batch(batch):
    model = language()
    codec = fit_codec(model, torch.randint(0, 11, (30, 16)), error=0.01)
    state = model.init_state(batch)
    back = unpark(park(state, codec), codec)
    assert tree_structure(back) == tree_structure(state)
    assert all(len(t) == batch for t in tree_leaves(back))


def test_outputs_continue_from_a_finely_parked_state():
    model = language()
    data = torch.randint(0, 11, (50, 24))
    codec = fit_codec(model, data, error=1e-9, rest="exact")
    with torch.no_grad():
        _, state = model(data[:, :12])
        y, _ = model(data[:, 12:], state)
        z, _ = model(data[:, 12:], unpark(park(state, codec), codec))
    assert float((y - z).norm() / y.norm()) < 1e-3


def test_the_range_coder():
    pytest.importorskip("constriction")
    model, data = language(), torch.randint(0, 11, (200, 24))
    codec = fit_codec(model, data, error=0.01)
    with torch.no_grad():
        _, state = model(data)
    fixed, ranged = park(state, codec), park(state, codec, coder="range")
    assert len(ranged) < len(fixed)
    for x, y in zip(*(tree_leaves(unpark(b, codec)) for b in (fixed, ranged)), strict=True):
        assert torch.equal(x, y)
    plain = plain_codec(model, "int4")
    for x, y in zip(
        *(tree_leaves(unpark(park(state, plain, coder=c), plain)) for c in ("fixed", "range")),
        strict=True,
    ):
        assert torch.equal(x, y)


def test_without_the_range_coder(monkeypatch, parked):
    import sys

    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(InputError, match=r"pip install 'longstate\[park\]'"):
        park(state_of(made("s4d"), 3), parked[1], coder="range")


def test_every_changed_or_missing_byte_is_detected(parked):
    data, codec = parked
    for at in range(len(data)):
        for wrong in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises(InputError, match=r"damaged|not a parked state|format version"):
                unpark(wrong, codec)
    with pytest.raises(InputError, match="checksum is wrong"):
        unpark(data + b"x", codec)


@pytest.mark.parametrize("coder", ["fixed", "range"])
@pytest.mark.parametrize("number", ["fitted", "coarse", "int4", "exact"])
def test_parked_states_that_were_changed_by_hand(number, coder):
    """With a checksum that fits: refused in one sentence, or a state of the right shape."""
    if coder == "range":
        pytest.importorskip("constriction")
    layer = made("s4d" if number in ("fitted", "coarse") else "mamba2")
    if number in ("fitted", "coarse"):
        codec = fit_codec(layer, error={"fitted": 0.01, "coarse": 0.9}[number])
    else:
        codec = plain_codec(layer, number)
    body = park(state_of(layer, 3), codec, coder=coder)[:-8]
    draw = random.Random(number)
    for _ in range(min(300, 20 * (len(body) - 14))):  # "coarse" has the number of rows, and 0 bits
        changed, at = bytearray(body), draw.randrange(14, len(body))
        match draw.randrange(4):
            case 0:
                changed[at] = draw.randrange(256)
            case 1:  # numbers of many bytes
                changed[at : at + 1] = b"\xff" * draw.randrange(1, 12) + b"\1"
            case 2:
                changed = changed[:at]
            case 3:
                changed += draw.randbytes(draw.randrange(1, 9))
        try:
            back = unpark(signed(bytes(changed)), codec)
        except InputError:
            continue
        codec.tensors_of(back)


@pytest.mark.parametrize("rows", [0, 1, 2, 4, 9, 10**6, 2**40])
def test_the_range_coder_gives_no_rows_that_were_not_parked(rows):
    """Its decoder goes on without an end, and may also stop early."""
    pytest.importorskip("constriction")
    codec = fit_codec(made("s4d"), error=0.02)
    data = park(state_of(made("s4d"), 3), codec, coder="range")
    assert len(unpark(data, codec)) == 3
    sentence = "words of the range coder are not those|more than this machine can hold"
    with pytest.raises(InputError, match=sentence):
        unpark(signed(data[:14] + write_numbers([rows]) + data[15:-8]), codec)


def test_a_parked_state_of_more_rows_than_memory_holds(parked):
    data, codec = parked
    with pytest.raises(InputError, match="more than this machine can hold"):
        unpark(signed(data[:14] + b"\xff\xff\xff\xff\xff\x7f" + data[15:-8]), codec)


def test_another_version_coder_or_codec(parked):
    data, codec = parked
    with pytest.raises(InputError, match="format version 2; this version of longstate reads"):
        unpark(signed(data[:4] + b"\2" + data[5:-8]), codec)
    with pytest.raises(InputError, match="unknown coder 7"):
        unpark(signed(data[:5] + b"\7" + data[6:-8]), codec)
    with pytest.raises(InputError, match=r"digits expected|ends too early"):
        unpark(signed(data[:20]), codec)
    other = fit_codec(made("s4d"), error=0.02)
    with pytest.raises(InputError, match=f"{codec.identity}, and this is {other.identity}"):
        unpark(data, other)
    assert codec_of(data) == codec.identity


def test_states_that_do_not_fit_the_codec_are_refused(parked):
    _, codec = parked
    state = state_of(made("s4d"), 2)
    nan = state.clone()
    nan[0, 0, 0] = float("nan")
    for wrong, sentence in (
        ({"ssm": state}, "the state holds state/ssm; the codec is for one of state"),
        (state[..., :2], "is \\(3, 2\\) torch.complex64 for each sequence"),
        (state.to(torch.complex128), "complex128 for each sequence"),
        (nan, "state is not finite"),
        (1e30 * state, "far outside what its codec was fitted to"),
    ):
        with pytest.raises(InputError, match=sentence):
            park(wrong, codec)
    plain = plain_codec(made("s4d"), "int8")
    for wrong in (nan, 1e30 * state):
        with pytest.raises(InputError, match="not finite, or too large for int8"):
            park(wrong, plain)
    with pytest.raises(InputError, match="coder must be"):
        park(state, codec, coder="zip")
