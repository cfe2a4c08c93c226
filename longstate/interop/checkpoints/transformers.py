"""config.json as `transformers` writes it for Mamba, Mamba-2 and FalconMamba.

Read and written without `transformers`. Settings of initial values and of speed are ignored, and so
are keys that are unknown to it. Missing settings have its default values.
"""

import math
from typing import Any

from longstate.errors import InputError
from longstate.interop.checkpoints.config import Config
from longstate.layers import FalconMamba, Mamba, Mamba2
from longstate.models import LanguageModel, LanguageSpec

LAYERS = {"mamba": "mamba", "mamba2": "mamba2", "falcon_mamba": "falconmamba"}
_CLASSES = {"mamba": "Mamba", "mamba2": "Mamba2", "falcon_mamba": "FalconMamba"}


def read(config: Config) -> LanguageSpec:
    """The model that a config.json describes.

    Raises:
        InputError: a value is missing or wrong, or an option is not implemented.
    """
    kind = config.values["model_type"]
    config.must_be("hidden_act", "silu", "swish")
    config.must_be("quantization_config", None)
    width = config.whole("hidden_size")
    options: dict[str, Any] = {
        "d_state": config.whole("state_size", 128 if kind == "mamba2" else 16),
        "d_conv": config.whole("conv_kernel", 4),
    }
    options |= _heads(config, width) if kind == "mamba2" else _channels(config, width)
    if kind == "falcon_mamba":
        options["eps"] = config.number("mixer_rms_eps", 1e-6)
    return LanguageSpec(
        vocab_size=config.whole("vocab_size"),
        d_model=width,
        layers=config.layers("num_hidden_layers", LAYERS[kind]),
        options={LAYERS[kind]: options},
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        tie=config.flag("tie_word_embeddings", kind != "mamba2"),
        residual_in_float32=config.flag("residual_in_fp32", True),
        bias=config.flag("use_bias", False),
        conv_bias=config.flag("use_conv_bias", True),
        bos_token=config.token("bos_token_id", 0),
        eos_tokens=_ends(config, 2 if kind == "mamba2" else 0),
        pad_token=config.token("pad_token_id", 1 if kind == "mamba2" else 0),
    )


def _channels(config: Config, width: int) -> dict[str, Any]:
    """Options of Mamba and FalconMamba. FalconMamba's config.json has expand = 16 and
    intermediate_size = 2 * hidden_size: the latter is used."""
    inner = config.whole("intermediate_size", config.whole("expand", 2) * width)
    if inner % width:
        raise config.wrong("intermediate_size", f"a multiple of hidden_size = {width}")
    automatic = config.values.get("time_step_rank", "auto") == "auto"
    rank = math.ceil(width / 16) if automatic else config.whole("time_step_rank")
    return {"expand": inner // width, "dt_rank": rank}


def _heads(config: Config, width: int) -> dict[str, Any]:
    expand = config.whole("expand", 2)
    heads, size = config.whole("num_heads", 128), config.whole("head_dim", 64)
    if heads * size != expand * width:
        raise InputError(
            f"{config.source}: num_heads x head_dim must be expand x hidden_size = "
            f"{expand * width}; got {heads} x {size}"
        )
    options = {"expand": expand, "d_head": size, "n_groups": config.whole("n_groups", 8)}
    limits = config.limits("time_step_limit")
    return options if limits is None else {**options, "dt_limit": limits}


def _ends(config: Config, default: int) -> tuple[int, ...]:
    value = config.values.get("eos_token_id", default)
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(t, bool) or not isinstance(t, int) for t in tokens):
        raise config.wrong("eos_token_id", "a whole number, a list of them, or null")
    return tuple(tokens)


def write(model: LanguageModel) -> dict[str, Any]:
    """config.json for a model of one kind of layer.

    Raises:
        InputError: transformers has no such model.
    """
    spec, mixer = model.spec, model.blocks[0].mixer
    kind = {name: kind for kind, name in LAYERS.items()}.get(spec.layers[0])
    if kind is None:
        raise InputError(
            f"transformers has no language model of {spec.layers[0]!r} layers; "
            "use LongstateForCausalLM of longstate.interop instead"
        )
    if spec.norm != "rms":
        raise InputError("transformers has no such model with norm='layer', only 'rms'")
    assert isinstance(mixer, Mamba | Mamba2)
    ends = list(spec.eos_tokens)
    config = {
        "architectures": [f"{_CLASSES[kind]}ForCausalLM"],
        "model_type": kind,
        "vocab_size": spec.rows,
        "hidden_size": spec.d_model,
        "num_hidden_layers": len(spec.layers),
        "state_size": mixer.d_state,
        "conv_kernel": mixer.conv1d.kernel_size[0],
        "hidden_act": "silu",
        "layer_norm_epsilon": spec.norm_eps,
        "tie_word_embeddings": spec.tie,
        "residual_in_fp32": spec.residual_in_float32,
        "use_bias": spec.bias,
        "use_conv_bias": spec.conv_bias,
        "bos_token_id": spec.bos_token,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": spec.pad_token,
        "torch_dtype": str(model.embedding.weight.dtype).removeprefix("torch."),
    }
    return config | (_write_heads(mixer) if isinstance(mixer, Mamba2) else _write_channels(mixer))


def _write_channels(mixer: Mamba) -> dict[str, Any]:
    sizes = {
        "expand": mixer.d_inner // mixer.d_model,
        "intermediate_size": mixer.d_inner,
        "time_step_rank": mixer.rank,
    }
    return {**sizes, "mixer_rms_eps": mixer.eps} if isinstance(mixer, FalconMamba) else sizes


def _write_heads(mixer: Mamba2) -> dict[str, Any]:
    least, most = mixer.dt_limit
    return {
        "expand": mixer.n_heads * mixer.d_head // mixer.d_model,
        "num_heads": mixer.n_heads,
        "head_dim": mixer.d_head,
        "n_groups": mixer.n_groups,
        "time_step_limit": [least, {"__float__": "Infinity"} if most is None else most],
    }
