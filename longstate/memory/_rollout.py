"""Relevance of the inputs of a model for its outputs, from the hidden attention of its layers.

    M_l = |hidden attention of layer l| / its largest value, mean over channels       (t, s)
    R_l = rows of (M_l + I), each divided by its sum
    relevance = R_L ... R_2 R_1

The rollout of Abnar and Zuidema (2020), as Ali, Zimerman and Wolf, "The Hidden Attention of Mamba
Models" (arXiv:2403.01590), use it for Mamba. I stands for the path around a layer. The products
assume that what a layer mixes adds up, and ignore signs and what happens between the layers: the
numbers rank inputs, and prove nothing.

Differs from the paper: absolute values, where it scales the range of each matrix to [0, 1]. A
weight of zero is then a relevance of zero, and no output depends on a later input.

Axes: b batch, t time of an output, s time of an input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import InputError
from longstate.memory._plot import draw
from longstate.memory._result import THIS_DATA, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from longstate.memory._attention import HiddenAttention

_SHOWN = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollout(Result):
    """Relevance of inputs.

    Args:
        relevance (b, t, s): of the input at s for the output at t; at least 0, the sum over s is 1.
    """

    relevance: Float[Tensor, "b t s"]

    def most(self, count: int = _SHOWN) -> Tensor:
        """Times (b, count) of the most relevant inputs of the last output, the best first."""
        last = self.relevance[:, -1]
        return last.topk(min(count, last.shape[-1])).indices

    def rows(self) -> tuple[list[str], list[list[str]]]:
        last = self.relevance[0, -1]
        body = [[str(int(s)), f"{100 * float(last[s]):.3f} %"] for s in self.most()[0]]
        return ["input", "share of the relevance for the last output"], body

    def plot(self) -> "Figure":
        def paint(ax):
            image = ax.imshow(self.relevance[0], cmap="magma", aspect="auto")
            ax.figure.colorbar(image, ax=ax, label="relevance")

        return draw(self, "Rollout", "input s", "output t", paint)


def rollout(layers: "Sequence[HiddenAttention]") -> Rollout:
    """The relevance of the inputs of a model for its outputs.

        traces = record(model, tokens).values()
        rollout([hidden_attention(trace, conv=True, gate=True) for trace in traces])

    Args:
        layers: one for each layer of the model, the first layer first, of traces on the same data
            or of systems for the same length.

    Raises:
        InputError: there is no layer, or their lengths or rows differ.
    """
    if not layers:
        raise InputError("a rollout needs the hidden attention of at least one layer")
    mixed = [_rows(layer) for layer in layers]
    if len({m.shape[-1] for m in mixed}) > 1 or len({len(m) for m in mixed if len(m) > 1}) > 1:
        shapes = ", ".join(str(tuple(m.shape)) for m in mixed)
        raise InputError(f"the layers must have read the same data; got (b, t, s) of {shapes}")
    total = mixed[0]
    for more in mixed[1:]:
        total = more @ total
    best = int(total[0, -1].argmax())
    return Rollout(
        kind="heuristic",
        scope=next((layer.scope for layer in layers if layer.scope == THIS_DATA), layers[0].scope),
        sentence=f"The input at {best} is the most relevant one for the last output of the first "
        "row.",
        relevance=total,
    )


def _rows(layer: "HiddenAttention") -> Tensor:
    """R of a layer (b, t, s); b is 1 for a system, which is the same for all data."""
    size = layer.weights.abs().double()
    if layer.scope != THIS_DATA:
        size = size.flatten(0, -3)[None]
    size = size / size.amax((1, 2, 3), keepdim=True).clamp(min=1e-300)
    mixed = size.mean(1) + torch.eye(size.shape[-1], dtype=size.dtype)
    return mixed / mixed.sum(-1, keepdim=True)
