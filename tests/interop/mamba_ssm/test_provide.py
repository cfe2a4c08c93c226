"""Names of packages that are not installed: found, shared, removed; installed packages are kept."""

import importlib.metadata
import importlib.util
import re
import sys
from importlib.machinery import PathFinder
from types import ModuleType

import pytest

from longstate.interop import provide_mamba_ssm
from longstate.interop.mamba_ssm import provide
from longstate.interop.mamba_ssm.names import NAMES, REFUSED, REFUSED_MODULES
from tests.interop.mamba_ssm.published import PUBLISHED
from tests.ops.helpers import run_python


@pytest.fixture(autouse=True)
def absent():
    """Skip if the packages are installed."""
    if any(PathFinder.find_spec(name) for name in provide.PACKAGES):
        pytest.skip("mamba-ssm or causal-conv1d is installed")


def loaded() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] in provide.PACKAGES}


def every_name():
    for module, homes in NAMES.items():
        for names in homes.values():
            for entry in names.split():
                yield module, entry.rpartition("=")[2]


def test_every_published_name_is_there():
    with provide_mamba_ssm() as provided:
        assert provided.packages == ("mamba_ssm", "causal_conv1d")
        for module, name in every_name():
            found = importlib.import_module(module)
            assert found.__name__ == module
            assert callable(getattr(found, name)), f"{module}.{name}"
            assert name.startswith("_") or name in found.__all__


def test_every_name_of_the_packages_is_provided_or_refused_in_a_sentence():
    with provide_mamba_ssm():
        for module, names in PUBLISHED.items():
            found = importlib.import_module(module)
            refused = REFUSED.get(module, {})
            for name in names.split():
                if name not in refused:
                    assert callable(getattr(found, name))
                    continue
                start = f"longstate does not provide {module}.{name}: "
                with pytest.raises(ImportError, match=re.escape(start + refused[name])):
                    getattr(found, name)


# Names that projects import, as the two packages document them.
IMPORTS = """
from mamba_ssm import Mamba, Mamba2, Mamba3, MambaLMHeadModel, mamba_inner_fn, selective_scan_fn
from mamba_ssm.models.config_mamba import MambaConfig
from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel, MixerModel, create_block
from mamba_ssm.models.mixer_seq_simple import GenerationMixin, _init_weights
from mamba_ssm.modules.block import Block
from mamba_ssm.modules.mamba2_simple import Mamba2Simple
from mamba_ssm.modules.mamba3 import Mamba3
from mamba_ssm.modules.mamba_simple import Block, Mamba, causal_conv1d_fn, selective_scan_fn
from mamba_ssm.modules.mamba2 import Mamba2, RMSNormGated
from mamba_ssm.modules.mha import MHA
from mamba_ssm.modules.mlp import GatedMLP
from mamba_ssm.modules.ssd_minimal import ssd_minimal_discrete
from mamba_ssm.ops.selective_scan_interface import SelectiveScanFn, mamba_inner_fn_no_out_proj
from mamba_ssm.ops.triton.layer_norm import layer_norm_ref, rms_norm_ref
from mamba_ssm.ops.triton.layernorm import RMSNorm, layer_norm_fn, rms_norm_fn
from mamba_ssm.ops.triton.layernorm_gated import rms_norm_ref as gated_rms_norm_ref
from mamba_ssm.utils.generation import GenerationMixin, InferenceParams, decode, sample
from mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf
from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from causal_conv1d.causal_conv1d_interface import CausalConv1dFn
assert gated_rms_norm_ref is not rms_norm_ref
"""


def test_imports_as_projects_write_them():
    with provide_mamba_ssm():
        exec(IMPORTS, {})


def test_missing_names_say_what_to_use_instead():
    with provide_mamba_ssm():
        for module, names in REFUSED.items():
            for name, way_out in names.items():
                with pytest.raises(ImportError, match=re.escape(f"{module}.{name}: {way_out}")):
                    exec(f"from {module} import {name}", {})
        for module, way_out in REFUSED_MODULES.items():
            with pytest.raises(ModuleNotFoundError, match=re.escape(f"{module}: {way_out}")):
                importlib.import_module(module)


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


def test_a_second_call_does_nothing():
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
            assert importlib.util.find_spec(module.__name__).origin == "longstate"
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("mamba_ssm")


def test_other_names_raise_the_usual_errors():
    with provide_mamba_ssm():
        with pytest.raises(ImportError, match="Mamba9"):
            from mamba_ssm import Mamba9  # noqa: F401
        with pytest.raises(ModuleNotFoundError, match=r"mamba_ssm\.models\.other"):
            import mamba_ssm.models.other  # noqa: F401
        assert importlib.util.find_spec("mamba_ssm.ops.other") is None


def test_an_existing_module_is_not_replaced(monkeypatch):
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


def test_an_installed_package_is_used_unchanged(tmp_path):
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
