"""Switching on and off: completely undone, in any order, and refused for unknown versions."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from longstate.interop import _transformers_patch as transformers_patch
from longstate.interop import accelerate_transformers
from tests.interop.families import FAMILIES, build, counting_kernels, modeling, tokens

ROOT = Path(__file__).resolve().parents[2]


def everything():
    """Every attribute of the modeling files and of their classes."""
    found = {}
    for family in FAMILIES:
        for name, value in vars(modeling(family)).items():
            found[family, name] = value
            if isinstance(value, type) and value.__module__ == modeling(family).__name__:
                found |= {(family, name, key): v for key, v in vars(value).items()}
    return found


def differences(before, after):
    assert before.keys() == after.keys()
    return {key for key in before if before[key] is not after[key]}


def test_undo_leaves_nothing_behind():
    before = everything()
    handle = accelerate_transformers()
    changed = differences(before, everything())
    handle.undo()
    assert not differences(before, everything())
    handle.undo()
    assert not differences(before, everything())
    functions = {
        (family, name) for family, names in transformers_patch._FUNCTIONS.items() for name in names
    }
    mixers = {(f, name, "forward") for f, name in transformers_patch._MAMBA1_MIXERS.items()}
    assert changed == functions | mixers


def test_a_second_call_changes_nothing():
    before = everything()
    accelerate_transformers()
    once = everything()
    second = accelerate_transformers()
    assert not differences(once, everything())
    second.undo()
    assert not differences(before, everything())


def test_contexts_nest():
    before = everything()
    with accelerate_transformers() as outer:
        inside = everything()
        with accelerate_transformers():
            assert not differences(inside, everything())
        assert not differences(inside, everything())
    assert not differences(before, everything())
    with outer:
        assert differences(before, everything())
    assert not differences(before, everything())
    with pytest.raises(KeyError), accelerate_transformers():
        raise KeyError
    assert not differences(before, everything())


def test_a_context_keeps_an_earlier_acceleration():
    handle = accelerate_transformers()
    inside = everything()
    with accelerate_transformers():
        pass
    assert not differences(inside, everything())
    handle.undo()


def test_missing_function_is_an_error_and_changes_nothing(monkeypatch):
    monkeypatch.delattr(modeling("nemotron_h"), "mamba2_chunk_scan")
    before = everything()
    with pytest.raises(ImportError, match=r"5\.15 to 5\.23; .* is installed, .*mamba2_chunk_scan"):
        accelerate_transformers()
    assert not differences(before, everything())


def test_changed_arguments_are_an_error(monkeypatch):
    def mamba_selective_scan(hidden_states, A, dt):
        raise AssertionError

    monkeypatch.setattr(modeling("jamba"), "mamba_selective_scan", mamba_selective_scan)
    with pytest.raises(ImportError, match="mamba_selective_scan takes hidden_states, A, dt"):
        accelerate_transformers()


def test_missing_model_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.models.falcon_h1.modeling_falcon_h1", None)
    with pytest.raises(ImportError, match="modeling_falcon_h1"):
        accelerate_transformers()


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install"):
        accelerate_transformers()


def test_a_newer_version_of_transformers_gives_a_warning(monkeypatch):
    """The functions are replaced; a mixer as a whole is not."""
    monkeypatch.setattr("transformers.__version__", "5.24.0.dev0")
    monkeypatch.setattr("longstate.interop._transformers_ops.mamba_step", None)  # fails when called
    model = build("mamba").eval()
    with pytest.warns(UserWarning, match=r"5\.24\.0\.dev0 is newer") as warned:
        handle = accelerate_transformers()
    assert warned[0].filename == __file__
    with handle, counting_kernels() as ours:
        model.generate(tokens(), max_new_tokens=3, do_sample=False)
    assert ours["selective_scan"] == 2


@pytest.mark.parametrize(
    ("installed", "devices"),
    [
        ({"triton"}, ("cpu", "cuda")),
        ({"triton", "mamba_ssm"}, ("cpu",)),
        ({"triton", "causal_conv1d"}, ("cpu",)),
        ({"triton", "kernels"}, ("cpu",)),
        (set(), ("cpu",)),
    ],
)
def test_devices_with_other_kernels_are_not_changed(installed, devices, monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name in installed else None
    )
    monkeypatch.setattr(transformers_patch, "has_triton", lambda: "triton" in installed)
    assert transformers_patch._devices() == devices


def test_a_package_without_a_spec_counts_as_installed(monkeypatch):
    monkeypatch.setattr(transformers_patch, "has_triton", lambda: True)
    monkeypatch.setitem(sys.modules, "mamba_ssm", ModuleType("mamba_ssm"))
    assert transformers_patch._devices() == ("cpu",)


def test_other_devices_run_the_original():
    model = build("mamba").to("meta")
    with accelerate_transformers(), counting_kernels() as ours:
        assert model(tokens().to("meta")).logits.shape == (2, 37, 61)
    assert not ours


def test_exported_programs_contain_no_op_of_longstate():
    model = build("mamba2").eval()
    with accelerate_transformers():
        program = torch.export.export(
            model, (tokens(length=8),), {"use_cache": False}, strict=False
        )
    assert "longstate" not in str(program.graph)


def python(code: str, *path: Path) -> str:
    """The output of a new interpreter."""
    begin = f"import sys; sys.path[:0] = {[str(p) for p in (*path, ROOT)]!r}\n"
    run = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


ON = "from longstate.interop import accelerate_transformers; accelerate_transformers()\n"
MODELS = """
from tests.interop.families import build, counting_kernels, tokens
models = build("mamba"), build("mamba2")

