"""An error bound for reduced precision that follows from the reference."""

import torch
from torch import Tensor


def assert_within_reference_error(actual: Tensor, exact: Tensor, plain: Tensor) -> None:
    """Assert that fast code in reduced precision is about as accurate as plain PyTorch.

    The largest error of `actual` may be twice the largest error of `plain`, plus one rounding of
    the largest value. No tolerance is chosen by hand: the reference determines it.

    Args:
        actual: result of the fast code, in reduced precision.
        exact: the reference's result in float64 or complex128, from the same inputs.
        plain: the reference's result in the dtype of `actual`.

    Raises:
        AssertionError: a dtype or shape differs, a value is not finite, or the error is larger.
    """
    if actual.dtype != plain.dtype:
        raise AssertionError(f"dtype is {actual.dtype}, the plain reference gives {plain.dtype}")
    if not actual.shape == exact.shape == plain.shape:
        shapes = f"{tuple(actual.shape)}, {tuple(exact.shape)}, {tuple(plain.shape)}"
        raise AssertionError(f"shapes of actual, exact and plain differ: {shapes}")
    if actual.numel() == 0:
        return
    if not torch.isfinite(actual).all():
        raise AssertionError("values are not all finite")
    error = (actual.to(exact.dtype) - exact).abs().max().item()
    reference_error = (plain.to(exact.dtype) - exact).abs().max().item()
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max().item()
    if not error <= 2 * reference_error + rounding:
        raise AssertionError(
            f"error {error:.3g} exceeds twice the plain reference's {reference_error:.3g} "
            f"plus one rounding {rounding:.3g}"
        )
