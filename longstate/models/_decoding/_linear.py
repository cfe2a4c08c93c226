"""A linear map for decoding: its weights in the order in which they are read, in 32, 16 or 8 bits.

    y = W x + bias

Axes: i features in, o features out; *b any leading axes.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from longstate.ops.matvec import from_panels, matvec, quantise_rows, to_panels

Format = Literal["float32", "bfloat16", "int8"]


class PanelLinear(nn.Module):
    """`nn.Linear` for inference: its weights get no gradient.

    For up to 8 vectors a kernel reads the weights once; for more, as in a prefill, PyTorch's matrix
    product is used. Both give the gradient of the input.

    Args:
        weight (o, i): copied.
        bias (o): copied. None: no bias.
        weights: "float32", "bfloat16", or "int8" with one scale for each output: weights are
            rounded to multiples of 1/127 of the largest of their row.

    Raises:
        ValueError: `weights` is none of these, or 8 bits are asked for and a weight is not finite.
    """

    panels: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, weights: Format = "float32"):
        super().__init__()
        if weights not in get_args(Format):
            raise ValueError(f"weights must be float32, bfloat16 or int8; got {weights!r}")
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
        vectors = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        panels, scale, bias = self.parts()
        y = matvec(vectors, panels, self.out_features, scale, bias)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """A copy of the weights in use, unpacked and multiplied by their scales, for analysis."""
        wide = self.panels.dtype if self.scale is None else self.scale.dtype
        W = from_panels(self.panels, self.out_features).to(torch.promote_types(wide, torch.float32))
        return W if self.scale is None else W * self.scale[:, None]

    def parts(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Panels, scale and bias, for kernels that take several maps at once."""
        buffers = self._buffers  # attributes of a module are slow to look up
        return buffers["panels"], buffers["scale"], buffers["bias"]  # type: ignore[return-value]

    def extra_repr(self) -> str:
        kind = str(self.panels.dtype).removeprefix("torch.")
        return f"{self.in_features}, {self.out_features}, {kind}, bias={self.bias is not None}"
