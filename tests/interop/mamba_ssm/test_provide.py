"""Names that are not installed: found, shared, taken away; what is installed stays."""

import importlib.metadata
import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType

import pytest

from longstate.interop import provide_mamba_ssm
from longstate.interop.mamba_ssm import provide
from tests.ops.helpers import run_python

MODULES = {
    "mamba_ssm": "Mamba Mamba2 selective_scan_fn mamba_inner_fn",
    "mamba_ssm.modules.mamba_simple": "Mamba",
    "mamba_ssm.modules.mamba2": "Mamba2",
    "mamba_ssm.ops.selective_scan_interface": (
        "selective_scan_fn selective_scan_ref mamba_inner_fn mamba_inner_ref"
    ),
    "mamba_ssm.ops.triton.layer_norm": "RMSNorm layer_norm_fn rms_norm_fn",
    "mamba_ssm.ops.triton.layernorm_gated": (
        "RMSNorm LayerNorm rmsnorm_fn layernorm_fn rms_norm_ref"
    ),
    "mamba_ssm.ops.triton.selective_state_update": (
        "selective_state_update selective_state_update_ref"
    ),
    "mamba_ssm.ops.triton.ssd_combined": (
        "mamba_chunk_scan_combined mamba_chunk_scan mamba_split_conv1d_scan_combined "
        "mamba_split_conv1d_scan_ref ssd_chunk_scan_combined_ref ssd_selective_scan"
    ),
    "mamba_ssm.ops.triton.ssd_chunk_state": (
        "_chunk_cumsum_fwd _chunk_state_fwd chunk_state chunk_state_ref chunk_state_varlen"
    ),
    "mamba_ssm.ops.triton.ssd_state_passing": "_state_passing_fwd state_passing state_passing_ref",
    "mamba_ssm.ops.triton.ssd_chunk_scan": "chunk_scan chunk_scan_ref",
    "mamba_ssm.utils.generation": "InferenceParams",
    "causal_conv1d": "causal_conv1d_fn causal_conv1d_update",
    "causal_conv1d.causal_conv1d_interface": (
        "causal_conv1d_fn causal_conv1d_ref causal_conv1d_update causal_conv1d_update_ref"
    ),
    "causal_conv1d.causal_conv1d_varlen": (
        "causal_conv1d_varlen_states causal_conv1d_varlen_states_ref"
    ),
}


@pytest.fixture(autouse=True)
def absent():
    """These tests are about a machine without the packages."""
    if any(PathFinder.find_spec(name) for name in provide.PACKAGES):
        pytest.skip("mamba-ssm or causal-conv1d is installed")


def loaded() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] in provide.PACKAGES}


def test_every_published_name_is_there():
    with provide_mamba_ssm() as provided:
        assert provided.packages == ("mamba_ssm", "causal_conv1d")
        for module, names in MODULES.items():
            found = importlib.import_module(module)
            assert found.__name__ == module
            for name in names.split():
                assert callable(getattr(found, name)), f"{module}.{name}"
    published = {
        ".".join(path.relative_to(provide.FOLDER).with_suffix("").parts).removesuffix(".__init__")
        for path in provide.FOLDER.rglob("*.py")
        if path.stat().st_size
    }
    assert published == set(MODULES)


def test_a_class_is_the_same_by_every_name():
    with provide_mamba_ssm():
        from mamba_ssm import Mamba
        from mamba_ssm.modules.mamba_simple import Mamba as Again

        from longstate.interop.mamba_ssm.mamba import Mamba as Ours

        assert Mamba is Again is Ours


def test_undo_leaves_nothing_behind():
    finders = list(sys.meta_path)
    provided = provide_mamba_ssm()
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    assert loaded()
    provided.undo()
    assert sys.meta_path == finders
    assert not loaded()
    with pytest.raises(ModuleNotFoundError, match="mamba_ssm"):
        importlib.import_module("mamba_ssm.ops")
    assert callable(mamba_chunk_scan_combined)
    provided.undo()


def test_twice_is_once():
    with provide_mamba_ssm() as first:
        finders = list(sys.meta_path)
        with provide_mamba_ssm() as second:
            assert second.packages == first.packages
            assert sys.meta_path == finders
        assert importlib.import_module("mamba_ssm").Mamba


def test_no_distribution_is_claimed():
    with provide_mamba_ssm():
        import causal_conv1d
        import mamba_ssm

        for module in (mamba_ssm, causal_conv1d):
            assert module.__version__.endswith("+longstate")
            assert importlib.util.find_spec(module.__name__).origin == module.__file__
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("mamba_ssm")


def test_what_is_not_provided_fails_as_usual():
    with provide_mamba_ssm():
        with pytest.raises(ImportError, match="Mamba3"):
            from mamba_ssm import Mamba3  # noqa: F401
        with pytest.raises(ModuleNotFoundError, match=r"mamba_ssm\.models"):
            import mamba_ssm.models.mixer_seq_simple  # noqa: F401
        assert importlib.util.find_spec("mamba_ssm.distributed") is None


def test_a_module_that_somebody_put_there_stays(monkeypatch):
    stub = ModuleType("mamba_ssm")
    monkeypatch.setitem(sys.modules, "mamba_ssm", stub)
    with provide_mamba_ssm() as provided:
        assert provided.packages == ("causal_conv1d",)
        assert importlib.import_module("mamba_ssm") is stub
    assert sys.modules["mamba_ssm"] is stub


REAL = """
import sys
sys.path.insert(0, {folder!r})
from longstate.interop import provide_mamba_ssm
provided = provide_mamba_ssm()
import causal_conv1d, mamba_ssm
print(provided.packages, mamba_ssm.__version__, causal_conv1d.__version__)
try:
    import mamba_ssm.ops
except ModuleNotFoundError as error:
    print(error)
provided.undo()
print(sorted(n for n in sys.modules if n.startswith(("mamba_ssm", "causal_conv1d"))))
"""


def test_an_installed_package_stays_and_is_not_mixed_with_ours(tmp_path):
    package = tmp_path / "mamba_ssm"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '9'\n")
    assert run_python(REAL.format(folder=str(tmp_path))).splitlines() == [
        "('causal_conv1d',) 9 1.7.0+longstate",
        "No module named 'mamba_ssm.ops'",
        "['mamba_ssm']",
    ]


def test_import_loads_nothing_heavy():
    loaded_by_call = run_python(
        "import sys; from longstate.interop import provide_mamba_ssm; provide_mamba_ssm();"
        "import mamba_ssm, causal_conv1d;"
        "print([n for n in ('numba', 'triton', 'transformers', 'einops') if n in sys.modules])"
    )
    assert loaded_by_call.strip() in ("[]", "['triton']")  # torch may load triton itself
