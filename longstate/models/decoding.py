"""A copy of a model that generates fast: its linear layers hold what a step must read, and no more.

A step of batch 1 multiplies every weight with one number, so it takes as long as reading the weights
takes. Here they lie in panels in the order they are read (`longstate.ops.matvec`), in 32, 16 or 8
bits. Everything else stays as it is: the same model class, the same calls, float32 states.

    fast = prepare_for_decoding(model, "int8")
    logits, state = fast(prompt)
    logits, state = fast.step(token, state)

Axes: b batch, i features in, o features out.
"""

import copy
from typing import Literal, TypeVar, get_args

from jaxtyping import Float
from torch import Tensor, nn

from longstate.ops.matvec import matvec, quantise_rows, to_panels

Weights = Literal["float32", "bfloat16", "int8"]
Model = TypeVar("Model", bound=nn.Module)


class PanelLinear(nn.Module):
    """What `nn.Linear` computes, for inference: no gradient reaches its weights.

    Up to 8 vectors at once go through a kernel that reads the weights once; more, as in a prefill,
    through PyTorch's matrix product. Gradients of the input come out either way.

    Args:
        weight (o, i): is copied.
        bias (o): is copied. None: none.
        weights: "float32", "bfloat16", or "int8" with one scale for each output: weights are
            rounded to multiples of 1/127 of the largest of their row.

    Raises:
        ValueError: `weights` is none of these, or 8 bits are asked for and a weight is not finite.
    """

    panels: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, weights: Weights = "float32"):
        super().__init__()
        _check(weights)
        self.out_features, self.in_features = weight.shape
        W, scale = weight.detach().float(), None
        if weights == "int8":
            W, scale = quantise_rows(W)
        elif weights == "bfloat16":
            W = W.bfloat16()
        self.register_buffer("panels", to_panels(W))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        vectors = x.reshape(-1, self.in_features)
        y = matvec(vectors, self.panels, self.out_features, self.scale, self.bias)
        return y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        kind = str(self.panels.dtype).removeprefix("torch.")
        return f"{self.in_features}, {self.out_features}, {kind}, bias={self.bias is not None}"


def prepare_for_decoding(model: Model, weights: Weights = "float32") -> Model:
    """A copy of `model` for generation, in evaluation mode and without gradients.

    Every `nn.Linear` in it becomes a `PanelLinear`, whatever the model. Where `model.head` is None,
    or shares its weights with `model.embedding`, the copy's head has weights of its own; the
    embedding, of which a step reads one row, stays as it was. Modules that use the weights of an
    inner `nn.Linear` themselves, instead of calling it, cannot be prepared. The copy follows no
    later change of `model`.

    Args:
        model: any module. It is not changed.
        weights: format of the linear layers' weights. float32 gives the model's own numbers, up to
            the order of sums. bfloat16 is off by at most 1/512 of each weight; int8 by at most
            1/254 of the largest weight of the same output.

    Raises:
        ValueError: as for `PanelLinear`, with the name of the layer.
    """
    _check(weights)
    prepared: dict[int, object] = {}
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            prepared[id(module)] = _panels(name, module.weight, module.bias, weights)
    # deepcopy takes what it finds in its memo for a finished copy
    fast = copy.deepcopy(model, prepared).eval().requires_grad_(False)
    embedding = getattr(model, "embedding", None)
    if isinstance(embedding, nn.Embedding) and getattr(model, "head", embedding) is None:
        fast.head = _panels("embedding", embedding.weight, None, weights)
    return fast


def _panels(name: str, weight: Tensor, bias: Tensor | None, weights: Weights) -> PanelLinear:
    try:
        return PanelLinear(weight, bias, weights)
    except ValueError as error:
        raise ValueError(f"{name or 'the model'}: {error}") from None


def _check(weights: str) -> None:
    if weights not in get_args(Weights):
        raise ValueError(f"weights must be float32, bfloat16 or int8; got {weights!r}")
