"""Compile the CPU kernels of layers before their first use.

Numba compiles a kernel for each type of number and keeps it on the disk. Here every layer runs on
a few samples in each way that has kernels of its own: forward, backward, a step, and a step of a
text model that is prepared for decoding.
"""

from collections.abc import Sequence

import torch

from longstate.bench import _layers
from longstate.bench._measure import Progress, Show, choose
from longstate.bench._settings import DTYPES, Settings
from longstate.layers._wrapper import Wrapper
from longstate.models import LanguageModel, LanguageSpec, prepare_for_decoding
from longstate.models._layer_names import any_layer_class

_BATCH, _LENGTH, _D_MODEL = 2, 40, 64  # longer than a chunk of 32 samples


def warm(
    layers: Sequence[str] = (),
    dtypes: Sequence[str] = ("float32",),
    show: Show = lambda progress: None,
) -> None:
    """Compile what layers need on a CPU. What is compiled already takes no time.

    Args:
        layers: names of classes in `longstate.layers`, in any case. Empty: all of them.
        dtypes: types of the inputs and parameters, by PyTorch's names.
        show: called before each layer.

    Raises:
        InputError: there is no such layer or type.
    """
    subjects = _layers.subjects()
    chosen = choose("layer", layers, subjects) or subjects
    settings = [Settings(_BATCH, _LENGTH, _D_MODEL, dtype) for dtype in dtypes]
    total = len(settings) * len(chosen)
    for i, s in enumerate(settings):
        for j, subject in enumerate(chosen):
            show(Progress(i * len(chosen) + j, total, f"{subject.name}, {s.dtype}"))
            for mode in subject.prepare(s):
                mode.run()
            _decode(subject.aliases[0], DTYPES[s.dtype])
    show(Progress(total, total, ""))


def _decode(layer: str, dtype: torch.dtype) -> None:
    """Two tokens of a text model of one such layer, with its weights in `dtype` if it can be."""
    inside = ":s4d" if issubclass(any_layer_class(layer), Wrapper) else ""
    spec = LanguageSpec(16, _D_MODEL, (layer + inside,))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        whole = LanguageModel(spec).eval()
        narrow = dtype == torch.bfloat16
        model = prepare_for_decoding(whole, "bfloat16" if narrow else "float32")
        tokens = torch.zeros(1, 2, dtype=torch.long)
        _, state = model(tokens)
        model.step(tokens[:, 0], state)
