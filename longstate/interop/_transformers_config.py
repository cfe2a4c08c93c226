"""The description of a language model as a config of `transformers`: `config.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from longstate._files import write_whole
from longstate.errors import InputError
from longstate.models import LanguageSpec
from longstate.models._language_spec import FORMAT

# A file in a saved folder, for programs that do not import longstate. With trust_remote_code=True
# they run this file; it needs longstate to be installed.
_FILE = "longstate_auto.py"
_CODE = """# The classes of an installed longstate, for the Auto classes of transformers.
from longstate.interop import LongstateConfig, LongstateForCausalLM, LongstateModel
"""
_AUTO = {
    "AutoConfig": "longstate_auto.LongstateConfig",
    "AutoModel": "longstate_auto.LongstateModel",
    "AutoModelForCausalLM": "longstate_auto.LongstateForCausalLM",
}
_TOKENS = ("bos_token", "eos_tokens", "pad_token")  # transformers has its own names for these


class LongstateConfig(PreTrainedConfig):
    """The fields of `LanguageSpec`; special tokens have the names of transformers.

    Raises:
        InputError: a value is out of range, a layer or an option does not exist, or the format is
            that of another version.
    """

    model_type = "longstate"
    has_no_defaults_at_init = True  # older versions of transformers would call it without arguments
    attribute_map = {"hidden_size": "d_model", "tie_word_embeddings": "tie"}  # noqa: RUF012

    vocab_size: int
    d_model: int
    layers: Sequence[str]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    norm: str = "rms"
    norm_eps: float = 1e-5
    tie: bool = True
    residual_in_float32: bool = True
    bias: bool = False
    conv_bias: bool = True
    vocab_multiple: int = 1
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    gate: str = "auto"
    format: int = FORMAT

    def __post_init__(self, **rest: Any) -> None:
        super().__post_init__(**rest)
        self.spec()

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    def save_pretrained(
        self, save_directory: str | PathLike[Any], push_to_hub: bool = False, **rest: Any
    ) -> None:
        """Write `config.json`, and the file with which other programs find these classes."""
        self.auto_map = dict(_AUTO)
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _FILE, _CODE)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **rest)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Does nothing: the file beside the weights imports this class, so no code is copied."""

    @classmethod
    def from_spec(cls, spec: LanguageSpec) -> "LongstateConfig":
        """The config of an existing model."""
        facts = asdict(spec)
        bos, ends, pad = (facts.pop(name) for name in _TOKENS)
        end = ends[0] if len(ends) == 1 else list(ends) or None
        return cls(**facts, bos_token_id=bos, eos_token_id=end, pad_token_id=pad)

    def spec(self) -> LanguageSpec:
        """The description of the `LanguageModel`."""
        if self.format != FORMAT:
            raise InputError(
                f"this model's config.json is of format {self.format!r}; this version of longstate "
                f"reads format {FORMAT}"
            )
        facts = {
            f.name: getattr(self, f.name) for f in fields(LanguageSpec) if f.name not in _TOKENS
        }
        end = self.eos_token_id
        ends = () if end is None else (end,) if isinstance(end, int) else tuple(end)
        tokens = (self.bos_token_id, ends, self.pad_token_id)
        return LanguageSpec.from_facts({**facts, **dict(zip(_TOKENS, tokens, strict=True))})
