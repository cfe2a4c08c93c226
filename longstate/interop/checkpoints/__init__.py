"""Language models in folders of other libraries: `config.json` and weights, in two dialects.

`transformers` (`MambaForCausalLM`, `Mamba2ForCausalLM`, `FalconMambaForCausalLM`) and `mamba-ssm`
(`MambaLMHeadModel`). Neither library is needed. Tensors keep their names except for these:

    ours             transformers                mamba-ssm
    embedding.*      backbone.embeddings.*       backbone.embedding.*
    blocks.*         backbone.layers.*           backbone.layers.*
    norm.*           backbone.norm_f.*           backbone.norm_f.*
    head.*           lm_head.*, absent if tied   lm_head.*

No code in a folder is run: pickles are read by PyTorch's restricted reader only.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from longstate._files import new_folder
from longstate._formats import refuse_converted
from longstate._shapes import shapes_only
from longstate.errors import InputError, near
from longstate.interop.checkpoints import mamba_ssm, transformers
from longstate.interop.checkpoints.config import Config
from longstate.interop.checkpoints.weights import read_json, read_weights
from longstate.models import LanguageModel
from longstate.models._saving import finite

Dialect = Literal["transformers", "mamba-ssm"]

_EMBEDDING = {"transformers": "embeddings", "mamba-ssm": "embedding"}
_WIDE = ("A_log", "D", "dt_bias")
# Other files of a folder, which are copied unchanged.
_BESIDE = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("generation_config.json", "chat_template*"),
)


def load_language_model(path: str | Path, dtype: torch.dtype | None = None) -> LanguageModel:
    """Load the model in a folder with `config.json` and weights.

    Args:
        path: the folder. Weights are `model.safetensors` or `pytorch_model.bin`, whole or in
            shards.
        dtype: of the weights. None keeps the types of the files. `A_log`, `D` and `dt_bias` are
            never narrowed, because decays over thousands of steps need their precision.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        InputError: a file is missing, damaged or cut short; a setting is wrong or not implemented;
            or a tensor is missing, unexpected or of another shape: the first one is named.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        refuse_converted(folder)
    if not folder.is_dir():
        what = "is a file; its folder is needed" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}")
    values, source = read_json(folder / "config.json"), str(folder / "config.json")
    dialect = _dialect_of(values, source)
    if dtype not in (None, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise InputError(f"dtype must be a floating-point type of 16 bits or more; got {dtype}")
    spec = _SIDES[dialect].read(Config(values, source))
    try:
        with shapes_only():
            model = LanguageModel(spec)
    except RuntimeError as e:
        reason = str(e).partition("\n")[0][:200]
        raise InputError(f"{source} describes a model that cannot be made: {reason}") from None
    tensors = _match(model, dialect, read_weights(folder), folder)
    # Copies, because the files may change while the model is in use.
    own = {name: t.to(_type(name, t, dtype), copy=True) for name, t in tensors.items()}
    model.load_state_dict(own, assign=True)
    return model.eval()


def save_language_model(
    model: LanguageModel, path: str | Path, dialect: Dialect = "transformers"
) -> None:
    """Write `config.json` and weights, so that the other library can load them.

    Args:
        model: of Mamba or Mamba-2 layers, or FalconMamba for "transformers".
        path: a new or an empty folder. It is written atomically.
        dialect: "transformers" (with `model.safetensors`) or "mamba-ssm" (with
            `pytorch_model.bin`, which is what that library reads).

    Raises:
        InputError: the folder is not empty or cannot be written, or the dialect has no such model.
    """
    _check_dialect(dialect)
    with new_folder(path) as part:
        _write(model, part, dialect)


def convert_language_model(
    source: str | Path, path: str | Path, dialect: str, *, model: LanguageModel | None = None
) -> LanguageModel:
    """Load a folder, write it in a dialect, load the result and compare: weights and the logits of
    a few tokens must be bit-identical. Files of a tokenizer are copied.

    Args:
        source: the folder.
        path: folder to write.
        dialect: "transformers" or "mamba-ssm".
        model: the model of the folder, if it is not a checkpoint of either. Loaded when None.

    Returns:
        The model.

    Raises:
        InputError: as loading and saving; or the two differ, and then nothing is written.
    """
    _check_dialect(dialect)
    model = load_language_model(source) if model is None else model
    with new_folder(path) as part:
        _write(model, part, dialect)
        for pattern in _BESIDE:
            for file in sorted(Path(source).glob(pattern)):
                shutil.copyfile(file, part / file.name)
        _compare(model, load_language_model(part))
    return model


def _check_dialect(dialect: str) -> None:
    if dialect not in _SIDES:
        raise InputError(f"there is no dialect {dialect!r}; {near(str(dialect), _SIDES)}")


def _dialect_of(values: Mapping[str, Any], source: str) -> Dialect:
    kind = values.get("model_type")
    if isinstance(kind, str) and kind in transformers.LAYERS:
        return "transformers"
    if kind is not None:
        raise InputError(
            f"{source}: model_type {kind!r} is not implemented; "
            f"{near(str(kind), transformers.LAYERS)}"
        )
    if "d_model" in values or "n_layer" in values:
        return "mamba-ssm"
    raise InputError(
        f"{source} has neither model_type, as transformers writes, nor d_model and n_layer, as "
        "mamba-ssm does"
    )


def _file_name(name: str, dialect: str) -> str:
    """The name of a parameter in a dialect."""
    first, rest = name.split(".", 1)
    return {
        "embedding": f"backbone.{_EMBEDDING[dialect]}.{rest}",
        "blocks": f"backbone.layers.{rest}",
        "norm": f"backbone.norm_f.{rest}",
        "head": f"lm_head.{rest}",
    }[first]


def _match(
    model: LanguageModel, dialect: Dialect, found: dict[str, Tensor], folder: Path
) -> dict[str, Tensor]:
    """The file's tensors under longstate's names."""
    wanted = {_file_name(n, dialect): (n, tuple(p.shape)) for n, p in model.state_dict().items()}
    old, new = "backbone.embedding.weight", "backbone.embeddings.weight"
    if dialect == "transformers" and old in found and new not in found:  # before 2024
        found[new] = found.pop(old)
    for key, (_, shape) in wanted.items():
        if key not in found:
            raise InputError(f"{folder}: {key} is missing from the weights")
        if tuple(found[key].shape) != shape:
            raise InputError(
                f"{folder}: {key} has shape {tuple(found[key].shape)}; config.json makes it {shape}"
            )
        if not found[key].is_floating_point() or found[key].element_size() < 2:
            raise InputError(
                f"{folder}: {key} is of type {found[key].dtype}; float16, bfloat16, float32 or "
                "float64 is needed"
            )
        if not finite(found[key]):
            raise InputError(f"{folder}: {key} holds numbers that are not finite")
    for key in found:
        if key not in wanted and not (key == "lm_head.weight" and model.spec.tie):
            raise InputError(
                f"{folder}: {key} is in the weights, but config.json has no place for it"
            )
    head, embedding = found.get("lm_head.weight"), found[_file_name("embedding.weight", dialect)]
    if model.spec.tie and head is not None and not torch.equal(head, embedding):
        raise InputError(
            f"{folder}: lm_head.weight differs from the embedding, though config.json ties them"
        )
    return {name: found[key] for key, (name, _) in wanted.items()}


def _type(name: str, tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return tensor.dtype
    wide = name.rsplit(".", 1)[1] in _WIDE
    return torch.promote_types(tensor.dtype, dtype) if wide else dtype


def _write(model: LanguageModel, folder: Path, dialect: str) -> None:
    kinds = sorted(set(model.spec.layers))
    if len(kinds) > 1:
        raise InputError(f"{dialect} has no models that mix {' and '.join(kinds)} layers")
    _check_sizes(model, dialect)
    config = _SIDES[dialect].write(model)
    if any(block.gate is not None for block in model.each_block()):
        raise InputError(
            f"{dialect} has no models with gate={model.spec.gate!r} behind their layers"
        )
    tensors = {}
    for name, value in model.state_dict().items():
        key = _file_name(name, dialect)
        tensors[key] = value.detach().cpu().contiguous()
    if dialect == "mamba-ssm" and model.spec.tie:
        tensors["lm_head.weight"] = tensors["backbone.embedding.weight"]
    try:
        if dialect == "transformers":
            safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        else:
            torch.save(tensors, folder / "pytorch_model.bin")
    except (safetensors.SafetensorError, RuntimeError) as e:
        raise InputError(f"the weights cannot be written: {e}") from None
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _check_sizes(model: LanguageModel, dialect: str) -> None:
    """One description holds for all layers of the other library, and none of its layers computes
    more columns than its state has."""
    spec = model.spec
    made = [spec.options_of(i) for i in range(len(spec.layers))]
    odd = next((i for i, options in enumerate(made) if options != made[0]), None)
    if odd is not None:
        raise InputError(
            f"{dialect} has no models whose layers differ: block 0 has {made[0]}, block {odd} has "
            f"{made[odd]}; reduce all layers to one size (allocation='uniform')"
        )
    if isinstance(made[0].get("d_state"), list):
        raise InputError(
            f"{dialect} has no layers with a projected state (d_state={made[0]['d_state']}); "
            "reduce with method='energy' and allocation='uniform', which removes columns instead"
        )


def _compare(model: LanguageModel, again: LanguageModel) -> None:
    other = again.state_dict()
    for name, value in model.state_dict().items():
        if not torch.equal(value, other[name]):
            raise InputError(f"{name} has changed in the conversion; nothing is written")
    tokens = torch.arange(16)[None] % model.spec.vocab_size
    with torch.inference_mode():
        same = torch.equal(model(tokens)[0], again(tokens)[0][..., : model.spec.vocab_size])
    if not same:
        raise InputError("the logits have changed in the conversion; nothing is written")


_SIDES: Mapping[str, Any] = {"transformers": transformers, "mamba-ssm": mamba_ssm}
