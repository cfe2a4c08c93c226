"""config.json as `mamba-ssm` writes it for its `MambaLMHeadModel`.

Read and written without `mamba-ssm`. Keys that are unknown to it are refused, as it does; settings
of initial values and of speed are ignored.
"""

from typing import Any

from longstate.errors import InputError, near
from longstate.interop.checkpoints.config import Config
from longstate.layers import Mamba, Mamba2
from longstate.models import LanguageModel, LanguageSpec

_EPS = 1e-5  # of every norm; mamba-ssm has no setting for it
_LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2"}

# Setting -> its implemented values.
_FIXED: dict[str, tuple] = {"d_intermediate": (0,), "attn_layer_idx": ([], None)}
_READ = {"d_model", "n_layer", "vocab_size", "ssm_cfg", "rms_norm", "residual_in_fp32"}
_READ |= {"pad_vocab_size_multiple", "tie_embeddings"}
_SKIPPED = {"fused_add_norm", "attn_cfg", "initializer_cfg", "architectures", "torch_dtype"}
_SKIPPED |= {"dtype", "transformers_version", "_name_or_path"}

_FIXED_2: dict[str, tuple] = {
    "d_ssm": (None,),
    "D_has_hdim": (False,),
    "rmsnorm": (True,),
    "norm_before_gate": (False,),
}
_READ_1 = {"layer", "d_state", "d_conv", "expand", "bias", "conv_bias", "dt_rank"}
_READ_2 = {*_READ_1, "headdim", "ngroups", "dt_limit"} - {"dt_rank"}
_SKIPPED_1 = {"dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path"}
_SKIPPED_2 = {"dt_min", "dt_max", "dt_init_floor", "conv_init", "A_init_range", "chunk_size"}
_SKIPPED_2 |= {"use_mem_eff_path", "sequence_parallel"}


def read(config: Config) -> LanguageSpec:
    """The model that a config.json describes.

    Raises:
        InputError: a value is missing, wrong or unknown, or an option is not implemented.
    """
    _check_names(config, _READ | _SKIPPED, _FIXED)
    width = config.whole("d_model")
    inside = config.values.get("ssm_cfg") or {}
    if not isinstance(inside, dict):
        raise config.wrong("ssm_cfg", "an object")
    ssm = Config(inside, f"{config.source}: ssm_cfg")
    kind = inside.get("layer", "Mamba1")
    if not isinstance(kind, str) or kind not in _LAYERS:
        raise InputError(
            f"{ssm.source}: layer {kind!r} is not implemented; {near(str(kind), _LAYERS)}"
        )
    if kind == "Mamba2":
        _check_names(ssm, _READ_2 | _SKIPPED_2, _FIXED_2)
        options = _heads(ssm)
    else:
        _check_names(ssm, _READ_1 | _SKIPPED_1, {})
        automatic = inside.get("dt_rank", "auto") == "auto"
        rank = -(-width // 16) if automatic else ssm.whole("dt_rank")
        options = {"d_state": ssm.whole("d_state", 16), "dt_rank": rank}
    options |= {"d_conv": ssm.whole("d_conv", 4), "expand": _expand(ssm)}
    return LanguageSpec(
        vocab_size=config.whole("vocab_size"),
        d_model=width,
        layers=config.layers("n_layer", _LAYERS[kind]),
        options={_LAYERS[kind]: options},
        norm="rms" if config.flag("rms_norm", True) else "layer",
        norm_eps=_EPS,
        tie=config.flag("tie_embeddings", True),
        residual_in_float32=config.flag("residual_in_fp32", True),
        bias=ssm.flag("bias", False),
        conv_bias=ssm.flag("conv_bias", True),
        vocab_multiple=config.whole("pad_vocab_size_multiple", 8),
    )


def _heads(ssm: Config) -> dict[str, Any]:
    options: dict[str, Any] = {
        "d_state": ssm.whole("d_state", 128),
        "d_head": ssm.whole("headdim", 64),
        "n_groups": ssm.whole("ngroups", 1),
    }
    limits = ssm.limits("dt_limit")
    return options if limits is None else {**options, "dt_limit": limits}


def _expand(ssm: Config) -> int:
    value = ssm.number("expand", 2)
    if value > 10**6 or not value.is_integer():
        raise ssm.wrong("expand", "a whole number")
    return int(value)


def _check_names(config: Config, known: set[str], fixed: dict[str, tuple]) -> None:
    for name, values in fixed.items():
        config.must_be(name, *values)
    for name in config.values:
        if name not in known and name not in fixed:
            raise InputError(
                f"{config.source}: {name!r} is not implemented; {near(name, sorted(known))}"
            )


def write(model: LanguageModel) -> dict[str, Any]:
    """config.json for a model of one kind of layer.

    Raises:
        InputError: mamba-ssm has no such model.
    """
    spec, mixer = model.spec, model.blocks[0].mixer
    kind = {name: kind for kind, name in _LAYERS.items()}.get(spec.layers[0])
    if kind is None:
        raise InputError(f"mamba-ssm has no language model of {spec.layers[0]!r} layers")
    if spec.norm_eps != _EPS:
        raise InputError(f"mamba-ssm has norm_eps={_EPS} only; this model has {spec.norm_eps}")
    assert isinstance(mixer, Mamba | Mamba2)
    ssm: dict[str, Any] = {
        "layer": kind,
        "d_state": mixer.d_state,
        "d_conv": mixer.conv1d.kernel_size[0],
        "bias": spec.bias,
        "conv_bias": spec.conv_bias,
    }
    if isinstance(mixer, Mamba2):
        least, most = mixer.dt_limit
        ssm |= {
            "expand": mixer.n_heads * mixer.d_head // spec.d_model,
            "headdim": mixer.d_head,
            "ngroups": mixer.n_groups,
        }
        if (least, most) != (0.0, None):  # Python, and so mamba-ssm, reads Infinity
            ssm["dt_limit"] = [least, float("inf") if most is None else most]
    else:
        ssm |= {"expand": mixer.d_inner // spec.d_model, "dt_rank": mixer.rank}
    return {
        "d_model": spec.d_model,
        "d_intermediate": 0,
        "n_layer": len(spec.layers),
        "vocab_size": spec.vocab_size,
        "ssm_cfg": ssm,
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": spec.norm == "rms",
        "residual_in_fp32": spec.residual_in_float32,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": spec.vocab_multiple,
        "tie_embeddings": spec.tie,
    }
