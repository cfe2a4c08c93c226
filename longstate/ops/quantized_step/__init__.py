"""One sample of a selective layer whose state stays in 8 or 4 bits.

    h = a (w 2^e) + weight x B         w: whole numbers of a row of the state; e: its exponent
    y = h . C + D x                    read before h is rounded
    w, e = rounded(h)

A row is what shares its last axis. Its scale is the smallest power of 2 at which its largest number
fits: no number is ever outside the range, a row of zeros stays zero, and a state that did not
change is rounded to itself. So a row takes one byte beside its numbers, and the state of a head or
channel never depends on the others'.

    8 bits          -127 to 127
    4 bits          -7 to 7, two in a byte
    feedback        the rest of each number in as many bits again: in all -127.5 to 127.5 in steps
                    of 1/256, or -7.5 to 7.5 in steps of 1/16

Two recurrences, for the decay: `selective_quantized_step` (one for each number; Mamba) and
`head_quantized_step` (one for each head; Mamba-2). No gradients, masks or resets.

Axes: b batch, d channels, h heads, p channels of a head, n state, g groups, w bytes or words of a
row.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from longstate.ops._choice import expect, plain, shape_of

Rounding = Literal["nearest", "stochastic", "feedback"]
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "stochastic", "feedback")
LEAST = -100  # the smallest exponent: a row below 2^LEAST / 2 becomes zero
BAD = 127  # the exponent of a row that is not finite


class Digits(NamedTuple):
    """How numbers are rounded.

    Attributes:
        bits: of a number, at least 2; a kernel has 8 and 4.
        rounding: "nearest"; "stochastic": up or down at random, right on average; or "feedback":
            to nearest, and the rest is kept in as many bits again.
    """

    bits: int
    rounding: Rounding = "nearest"

    @property
    def most(self) -> int:
        """The largest whole number; with feedback, in units of the rest."""
        most = (1 << self.bits - 1) - 1
        return most << self.bits if self.rounding == "feedback" else most

    @property
    def packed(self) -> bool:
        """Whether two numbers are in a byte."""
        return self.bits == 4 and self.rounding != "feedback"


class Rounded(NamedTuple):
    """A state in few bits.

    Attributes:
        numbers (..., w): int8 or int16; or uint8, two numbers of 4 bits in each.
        exponents (...): int8; 127 for a row that was not finite.
    """

    numbers: Tensor
    exponents: Tensor


def seed_of(digits: Digits) -> int:
    """A seed for one rounding, from PyTorch's generator; 0 if nothing is drawn."""
    return int(torch.randint(2**31, ())) if digits.rounding == "stochastic" else 0


def round_state(h: Tensor, digits: Digits, seed: int = 0) -> Rounded:
    """A state h (..., n) in few bits. The result depends on `seed` only if rounding is random."""
    from longstate.ops.quantized_step import reference

    _check_digits(digits)
    return reference.rounded(h, digits, seed)


def exact_state(state: Rounded, digits: Digits, n: int, dtype: torch.dtype) -> Tensor:
    """The numbers (..., n) that a rounded state stands for; exact in float32."""
    from longstate.ops.quantized_step import reference

    return reference.exact(state, digits, n, dtype)


def selective_quantized_step(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, state: Rounded,
    digits: Digits, *, seed: int = 0, impl: str = "auto",
) -> tuple[Tensor, Rounded]:  # fmt: skip
    """Mamba: a = exp(dt A), weight = dt, and y = (h . C + D u) silu(z).

    Args:
        u, dt, z (b, d): input, step and gate.
        A (d, n): negative rates. Its type is that of the computation, float32 or float64.
        B, C (b, n): what is written and read.
        D (d): share of the input in the output.
        state: of b rows; numbers (b, d, w), exponents (b, d).
        digits: as the state was rounded.
        seed: of random rounding; see `seed_of`.
        impl: "auto", "reference" or "cpu".

    Returns:
        y (b, d) in the type of `A`, and the next state.

    Raises:
        ValueError: shapes or types do not fit, or `impl` cannot run here.
    """
    b, (d, n) = len(u), A.shape
    shapes = {
        "u": (u, (b, d)), "dt": (dt, (b, d)), "z": (z, (b, d)), "B": (B, (b, n)), "C": (C, (b, n)),
        "D": (D, (d,)),
    }  # fmt: skip
    for name, (v, shape) in shapes.items():
        expect(v.shape == shape, f"{name} must be {shape}; got {shape_of(v)}")
    _check_state(state, digits, (b, d), n)
    if _on_cpu(impl, u, A):
        from longstate.ops.quantized_step import cpu

        return cpu.selective(u, dt, A, B, C, D, z, state, digits, seed)
    from longstate.ops.quantized_step import reference

    return reference.selective(u, dt, A, B, C, D, z, state, digits, seed)


