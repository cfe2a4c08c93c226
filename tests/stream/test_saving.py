"""A state on disk: what goes back, what is refused, what may happen to a file."""

import contextlib
import errno
import json
import os

import pytest
import safetensors
import safetensors.torch
import torch
from torch.utils._pytree import tree_structure

from longstate import _tensorfile as tensorfile
from longstate.errors import InputError
from longstate.layers import S4D, S5, Mamba, Mamba3
from longstate.stream import load_state, save_state
from tests.layers.test_contract import LAYERS
from tests.stream.helpers import Odd, TokenModel, assert_same, backbone, values


@pytest.fixture
def layer():
    return S4D(3, d_state=4)


@pytest.fixture
def saved(layer, tmp_path):
    path = tmp_path / "s"
    save_state(path, layer, values(layer))
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*LAYERS, "backbone"])
def test_a_loaded_stream_continues_exactly(name, dtype, tmp_path):
    module = (backbone() if name == "backbone" else LAYERS[name]()).to(dtype).eval()
    u = torch.randn(2, 12, module.d_model, dtype=dtype)
    with torch.no_grad():
        _, state = module(u[:, :7])
        save_state(tmp_path / "s", module, state)
        loaded = load_state(tmp_path / "s", module)
        assert_same(loaded, state)
        assert tree_structure(loaded) == tree_structure(module.init_state(2))
        assert_same(module(u[:, 7:], loaded), module(u[:, 7:], state))
        assert_same(module.step(u[:, 7], loaded), module.step(u[:, 7], state))


def test_a_model_of_tokens(tmp_path):
    model, tokens = TokenModel(), torch.arange(6)[None]
    _, state = model(tokens)
    save_state(tmp_path / "s", model, state)
    assert_same(model(tokens, load_state(tmp_path / "s", model)), model(tokens, state))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float16, torch.int64, torch.float8_e5m2])
def test_any_structure_type_and_batch(kept, batch, tmp_path):
    module = Odd(kept)
    state = values(module, batch)
    save_state(tmp_path / "s", module, state)
    loaded = load_state(tmp_path / "s", module)
    assert tree_structure(loaded) == tree_structure(state)
    assert type(loaded[0]) is type(state[0])
    assert loaded[0].left.dtype == kept
    byte = lambda s: s[0].left.view(torch.uint8)  # noqa: E731  float8 compares with nothing
    assert torch.equal(byte(loaded), byte(state))
    assert_same(loaded[1:], state[1:])


def test_views_and_conjugates_are_saved_by_value(tmp_path):
    layer = S4D(3, d_state=4)
    state = values(layer, 4)[::2].conj()
    save_state(tmp_path / "s", layer, state.requires_grad_())
    assert_same(load_state(tmp_path / "s", layer), state.detach().resolve_conj())


def test_a_layer_without_a_state(tmp_path):
    layer = S4D(3, d_state=4, bidirectional=True)
    save_state(tmp_path / "s", layer, layer.init_state(2))
    assert load_state(tmp_path / "s", layer) == ()


def nudged(layer):
    with torch.no_grad():
        layer.D[1] = torch.nextafter(layer.D[1], torch.tensor(9.0))
    return layer


def bilinear(layer):
    layer.variant = "bilinear"
    return layer


def copy_of(module, other):
    other.load_state_dict(module.state_dict(), strict=False)
    return other


OTHERS = [
    (lambda s: S5(3, d_state=4), "belongs to S4D, not to S5"),
    (lambda s: S4D(3, d_state=6), "belongs to another S4D: its d_state is 4, here 6"),
    (lambda s: S4D(2, d_state=4), "belongs to another S4D: its d_model is 3, here 2"),
    (bilinear, "belongs to another S4D: its variant is 'zoh', here 'bilinear'"),
    (nudged, "belongs to S4D with other weights: 1 of 6 tensors differ, the first is D"),
    (lambda s: S4D(3, d_state=4), r"belongs to S4D with other weights: \d of 6 tensors"),
    (lambda s: s.double(), r"state is \(2, 3, 2\) torch.complex64; this S4D keeps .*complex128"),
]


@pytest.mark.parametrize(("change", "message"), OTHERS)
def test_another_module_is_refused(change, message, layer, saved):
    with pytest.raises(InputError, match=message) as error:
        load_state(saved, change(layer))
    assert str(error.value).startswith(str(saved)) or "complex" in message
    assert "\n" not in str(error.value)


def test_what_differs_within_a_model_is_named(tmp_path):
    model = backbone()
    save_state(tmp_path / "s", model, values(model))
    with pytest.raises(InputError, match=r"only the module here has blocks\.2\.class"):
        load_state(tmp_path / "s", backbone(3))
    model.blocks[1].mixer.variant = "bilinear"
    with pytest.raises(InputError, match=r"its blocks\.1\.mixer\.variant is 'zoh'"):
        load_state(tmp_path / "s", model)


