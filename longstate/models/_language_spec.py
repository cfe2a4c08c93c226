"""The description of a language model: everything that must agree between training and use."""

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from longstate._facts import check_arguments, read
from longstate.errors import InputError, near
from longstate.layers import Layer
from longstate.layers._prescribed import prescribe
from longstate.layers._renamed import options_today
from longstate.models._block import Gate, Norm
from longstate.models._layer_names import layer_class, make_layer, split_name

FORMAT = 1


@dataclass(frozen=True)
class LanguageSpec:
    """Sizes and layers of a `LanguageModel`.

    Args:
        vocab_size: tokens, numbered from 0.
        d_model: channels between the blocks.
        layers: names of the mixing layers, one per block: `("mamba", "mamba", "s4d") * 8`. Any
            layer of `longstate.layers`, in any case; `smr:mamba` is Mamba inside of `SMR`.
        options: constructor options of each kind of layer by name, and of single blocks by their
            number, which take precedence: `{"mamba": {"d_state": 16}, "3": {"d_state": 8}}`. The
            option "prescribed" holds arguments of `longstate.layers.prescribe`. Values that JSON
            can hold.
        norm: "rms" or "layer", before every block and at the end.
        norm_eps: added to the mean square in every norm with weights, those inside layers included.
        gate: "auto", "glu", "mlp" or "none": the part after every layer; see
            `longstate.models.Block`.
        tie: whether the head uses the weights of the embedding.
        residual_in_float32: whether the residual stream is kept in float32 if weights are
            narrower.
        bias: whether the projections into and out of a layer have a bias.
        conv_bias: whether a layer's short convolution has one.
        vocab_multiple: the embedding is padded with rows to a multiple of this; these rows have no
            token and no logit.
        bos_token, pad_token: the first and the padding token of a checkpoint, or None.
        eos_tokens: tokens that end a text.

    Raises:
        InputError: a value is out of range, or a layer or an option does not exist.
    """

    vocab_size: int
    d_model: int
    layers: Sequence[str]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    norm: Norm = "rms"
    norm_eps: float = 1e-5
    tie: bool = True
    residual_in_float32: bool = True
    bias: bool = False
    conv_bias: bool = True
    vocab_multiple: int = 1
    bos_token: int | None = None
    eos_tokens: Sequence[int] = ()
    pad_token: int | None = None
    gate: Gate = "auto"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "vocab_multiple"):
            value = getattr(self, name)
            if not _is_int(value) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {value!r}")
        for name in ("tie", "residual_in_float32", "bias", "conv_bias"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false; got {getattr(self, name)!r}")
        if self.norm not in get_args(Norm):
            raise InputError(f"norm must be 'rms' or 'layer'; got {self.norm!r}")
        if self.gate not in get_args(Gate):
            raise InputError(f"gate must be 'auto', 'glu', 'mlp' or 'none'; got {self.gate!r}")
        if not isinstance(self.norm_eps, int | float) or not 0 < self.norm_eps < math.inf:
            raise InputError(f"norm_eps must be a number above 0; got {self.norm_eps!r}")
        self._check_layers()
        self._check_tokens()

    def _check_layers(self) -> None:
        if isinstance(self.layers, str) or not isinstance(self.layers, Sequence) or not self.layers:
            raise InputError(
                f"layers must be a sequence of one name per block, such as ('mamba',) * 4; "
                f"got {self.layers!r}"
            )
        names = tuple(str(name).lower() for name in self.layers)
        object.__setattr__(self, "layers", names)
        classes = {name: layer_class(name) for name in names}
        if not isinstance(self.options, Mapping):
            raise InputError(f"options must map layers to their options; got {self.options!r}")
        for name, given in self.options.items():
            block = name.isdecimal() and int(name) < len(names)
            if not block and name not in classes:
                raise InputError(f"options are for {name!r}, which is not a layer of this model")
            kind = names[int(name)] if block else name
            _check_options(kind, classes[kind], given)
        try:
            plain = json.loads(json.dumps(dict(self.options), allow_nan=False))
        except (TypeError, ValueError) as e:
            raise InputError(f"options must be what JSON can hold: {e}") from None
        object.__setattr__(self, "options", plain)

    def _check_tokens(self) -> None:
        given = self.eos_tokens
        if not isinstance(given, Sequence) or not all(map(_is_int, given)):
            raise InputError(f"eos_tokens must be a sequence of whole numbers; got {given!r}")
        object.__setattr__(self, "eos_tokens", tuple(given))
        for name in ("bos_token", "pad_token"):
            value = getattr(self, name)
            if value is not None and not _is_int(value):
                raise InputError(f"{name} must be a whole number or None; got {value!r}")

    @property
    def rows(self) -> int:
        """Rows of the embedding: the vocabulary, padded to a multiple of `vocab_multiple`."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    def options_of(self, block: int) -> dict[str, Any]:
        """The constructor options of the layer in one block, by its number."""
        return {**self.options.get(self.layers[block], {}), **self.options.get(str(block), {})}

    def make_layer(self, block: int) -> Layer:
        """A new layer for a block, by its number.

        Raises:
            InputError: the options do not fit the layer, or each other.
        """
        name = self.layers[block]
        try:
            options = self.options_of(block)
            prescribed = options.pop("prescribed", None)
            layer = make_layer(name, self.d_model, **options)
            if prescribed is not None:
                prescribe(layer, **prescribed)
        except (TypeError, ValueError, RuntimeError) as e:
            raise InputError(f"the layer {name!r} does not accept these options: {e}") from None
        if getattr(layer, "bidirectional", False):
            raise InputError(f"a language model must not see the future; {name!r} is bidirectional")
        return layer

    def to_json(self) -> str:
        """One JSON object, with a format version."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "LanguageSpec":
        """Read the text that `to_json` wrote.

        Raises:
            InputError: not JSON, of another format version, or a field is missing, unknown or
                wrong.
        """
        try:
            facts = json.loads(text)
        except json.JSONDecodeError as e:
            raise InputError(f"the description of a language model is not JSON: {e}") from None
        if not isinstance(facts, dict):
            raise InputError(
                f"the description of a language model must be a JSON object; got {str(facts)[:40]}"
            )
        if facts.pop("format", None) != FORMAT:
            raise InputError(
                "the description of a language model has another format version; this version of "
                f"longstate reads version {FORMAT}"
            )
        known = {f.name for f in fields(cls)}
        for name in facts:
            if name not in known:
                raise InputError(f"a language model has no {name!r}; {near(name, sorted(known))}")
        for name in ("vocab_size", "d_model", "layers"):
            if name not in facts:
                raise InputError(f"the description of a language model lacks {name!r}")
        return cls.from_facts(facts)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "LanguageSpec":
        """Read the fields as this or an earlier version wrote them."""
        options = facts.get("options", {})
        if isinstance(options, Mapping) and all(isinstance(o, Mapping) for o in options.values()):
            names = facts.get("layers")
            names = names if isinstance(names, list | tuple) else ()
            kinds = {str(i): str(name) for i, name in enumerate(names)}
            options = {
                str(n): options_today(split_name(kinds.get(str(n), str(n)))[1], o)
                for n, o in options.items()
            }
        return read(cls, {**facts, "options": options}, "the description of a language model")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_options(name: str, layer: type[Layer], given: object) -> None:
    if not isinstance(given, Mapping):
        raise InputError(f"options of {name!r} must be a mapping; got {given!r}")
    known = [p for p in inspect.signature(layer).parameters if p != "d_model"]
    given = dict(given)
    prescribed = given.pop("prescribed", None)
    if prescribed is not None:
        if not isinstance(prescribed, Mapping):
            raise InputError(f"prescribed of {name!r} must be a mapping; got {prescribed!r}")
        check_arguments(prescribe, prescribed, f"prescribed of {name!r}")
    for option in given:
        if option not in known:
            raise InputError(f"{name!r} has no option {option!r}; {near(str(option), known)}")
    check_arguments(layer.__init__, given, repr(name))