def head_quantized_step(
    x: Tensor, log_a: Tensor, weight: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Rounded,
    digits: Digits, *, seed: int = 0, impl: str = "auto",
) -> tuple[Tensor, Rounded]:  # fmt: skip
    """Mamba-2: a = exp(log_a) of a head, and y = h C + D x.

    Args:
        x (b, h, p): input.
        log_a, weight (b, h): logarithm of the decay, and weight of the sample. The type of `log_a`
            is that of the computation, float32 or float64.
        B, C (b, g, n): what is written and read; g divides h.
        D (h): share of the input in the output.
        state: numbers (b, h, p, w), exponents (b, h, p).
        digits, seed, impl: as for `selective_quantized_step`.

    Returns:
        y (b, h, p) in the type of `log_a`, and the next state.

    Raises:
        ValueError: as `selective_quantized_step`.
    """
    (b, h, p), n = x.shape, B.shape[-1]
    expect(B.dim() == 3 and h % B.shape[1] == 0, f"B must be (b, g, n); got {shape_of(B)}")
    shapes = {
        "log_a": (log_a, (b, h)), "weight": (weight, (b, h)), "B": (B, (b, B.shape[1], n)),
        "C": (C, B.shape), "D": (D, (h,)),
    }  # fmt: skip
    for name, (v, shape) in shapes.items():
        expect(v.shape == shape, f"{name} must be {tuple(shape)}; got {shape_of(v)}")
    _check_state(state, digits, (b, h, p), n)
    if _on_cpu(impl, x, log_a):
        from longstate.ops.quantized_step import cpu

        return cpu.of_heads(x, log_a, weight, B, C, D, state, digits, seed)
    from longstate.ops.quantized_step import reference

    return reference.of_heads(x, log_a, weight, B, C, D, state, digits, seed)


def _check_digits(digits: Digits) -> None:
    expect(digits.bits in (4, 8), f"bits of a state must be 8 or 4; got {digits.bits}")
    expect(
        digits.rounding in ROUNDINGS,
        f"rounding must be one of {', '.join(ROUNDINGS)}; got {digits.rounding!r}",
    )


def storage(digits: Digits, n: int) -> tuple[torch.dtype, int]:
    """Type and length of a row of n numbers."""
    if digits.packed:
        return torch.uint8, -(-n // 2)
    return (torch.int16 if digits.most > 127 else torch.int8), n


def _check_state(state: Rounded, digits: Digits, rows: tuple[int, ...], n: int) -> None:
    _check_digits(digits)
    dtype, width = storage(digits, n)
    numbers, exponents = state
    expect(
        numbers.shape == (*rows, width) and numbers.dtype == dtype,
        f"numbers must be {(*rows, width)} {dtype}; got {shape_of(numbers)}",
    )
    expect(
        exponents.shape == rows and exponents.dtype == torch.int8,
        f"exponents must be {rows} torch.int8; got {shape_of(exponents)}",
    )


def _on_cpu(impl: str, x: Tensor, wide: Tensor) -> bool:
    expect(
        wide.dtype in (torch.float32, torch.float64),
        f"the step is computed in float32 or float64; got {shape_of(wide)}",
    )
    expect(impl in ("auto", "reference", "cpu"), f"impl must be auto, reference or cpu; got {impl}")
    able = plain(x)
    expect(able or impl != "cpu", "impl='cpu' runs on CPU tensors, untraced only")
    return able and impl != "reference"
