"""What counts as the same weights and the same settings."""

import dataclasses
from typing import NamedTuple

import pytest
import torch
from torch import nn

from longstate.layers import S4D
from longstate.stream._identity import describe, difference, digest

BLOCK = 1 << 16


@pytest.mark.parametrize("n", [0, 1, 2, 63, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_the_hash_depends_on_values_and_not_on_types(n):
    x = torch.randn(n).bfloat16()
    assert digest(x) == digest(x.float()) == digest(x.double())
    x = torch.randn(n)
    assert digest(x) == digest(x.double()) == digest(x.view(-1, 1).expand(-1, 2)[:, 1])
    assert digest(torch.cat((torch.zeros(1), x))[1:]) == digest(x)  # begins within a word
    assert digest(x[None]) == digest(x), "the shape is told beside the hash"


KINDS = {
    torch.float64: lambda x: torch.nextafter(x, x + 1),
    torch.float32: lambda x: torch.nextafter(x, x + 1),
    torch.float16: lambda x: torch.nextafter(x, x + 1),
    torch.complex64: lambda x: x + 1e-3j,
    torch.int64: lambda x: x + 1,
    torch.uint8: lambda x: x ^ 128,
    torch.bool: lambda x: ~x,
}


@pytest.mark.parametrize("dtype", KINDS)
def test_every_change_of_one_number_counts(dtype):
    n = BLOCK + 3
    x = (torch.arange(n) % 251 % 3).to(dtype)
    if dtype == torch.int64:
        x += 2**60  # no float holds this and one more
    for at in (0, 1, 777, BLOCK - 1, BLOCK, n - 1):
        other = x.clone()
        other[at] = KINDS[dtype](x[at])
        assert digest(other) != digest(x)
    assert digest(x.flip(0)) != digest(x), "the order counts"


def test_float64_that_float32_cannot_hold():
    x = torch.randn(5, dtype=torch.float64)
    assert digest(x) != digest(x.float())


class Size(NamedTuple):
    wide: int


@dataclasses.dataclass
class Spec:
    quantiles: tuple[float, ...] = (0.1, 0.9)
    dtype: torch.dtype = torch.float32


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.spec, self.kept, self.size = Spec(), torch.float32, Size(3)
        self.layer = S4D(3, d_state=4)
        self.tied = self.layer.D
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.hook, self._calls = print, 0


@pytest.fixture
def model():
    return Model()


def test_settings_without_effect_do_not_change_the_identity(model):
    before = describe(model)
    model.eval()
    model._calls, model.hook, model.cache = 7, len, torch.ones(1)
    model.layer = torch.compile(model.layer, backend="eager")
    assert difference(before, describe(model)) is None
    assert difference(before, describe(torch.compile(model, backend="eager"))) is None


def test_settings_with_effect_change_the_identity(model):
    before = describe(model)

    def says(message):
        assert message in difference(before, describe(model))

    model.seen += 1
    says("with other weights: 1 of 8 tensors differ, the first is seen")
    model.extra = nn.Parameter(torch.ones(2))
    says("its extra is missing, here (2,)")
    model.size = Size(4)
    says("its size is [3], here [4]")
    model.size, model.kept = Size(3), torch.float64
    says("its kept is 'torch.float32', here 'torch.float64'")
    model.kept, model.spec = torch.float32, Spec((0.5,))
    says("its spec is {'dtype': 'torch.float32', 'quantiles': [0.1, 0.9]}, here")
    model.spec, model.layer.rate = Spec(), 2
    says("only the module here has layer.rate")
    del model.layer.rate, model.spec
    assert "only its module has spec" in difference(before, describe(model))
    assert difference(before, describe(model.layer)) == "belongs to Model, not to S4D"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_hash(model):
    before = describe(model)
    assert difference(before, describe(model.cuda())) is None
