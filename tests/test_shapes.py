"""Modules made without memory are those made with it."""

import pytest
import torch
from torch import nn

from longstate._shapes import shapes_only
from tests.layers.test_contract import LAYERS
from tests.test_imports import python

FORMS = [
    lambda x: x + 1, lambda x: 2 - x, lambda x: x / 2, lambda x: 2 / x, lambda x: 2.0**x,
    lambda x: x * x[:, :1], lambda x: x[0] * x, lambda x: x % 2 == 1, lambda x: -x,
    lambda x: x.to(torch.float64) * x, lambda x: x * 1j, lambda x: torch.where(x > 0, 1.0, x),
    lambda x: x.clamp(min=1), lambda x: x.tril(-1), lambda x: torch.diag(x[0]),
    lambda x: torch.diag(x), lambda x: torch.outer(x[0], x[:, 0]), lambda x: x.expm1().log(),
    lambda x: torch.arange(3), lambda x: torch.arange(1.5, 4), lambda x: torch.arange(7, 0, -3),
    lambda x: torch.arange(2, dtype=torch.float64), lambda x: nn.init.normal_(x[0].float()),
    lambda x: x.sqrt(), lambda x: x.abs(),
    lambda x: x.repeat(3, 1), lambda x: x.repeat(2, 1, 3), lambda x: x[0].expand(5, -1),
    lambda x: x[:, :1].expand((3, -1, 7)), lambda x: x.expand(2, 4),
    lambda x: x.float().div_(2), lambda x: x.clone().mul_(x[:1]),
]  # fmt: skip


def described(tensors):
    return {name: (t.shape, t.dtype) for name, t in tensors.items()}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_its_names_shapes_and_types(name):
    with shapes_only():
        made = LAYERS[name]().state_dict()
    assert all(t.is_meta for t in made.values())
    assert described(made) == described(LAYERS[name]().state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("form", FORMS)
def test_functions_of_elements(form, dtype):
    with shapes_only():
        found = form(torch.ones(2, 4, dtype=dtype))
    real = form(torch.ones(2, 4, dtype=dtype))
    assert (found.shape, found.dtype) == (real.shape, real.dtype)
    assert found.is_meta


def test_shapes_that_do_not_match_are_refused():
    with shapes_only(), pytest.raises(RuntimeError, match="roadcast"):
        torch.ones(2, 3) * torch.ones(2, 4)


@pytest.mark.parametrize("sizes", [(3, 4), (4,), (2, 2, 3)])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with shapes_only(), pytest.raises(RuntimeError):
        torch.ones(2, 4).expand(*sizes)


def test_random_numbers_drawn_before_and_after_are_the_same():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with shapes_only():
        nn.Linear(3, 3)
    assert torch.equal(torch.rand(2), expected)
    assert not torch.ones(1).is_meta


def test_a_saved_model_is_opened_and_run_without_pytorchs_compiler(tmp_path):
    """Its import takes as long as that of PyTorch."""
    loaded = python(
        "import sys, torch, longstate; from longstate.models import LanguageModel, LanguageSpec\n"
        "for layer in ('s4d', 'mamba', 'mamba2', 'longhorn', 'gru'):\n"
        "    model = LanguageModel(LanguageSpec(8, 64, (layer,)))\n"
        f"    path = {str(tmp_path)!r} + layer; longstate.save(model, path)\n"
        "    longstate.load(path)(torch.zeros(1, 3, dtype=torch.long))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert loaded.split() == ["False"]