def test_settings_that_change_no_weight_are_compared(tmp_path):
    one = Mamba3(6, d_state=8, d_head=4)
    other = copy_of(one, Mamba3(6, d_state=8, d_head=4, variant="softplus"))
    save_state(tmp_path / "s", one, values(one))
    with pytest.raises(InputError, match="its variant is 'rational', here 'softplus'"):
        load_state(tmp_path / "s", other)


def test_equivalent_forms_of_a_module_have_one_identity(tmp_path):
    layer = Mamba(6, d_state=4).bfloat16()
    state = values(layer)
    save_state(tmp_path / "s", layer, state)
    assert_same(load_state(tmp_path / "s", copy_of(layer, Mamba(6, d_state=4))), state)
    assert_same(load_state(tmp_path / "s", torch.compile(layer, backend="eager")), state)
    assert_same(load_state(tmp_path / "s", layer.train()), state)
    with pytest.raises(InputError, match="with other weights"):
        load_state(tmp_path / "s", nudged(layer.float()))


def test_only_a_state_of_the_module_is_saved(layer, tmp_path):
    wrong = [
        (
            values(S5(3, d_state=4)),
            r"state is \(2, 2\) torch.complex64; this S4D keeps \(2, 3, 2\)",
        ),
        (values(layer).to(torch.complex128), "complex128; this S4D keeps .* torch.complex64"),
        ([values(layer)], "the state holds state/0; that of this S4D holds state$"),
        ({"x": 3}, "state/x is of type int; a state holds tensors only"),
        (torch.tensor(1.0), "state has no batch axis"),
        (None, "the state holds nothing"),
        ({"a": {"b": torch.ones(1)}, "a/b": torch.ones(1)}, "two tensors .* are called state/a/b"),
    ]
    for state, message in wrong:
        with pytest.raises(InputError, match=message):
            save_state(tmp_path / "s", layer, state)
    with pytest.raises(InputError, match="Linear has no state"):
        save_state(tmp_path / "s", torch.nn.Linear(1, 1), values(layer))
    assert os.listdir(tmp_path) == []


def test_a_file_cut_anywhere_is_refused(layer, saved):
    whole = saved.read_bytes()
    for size in range(len(whole)):
        saved.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"is damaged|is not a longstate state file"):
            load_state(saved, layer)


def test_every_changed_byte_is_detected(layer, saved):
    """Wherever it is: in the sizes, in what the header says, in a number."""
    whole, state = saved.read_bytes(), load_state(saved, layer)
    survived = 0
    for at in range(len(whole)):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with contextlib.suppress(InputError):
            assert_same(load_state(saved, layer), state)
            survived += 1
    assert survived < 8, "only the blanks that safetensors pads its header with carry nothing"


def test_other_files_are_refused(layer, saved):
    with safetensors.safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["longstate"])

    def write(header):
        metadata = {"longstate": json.dumps(header)}
        saved.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, metadata=metadata))

    write({**header, "format": 2})
    with pytest.raises(InputError, match=r"has format version 2; .* reads version 1"):
        load_state(saved, layer)
    write({**header, "facts": None})
    with pytest.raises(InputError, match="is damaged: its header holds no facts"):
        load_state(saved, layer)
    write(header)
    with pytest.raises(
        InputError, match="is damaged: its contents have changed since it was written"
    ):
        load_state(saved, layer)
    tensorfile.save(saved, "model", {"a": torch.zeros(1)}, {})
    with pytest.raises(InputError, match="is not a longstate state file"):
        load_state(saved, layer)
    saved.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(InputError, match="is not a longstate state file"):
        load_state(saved, layer)
    saved.write_text("date,value\n2024-01-01,3\n")
    with pytest.raises(InputError, match="is not a longstate state file but a text file"):
        load_state(saved, layer)
    with pytest.raises(InputError, match="does not exist"):
        load_state(saved.parent / "none", layer)
    with pytest.raises(InputError, match="is a folder"):
        load_state(saved.parent, layer)


def test_a_full_disk_leaves_the_old_state(layer, saved, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device; the file there is unchanged"):
        save_state(saved, layer, values(layer, seed=1))
    assert_same(load_state(saved, layer), values(layer))
    assert os.listdir(saved.parent) == [saved.name]


def test_a_folder_that_cannot_be_written(layer, saved):
    with pytest.raises(InputError, match=r"cannot be written: .*([Nn]ot a directory|File exists)"):
        save_state(saved / "s", layer, values(layer))


def test_a_loaded_state_does_not_depend_on_the_file(layer, saved):
    state = load_state(saved, layer)
    with saved.open("r+b") as file:
        file.truncate(10)
    assert_same(state, values(layer))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_state_moves_between_devices(layer, saved):
    on_gpu = load_state(saved, layer.cuda())
    assert on_gpu.device == layer.D.device
    save_state(saved, layer, on_gpu)
    assert_same(load_state(saved, layer.cpu()), values(layer))
