import json
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory import Result


@dataclass(frozen=True, eq=False, kw_only=True)
class Bits(Result):
    bits: torch.Tensor
    note: float

    def rows(self):
        return ["lag", "bits"], [[str(i), f"{b:g}"] for i, b in enumerate(self.bits.tolist())]


def make(**changes):
    facts = {
        "kind": "exact", "scope": "all inputs", "sentence": "It holds two bits.",
        "bits": torch.tensor([1.5, 0.5]), "note": float("inf"),
    }  # fmt: skip
    return Bits(**{**facts, **changes})


def test_json_holds_every_field_and_is_strict():
    facts = json.loads(make().to_json())
    assert facts == {
        "result": "Bits", "kind": "exact", "scope": "all inputs", "sentence": "It holds two bits.",
        "bits": [1.5, 0.5], "note": "Infinity",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [(float("nan"), "NaN"), (1j, [0.0, 1.0]), (np.float32(0.5), 0.5), ((1, None), [1, None])],
)
def test_json_of(value, expected):
    assert json.loads(make(note=value).to_json())["note"] == expected


def test_the_table_shows_the_kind_of_each_number():
    text = make(kind="lower_bound").table().splitlines()
    assert text[:2] == ["It holds two bits.", "[lower bound; all inputs]"]
    assert text[3:] == ["lag  bits", "0     1.5", "1     0.5"]


def test_is_frozen():
    with pytest.raises(FrozenInstanceError):
        make().kind = "certified"


@pytest.mark.parametrize("wrong", [{"kind": "true"}, {"scope": " "}, {"sentence": ""}])
def test_a_number_without_its_kind_is_refused(wrong):
    with pytest.raises(InputError):
        make(**wrong)


def test_a_decay_close_to_one_is_shown_as_one_minus_the_rest():
    assert [number(x) for x in (1, 1 - 4.26e-6, 0.9992, 1.25)] == [
        "1", "1 - 4.3e-06", "0.9992", "1.25",
    ]  # fmt: skip
