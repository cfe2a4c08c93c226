"""Shapes in annotations are checked while tests run: what `conftest.py` switches on is on."""

import jaxtyping
import pytest
import torch

from longstate.layers import S5


def test_a_shape_that_contradicts_its_annotation_is_an_error():
    layer = S5(4)
    with pytest.raises(ValueError, match="S5 expects dt of shape"):  # its own sentence
        layer(torch.zeros(2, 3, 4), dt=torch.ones(2, 5))
    try:
        layer(torch.zeros(2, 3, 4), dt=torch.ones(2, 5))
    except jaxtyping.TypeCheckError:
        return
    raise AssertionError("annotations of longstate.layers are not checked")
