"""Copy a model for fast generation: the weights of its linear layers are laid out for decoding.

A step of batch 1 uses every weight once, so its time is the time to read the weights. The copy
stores them in panels, in the order in which they are read (`longstate.ops.matvec`), in 32, 16 or 8
bits. A `Mamba` layer, and its block in a language model, take a step or a few samples in one kernel
call. The model class and its calls are unchanged. States are float32, or, with `state_bits`, in 8
or 4 bits.

    fast = prepare_for_decoding(model, "int8")
    logits, state = fast(prompt)
    logits, state = fast.step(token, state)
"""

import copy
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from longstate.models._decoding._linear import Format as Format
from longstate.models._decoding._linear import PanelLinear as PanelLinear
from longstate.models._decoding._mamba import swap_in
from longstate.models._decoding._quantized import quantize_states
from longstate.ops._layout import on_large_pages
from longstate.ops.quantized_step import Digits, Rounding

Model = TypeVar("Model", bound=nn.Module)
_LINE = 64  # bytes of a cache line


def prepare_for_decoding(
    model: Model,
    weights: Format = "float32",
    *,
    state_bits: int | None = None,
    state_rounding: Rounding = "nearest",
) -> Model:
    """A copy of `model` for generation, in evaluation mode and without gradients.

    Every `nn.Linear` becomes a `PanelLinear`, in any model. If `model.head` is None, or shares its
    weights with `model.embedding`, the copy's head gets its own weights; the embedding is
    unchanged, because a step reads only one row of it. Modules that use the weights of an inner
    `nn.Linear` without calling it cannot be prepared. Later changes of `model` do not affect the
    copy.

    Args:
        model: any module. It is not changed.
        weights: format of the linear layers' weights. float32 gives the same results up to the
            order of sums. The error of a bfloat16 weight is at most 1/512 of it; of an int8
            weight at most 1/254 of the largest weight of the same output.
        state_bits: 8 or 4: keep the states of selective layers in so many bits a number. None: as
            they are.
        state_rounding: "nearest"; "stochastic", right on average; or "feedback", which keeps the
            rest of each number in as many bits again.

    Raises:
        ValueError: as for `PanelLinear`, with the name of the layer.
        InputError: no layer's state can be kept in few bits, or not in `state_bits`.
    """
    if weights not in get_args(Format):
        raise ValueError(f"weights must be float32, bfloat16 or int8; got {weights!r}")
    prepared: dict[int, Any] = {}
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            prepared[id(module)] = _panels(name, module.weight, module.bias, weights)
    maps = list(prepared.values())
    # deepcopy uses an entry of its memo as the finished copy of a module
    fast: Any = copy.deepcopy(model, prepared).eval().requires_grad_(False)
    embedding = getattr(model, "embedding", None)
    if isinstance(embedding, nn.Embedding) and getattr(model, "head", embedding) is None:
        fast.head = _panels("embedding", embedding.weight, None, weights)
        maps.append(fast.head)
    _side_by_side(maps)
    if state_bits is not None:
        fast = quantize_states(fast, Digits(state_bits, state_rounding))
    swap_in(fast)
    return fast


def _side_by_side(maps: list[PanelLinear]) -> None:
    """Move all panels into one block of memory. Many separate blocks would be too small for large
    pages; reading them took up to a third longer."""
    sizes = [-(-m.panels.nbytes // _LINE) * _LINE for m in maps]
    if not maps or any(m.panels.device.type != "cpu" for m in maps):
        return
    memory, start = on_large_pages(torch.empty(sum(sizes), dtype=torch.uint8)), 0
    for m, size in zip(maps, sizes, strict=True):
        here = memory[start : start + m.panels.nbytes].view(m.panels.dtype).view(m.panels.shape)
        m.panels = here.copy_(m.panels)
        start += size


def _panels(name: str, weight: Tensor, bias: Tensor | None, weights: Format) -> PanelLinear:
    try:
        return PanelLinear(weight, bias, weights)
    except ValueError as error:
        raise ValueError(f"{name or 'the model'}: {error}") from None
