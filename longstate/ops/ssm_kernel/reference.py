"""The sums as they are written, with their (n, length) temporaries; gradients by PyTorch."""

import torch
from torch import Tensor


def _powers(a: Tensor, length: int) -> Tensor:
    power, powers = a**0, []
    for _ in range(length):
        powers.append(power)
        power = power * a
    return torch.stack(powers, dim=-1)


def vandermonde(w: Tensor, a: Tensor, length: int) -> Tensor:
    return (w.unsqueeze(-1) * _powers(a, length)).sum(-2).real


def moments(u: Tensor, a: Tensor) -> Tensor:
    return (u.unsqueeze(-2) * _powers(a, u.shape[-1])).sum(-1)


def cauchy(v: Tensor, z: Tensor, poles: Tensor) -> Tensor:
    return (v.unsqueeze(-1) / (z - poles.unsqueeze(-1)).unsqueeze(-3)).sum(-2)
