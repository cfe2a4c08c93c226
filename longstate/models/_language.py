"""A language model: an embedding, blocks that mix along time, and a head over the vocabulary.

    x_0 = E[token]
    x_i = block_i(x_{i-1})      see `longstate.models.Block`
    logits = H norm(x_n)        H is E where the weights are tied

Gu and Dao, "Mamba", COLM 2024, arXiv:2312.00752. Initial values are those of the authors' code:
embeddings of standard deviation 0.02, and the last map of every block divided by sqrt(n), so that
the residual does not grow with depth. Differs from that code: the rows that only pad the vocabulary
have no logits; norms and residual sums are in float32 for every type of weights.

Axes: b batch, t time, v vocabulary, d channels.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._base import Layer, State
from longstate.layers._gated import GatedRMSNorm, RMSNorm
from longstate.models._block import Block, make_norm
from longstate.models._language_spec import LanguageSpec
from longstate.models._saving import read_language_model, write_language_model
from longstate.models._stack import Blocks


class Trunk(Blocks):
    """A language model without its head. Subclasses set `spec` and `embedding` too."""

    spec: LanguageSpec
    embedding: nn.Embedding  # or the module of an adapter

    def _mix(
        self, tokens: Tensor, state: list[State] | None, mask: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """The input of the head (b, t, d), and the state."""
        self._check(tokens, state, mask, reset)
        states = state or [None] * len(self.blocks)
        return self._run(self._embed(tokens, mask), states, None, mask, reset)

    def _embed(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:  # padding may hold any number
            tokens = tokens.masked_fill(~mask, 0)
        x = self.embedding(tokens)
        return wide(x) if self.spec.residual_in_float32 else x

    def _check(
        self,
        tokens: Tensor,
        state: list[State] | None,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> None:
        """Check tokens, mask, reset (b, t). The layers check the tensors of the state."""
        if tokens.dim() != 2:
            raise ValueError(
                f"LanguageModel expects tokens of shape (batch, time); got {tuple(tokens.shape)}"
            )
        if tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"LanguageModel expects tokens of type int64; got {tokens.dtype}")
        if tokens.shape[1] == 0:
            raise ValueError(f"LanguageModel got no tokens: their shape is {tuple(tokens.shape)}")
        for label, flag in (("mask", mask), ("reset", reset)):
            if flag is not None and (flag.shape != tokens.shape or flag.dtype != torch.bool):
                raise ValueError(
                    f"LanguageModel expects {label} to be a bool tensor of the shape of tokens; "
                    f"got {flag.dtype} of shape {tuple(flag.shape)}"
                )
        if state is not None and not isinstance(state, (list, tuple)):
            raise ValueError(
                f"LanguageModel expects a list of {len(self.blocks)} states, one for each block; "
                f"got {state!r:.40}"
            )
        if state is not None and len(state) != len(self.blocks):
            raise ValueError(
                f"LanguageModel has {len(self.blocks)} blocks; got a state for {len(state)} blocks"
            )
        # Reading values would break a compiled graph and synchronise with a GPU.
        if not torch.compiler.is_compiling() and tokens.device.type == "cpu":
            seen = tokens if mask is None else tokens[mask]
            bad = seen[(seen < 0) | (seen >= self.spec.vocab_size)]
            if len(bad):
                raise ValueError(
                    f"tokens must be at least 0 and below {self.spec.vocab_size}, the size of the "
                    f"vocabulary; got {int(bad[0])}"
                )


class LanguageModel(Trunk):
    """A language model: from tokens and a state to logits of the next token and the next state.

    The state is a list with the state of each block's layer: a pytree of tensors, batch first.
    Prefill in pieces, padding in any place (`mask`) and packing (`reset`) are the same call.

    Args:
        spec: sizes and layers.

    Raises:
        InputError: a layer cannot be built from the options in `spec`.
    """

    def __init__(self, spec: LanguageSpec):
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.rows, spec.d_model)
        self.blocks = nn.ModuleList(_block(spec, i) for i in range(len(spec.layers)))
        self.norm = make_norm(spec.norm, spec.d_model, spec.norm_eps)
        self.head: nn.Module | None = (
            None if spec.tie else nn.Linear(spec.d_model, spec.rows, bias=False)
        )
        nn.init.normal_(self.embedding.weight, std=0.02)
        added = len(spec.layers) * (2 if spec.gate == "mlp" else 1)
        with torch.no_grad():
            for block in self.each_block():
                for weight in block.last_maps():
                    weight.div_(math.sqrt(added))

    @classmethod
    def of_parts(cls, trunk: Trunk, head: nn.Module | None) -> "LanguageModel":
        """A model with the modules of `trunk` (shared, not copied) and this head.

        Args:
            trunk: has embedding, blocks and norm.
            head: None if the head uses the weights of the embedding.
        """
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.spec, model.embedding, model.head = trunk.spec, trunk.embedding, head
        model.blocks, model.norm = trunk.blocks, trunk.norm
        return model.train(trunk.training)

    if TYPE_CHECKING:  # nn.Module.__call__ returns Any

        def __call__(
            self,
            tokens: Tensor,
            state: list[State] | None = None,
            *,
            mask: Tensor | None = None,
            reset: Tensor | None = None,
        ) -> tuple[Tensor, list[State]]: ...

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        state: list[State] | None = None,
        *,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t v"], list[State]]:
        """Logits after every token, and the state after the last.

        Args:
            tokens (b, t): whole numbers below the vocabulary's size.
            state: what an earlier call returned, or `init_state(b)`. Zero when None.
            mask (b, t): a False token is skipped, whatever its number; its logits are 0.
            reset (b, t): True clears the state before that token.

        Raises:
            ValueError: shapes or types do not fit, or a token is not in the vocabulary.
        """
        x, state = self._mix(tokens, state, mask, reset)
        return self._logits(x), state

    def prefill(
        self,
        tokens: Int[Tensor, "b t"],
        state: list[State] | None = None,
        *,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b v"], list[State]]:
        """As `forward`, but returns the logits after the last token of each row only, (b, v). No
        tensor (b, t, v) is made. The logits are 0 in a row whose tokens are all masked."""
        x, state = self._mix(tokens, state, mask, reset)
        if mask is None:
            return self._logits(x[:, -1]), state
        places = torch.arange(tokens.shape[1], device=x.device)
        last = torch.where(mask, places, 0).amax(dim=1)
        return self._logits(x[torch.arange(len(x), device=x.device), last]), state

    def step(
        self,
        tokens: Int[Tensor, " b"],
        state: list[State] | None,
        *,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b v"], list[State]]:
        """Process one token of each text. Returns logits (b, v) and the next state."""
        if tokens.dim() != 1:
            raise ValueError(
                f"LanguageModel.step expects tokens of shape (batch,); got {tuple(tokens.shape)}"
            )
        self._check(
            tokens[:, None], state, *(None if f is None else f[:, None] for f in (mask, reset))
        )
        states = state or [None] * len(self.blocks)
        x, new = self._step(self._embed(tokens, mask), states, None, mask, reset)
        return self._logits(x), new

    def save(self, path: str | Path) -> None:
        """Write description and weights to one safetensors file, atomically.

        Raises:
            InputError: the file cannot be written, or the weights do not fit `spec`.
        """
        write_language_model(path, self, {})

    @classmethod
    def load(cls, path: str | Path) -> "LanguageModel":
        """Read a file of `save`, or the model file of a text run. The model is in evaluation mode.

        Raises:
            InputError: the file is of another kind, or damaged.
        """
        return read_language_model(path)[0]

    def _logits(self, x: Tensor) -> Tensor:
        x = x.to(self.embedding.weight.dtype)
        if self.head is None:
            return tied_logits(x, self.embedding, self.spec)
        return logits(x, self.head, self.spec)


def logits(x: Tensor, head: nn.Module, spec: LanguageSpec) -> Tensor:
    """The output of `head` for x (..., d): (..., v), in float32 at least.

    The rows that only pad the vocabulary are left out.
    """
    return wide(head(x)[..., : spec.vocab_size])


def tied_logits(x: Tensor, embedding: nn.Module, spec: LanguageSpec) -> Tensor:
    """`logits` for a head whose rows are the output of `embedding` for each token.

    For an embedding inside an adapter, this output differs from the embedding's weights.
    """
    if type(embedding) is nn.Embedding:
        rows = embedding.weight
    else:
        rows = embedding(torch.arange(spec.rows, device=x.device)).to(x.dtype)
    return wide(F.linear(x, rows)[..., : spec.vocab_size])


def _block(spec: LanguageSpec, number: int) -> Block:
    mixer = spec.make_layer(number)
    _adapt(mixer, spec)
    return Block(mixer, norm=spec.norm, eps=spec.norm_eps, gate=spec.gate)


def _adapt(mixer: Layer, spec: LanguageSpec) -> None:
    """Add or remove biases, and set the eps of inner norms, as the published models do."""
    for module in mixer.modules():
        if isinstance(module, RMSNorm | GatedRMSNorm):
            module.eps = spec.norm_eps
    if spec.bias:
        for name in ("in_proj", "out_proj"):
            linear = getattr(mixer, name, None)
            if isinstance(linear, nn.Linear) and linear.bias is None:
                linear.bias = nn.Parameter(torch.zeros(linear.out_features))
    conv = getattr(mixer, "conv1d", None)
    if not spec.conv_bias and isinstance(conv, nn.Conv1d):
        conv.bias = None


def wide(x: Tensor) -> Tensor:
    """x, in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
