"""Annotations are checked while tests run, as `conftest.py` asks for."""

import jaxtyping
import pytest
import torch

from longstate.compress._allocate import even
from longstate.layers import S5


def test_a_shape_that_contradicts_its_annotation_is_an_error():
    layer = S5(4)
    with pytest.raises(ValueError, match="S5 expects dt of shape"):  # the layer's own error
        layer(torch.zeros(2, 3, 4), dt=torch.ones(2, 5))
    assert refused(lambda: layer(torch.zeros(2, 3, 4), dt=torch.ones(2, 5)))


def test_an_object_that_lacks_a_member_of_its_protocol_is_an_error():
    assert not refused(lambda: even([], 0.5))
    assert refused(lambda: even([object()], 0.5))


def refused(call):
    """Whether a call raises an error of the annotations; `pytest.raises` switches these off."""
    try:
        call()
    except jaxtyping.TypeCheckError:
        return True
    return False
