"""A stream is its module, called with the state of the last call."""

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.layers import S4D, S5, Mamba2
from longstate.models import LanguageModel, LanguageSpec, prepare_for_decoding
from longstate.stream import Stream, fork, select
from tests.layers.test_contract import LAYERS, NO_DT
from tests.stream.helpers import TokenModel, assert_same, tensors


@pytest.fixture
def layer():
    return S5(3, d_state=4).double()


@pytest.fixture
def u():
    return torch.randn(2, 20, 3, dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
def test_pushes_equal_one_call(name):
    layer = LAYERS[name]().double()
    u = torch.randn(2, 9, layer.d_model, dtype=torch.float64)
    options = {"mask": torch.rand(2, 9) < 0.8, "reset": torch.rand(2, 9) < 0.2}
    if name not in NO_DT:
        options["dt"] = torch.rand(2, 9, dtype=torch.float64)
    whole, last = layer(u, **options)
    for chunk, cuts in ((None, [1, 2, 6]), (4, [1, 3]), (1, []), (100, [])):
        stream = Stream(layer, chunk=chunk)
        pieces = [x.tensor_split(cuts, dim=1) for x in (u, *options.values())]
        y = [
            stream.push(p[0], **dict(zip(options, p[1:], strict=True)))
            for p in zip(*pieces, strict=True)
        ]
        assert_close(torch.cat(y, dim=1), whole)
        assert_close(tensors(stream.state), tensors(last))
        assert stream.position == 9


def test_the_module_gets_one_chunk_at_a_time(layer, u):
    seen = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    Stream(layer, chunk=8).push(u)
    assert seen == [8, 8, 4]


def test_a_fork_uses_chunks_too(layer, u):
    seen = []
    stream = Stream(layer, chunk=8)
    stream.push(u[:, :1])
    fork = stream.fork()
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    fork.push(u)
    assert seen == [8, 8, 4]
    assert fork.position == 21


def test_one_sample_is_a_step(u):
    layer, called = S4D(3, d_state=4).double(), []
    layer.register_forward_pre_hook(lambda *call: called.append(call))
    expected = layer.step(u[:, 0], layer.init_state(2))[0]
    assert_same(Stream(layer).push(u[:, :1]), expected[:, None])
    assert called == []


@pytest.mark.parametrize("prepared", [False, True])
def test_one_token_is_a_step(prepared):
    torch.manual_seed(0)
    model = LanguageModel(LanguageSpec(70, 16, ("mamba", "s4d"))).double().eval()
    model = prepare_for_decoding(model).double() if prepared else model
    tokens, mask = torch.randint(70, (2, 4)), torch.tensor([[True], [False]])
    with torch.no_grad():
        first, state = model(tokens[:, :2])
        second, state = model.step(tokens[:, 2], state)
        third, _ = model.step(tokens[:, 3], state, mask=mask[:, 0])
        whole = model(tokens[:, :3])[0][:, 2:]
    stream, called = Stream(model), []
    assert_same(stream.push(tokens[:, :2]), first)
    model.register_forward_pre_hook(lambda *call: called.append(call))
    assert_same(stream.push(tokens[:, 2:3]), second[:, None])
    assert_close(second[:, None], whole)
    assert_same(stream.push(tokens[:, 3:], mask=mask), third[:, None])
    assert called == []


def test_a_compiled_module_is_called_for_one_sample():
    model = torch.compile(S4D(3, d_state=4).double(), backend="eager")
    called = []
    model.register_forward_pre_hook(lambda *call: called.append(call))
    Stream(model).push(torch.randn(2, 1, 3, dtype=torch.float64))
    assert len(called) == 1


def test_tokens():
    model, tokens = TokenModel(), torch.randint(7, (3, 11))
    whole, _ = model(tokens)
    stream = Stream(model, chunk=4)
    assert_close(torch.cat([stream.push(tokens[:, :10]), stream.push(tokens[:, 10:])], 1), whole)


def test_rolling_back_undoes_a_push(layer, u):
    stream = Stream(layer)
    fresh = stream.snapshot()
    stream.push(u[:, :5])
    kept = stream.snapshot()
    first = stream.push(u[:, 5:9]), stream.push(u[:, 9:10])
    stream.roll_back(kept)
    assert stream.position == 5
    assert_same((stream.push(u[:, 5:9]), stream.push(u[:, 9:10])), first)
    stream.roll_back(fresh)
    assert (stream.state, stream.position) == (None, 0)
    with pytest.raises(InputError, match=r"expects what snapshot\(\) returned; got a Tensor"):
        stream.roll_back(kept.state)


def test_forks_are_independent(layer, u):
    stream = Stream(layer, chunk=3)
    stream.push(u[:, :5])
    before, three = stream.snapshot(), stream.fork(3)
    assert three.position == 5
    assert_same(three.state, fork(before.state, 3))
    three.push(u.repeat_interleave(3, 0))
    assert stream.snapshot() is before
    assert_same(Stream(layer).fork().push(u), Stream(layer).push(u))


def test_a_prefix_is_read_once(layer, u):
    prefix = Stream(layer)
    prefix.push(u[:, :5])
    answers = Stream(layer, select(prefix.state, [1, 1, 0]))
    expected = layer(u[[1, 1, 0]])[0]
    assert_close(answers.push(u[[1, 1, 0], 5:]), expected[:, 5:])


def test_a_loaded_state_moves_to_the_device_of_the_module(layer):
    state = layer.init_state(2)
    assert Stream(layer.to("meta"), state).state.device.type == "meta"


def test_a_saved_stream_is_continued(layer, u, tmp_path):
    stream, other = Stream(layer), Stream(layer, chunk=4)
    stream.push(u[:, :8])
    stream.save(tmp_path / "s")
    other.push(u[:1, :3])
    other.load(tmp_path / "s")
    assert other.position == 8
    assert_same(other.state, stream.state)
    with torch.no_grad():
        layer.D += 1
    with pytest.raises(InputError, match="with other weights"):
        other.load(tmp_path / "s")
    assert other.position == 8
    with pytest.raises(InputError, match="nothing to save"):
        Stream(layer).save(tmp_path / "t")


def test_memory_for_backward_is_kept_only_when_asked_for(layer, u):
    stream = Stream(layer)
    assert not stream.push(u).requires_grad
    assert not stream.state.requires_grad
    assert Stream(layer, grad=True).push(u).requires_grad
    with torch.no_grad():
        assert not Stream(layer, grad=True).push(u).requires_grad


def test_detach_does_not_change_values(layer, u):
    stream = Stream(layer, grad=True)
    stream.push(u)
    before = stream.snapshot()
    stream.detach()
    assert stream.position == 20
    assert_same(stream.state, before.state)


def test_detach_cuts_backward(layer, u):
    def gradient(cut):
        layer.zero_grad()
        stream = Stream(layer, grad=True)
        stream.push(u[:, :5])
        if cut:
            stream.detach()
        stream.push(u[:, 5:]).square().sum().backward()
        return layer.B.grad.clone()

    def by_hand(cut):
        layer.zero_grad()
        _, state = layer(u[:, :5])
        layer(u[:, 5:], state.detach() if cut else state)[0].square().sum().backward()
        return layer.B.grad.clone()

    assert_same(gradient(True), by_hand(True))
    assert_same(gradient(False), by_hand(False))
    assert not torch.equal(gradient(True), gradient(False))
    Stream(layer).detach()  # before the first push there is nothing to forget


def test_a_refused_push_does_not_change_the_stream(layer, u):
    stream = Stream(layer, chunk=5)
    stream.push(u[:, :5])
    before = stream.snapshot()
    dt = torch.ones(2, 15, dtype=torch.float64)
    dt[0, 12] = -1
    for wrong, options, message in [
        (u[:1], {}, "expects state to be complex128 .* for a batch of 1"),
        (u[:, :0], {}, "without samples"),
        (u[0, :, 0], {}, r"u must have a batch and a time axis; got shape \(20,\)"),
        (u[:, 5:], {"dt": dt}, "every dt"),
        (u[:, 5:], {"mask": torch.ones(2, 1, dtype=torch.bool)}, r"mask must have .* \(2, 15\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            stream.push(wrong, **options)
        assert stream.snapshot() is before


def test_a_state_of_another_size_is_refused():
    layer = S4D(3, d_state=4)
    fits = layer.init_state(2)
    for wrong in (fits[:, :, :1], torch.cat([fits, fits], 2), fits.to(torch.complex128)):
        with pytest.raises(InputError, match=r"keeps \(2, 3, 2\) torch\.complex64"):
            Stream(layer, wrong)


def test_modules_that_cannot_stream():
    with pytest.raises(InputError, match="Linear has no state: it lacks init_state"):
        Stream(torch.nn.Linear(3, 3))
    with pytest.raises(InputError, match=r"this S5 carries no state .* bidirectional"):
        Stream(S5(3, d_state=4, bidirectional=True))
    with pytest.raises(InputError, match=r"the state holds state; that of this Mamba2"):
        Stream(Mamba2(4, d_head=4), torch.ones(1, 2))
    with pytest.raises(InputError, match="chunk must be at least 1 sample; got 0"):
        Stream(S4D(3), chunk=0)


def test_a_stream_of_samples_loads_no_tables():
    code = "import sys; from longstate.stream import Stream; print('pandas' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