def run():
    with counting_kernels() as ours:
        for model in models:
            loss = model(tokens(), labels=tokens()).loss
            loss.backward()
            made = model.generate(tokens(length=3), max_new_tokens=2, do_sample=False)
            print(f"{loss.item():.5f}", made[:, 3:].tolist())
    print(sorted(ours))
"""
OURS = ["chunk_scan", "chunk_scan_backward", "selective_scan", "selective_scan_backward"]
OURS += ["short_conv", "short_conv_backward"]


def test_in_any_order_of_imports():
    """Longstate first; or transformers first, with models that have run."""
    first = python(ON + MODELS + "run()").splitlines()
    last = python(MODELS + "run()\n" + ON + "run()").splitlines()
    assert last[2] == "[]"
    assert first == last[3:] == [*last[:2], str(OURS)]


def test_gpu_packages_that_can_be_imported_do_not_stop_a_cpu(tmp_path):
    """transformers calls them whatever the device."""
    call = "def {}(*args, **options):\n    raise RuntimeError('no CUDA device')\n"
    for path, names in {
        "causal_conv1d/__init__.py": ("causal_conv1d_fn", "causal_conv1d_update"),
        "mamba_ssm/__init__.py": (),
        "mamba_ssm/ops/__init__.py": (),
        "mamba_ssm/ops/triton/__init__.py": (),
        "mamba_ssm/ops/selective_scan_interface.py": ("selective_scan_fn", "mamba_inner_fn"),
        "mamba_ssm/ops/triton/selective_state_update.py": ("selective_state_update",),
        "mamba_ssm/ops/triton/ssd_combined.py": (
            "mamba_chunk_scan_combined", "mamba_split_conv1d_scan_combined",
        ),
    }.items():  # fmt: skip
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(call.format(name) for name in names))
    stopped = """
for model in models:
    try:
        model(tokens())
    except RuntimeError as error:
        print(error)
"""
    *errors, mamba, mamba2, ours = python(MODELS + stopped + ON + "run()", tmp_path).splitlines()
    assert errors == ["no CUDA device"] * 2
    assert ours == str(OURS)
    for line, family in ((mamba, "mamba"), (mamba2, "mamba2")):
        model = build(family)
        loss = model(tokens(), labels=tokens()).loss
        made = model.generate(tokens(length=3), max_new_tokens=2, do_sample=False)
        assert line == f"{loss.item():.5f} {made[:, 3:].tolist()}"


def test_importing_interop_loads_neither_transformers_nor_numba():
    loaded = python("import longstate.interop; print(*sys.modules)").split()
    assert not {"transformers", "numba"} & set(loaded)
