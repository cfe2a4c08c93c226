"""Impulse responses that real, signed and complex states can learn, and how large they must be.

    python benchmarks/impulse_fit.py [--steps 3000] [--seeds 3]

Part 1. One channel of each layer is trained until its response over 256 samples is like a target:
a delay of 100 samples, random numbers, an oscillation of 4 samples, a slow damped oscillation, and
a difference of two slow decays. Each layer has 64 real numbers in C, and D is 0. The error is the
sum of squares of the difference, relative to that of the target: 1 is what an output of zero has.
Adam with a cosine schedule, all parameters, the better one of two learning rates; the least error
that was met in training, and of this the median over seeds. HOPE is linear in its parameters for a
given dt: its errors are the least that are possible. Finished runs are kept in
`trained/impulse_fit.jsonl`.

Part 2. The largest product |c_k b_k| of a diagonal system of size t whose first t samples are a
delay of (t - 1) // 2 exactly, found with 80 digits. Its modes are Chebyshev points of (0, 1)
("real") or (-1, 1) ("signed"), or the t roots of unity ("complex").

The question is that of Ran-Milo et al., "Provable Benefits of Complex Parameterizations for
Structured State Space Models", 2024, arXiv:2410.14067. Targets of part 1 are partly ours.
"""

import math
from collections.abc import Callable
from pathlib import Path

import mpmath
import torch
from command import parser
from measure import machine, save
from runs import Runs
from torch import Tensor

from longstate.layers import HOPE, S4D, Layer, LinOSS

LENGTH, SIZES, RATES = 256, (8, 16, 24, 32), (1e-3, 1e-2)
LAYERS: dict[str, Callable[[int], Layer]] = {
    "S4D real": lambda d: S4D(d, d_state=64, init="real"),
    "S4D signed": lambda d: S4D(d, d_state=64, init="signed"),
    "S4D complex (lin)": lambda d: S4D(d, d_state=64),
    "LinOSS im": lambda d: LinOSS(d, d_state=32 * d),
    "LinOSS imex": lambda d: LinOSS(d, d_state=32 * d, variant="imex"),
}


def targets() -> dict[str, Tensor]:
    """Responses (t) of energy 1."""
    at = torch.arange(LENGTH, dtype=torch.float64)
    noise = torch.randn(LENGTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = {
        "delay 100": (at == 100).double(),
        "random": noise,
        "oscillation of 4": torch.cos(math.pi / 2 * at),
        "slow oscillation": torch.exp(-at / 200) * torch.cos(2 * math.pi * at / 100),
        "difference of slow decays": torch.exp(-at / 100) - torch.exp(-at / 50),
    }
    return {name: x / x.norm() for name, x in found.items()}


def impulse(d: int) -> Tensor:
    u = torch.zeros(1, LENGTH, d, dtype=torch.float64)
    u[:, 0] = 1
    return u


def fitted(make: Callable[[int], Layer], wanted: Tensor, rate: float, steps: int) -> Tensor:
    """Least errors (d) of a layer of d separate channels in training towards `wanted` (t, d)."""
    layer = make(wanted.shape[1]).double()
    layer.D.requires_grad_(False).zero_()
    if isinstance(layer, LinOSS):
        separate(layer)
    optimiser = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    u, best = impulse(wanted.shape[1]), torch.full((wanted.shape[1],), torch.inf)
    for _ in range(steps):
        errors = (layer(u)[0][0] - wanted).square().sum(0)
        best = torch.minimum(best, errors.detach())
        optimiser.zero_grad()
        errors.sum().backward()
        optimiser.step()
        schedule.step()
    return best


@torch.no_grad()
def separate(layer: LinOSS) -> None:
    """Give every channel oscillators of its own, as in a layer of one channel."""
    d, n = layer.d_model, layer.d_state // layer.d_model
    own = torch.block_diag(*[torch.ones(n, 1, dtype=torch.float64)] * d)  # oscillators, channels
    for p, mask, scale in ((layer.B, own, d**0.5), (layer.C, own.mT, d**0.5)):
        p.mul_(mask[..., None] * scale)  # the first values of a layer of one channel
        p.register_hook(lambda g, mask=mask: g * mask[..., None])


def of_layer(name: str, wanted: Tensor, seeds: int, steps: int, runs: Runs) -> Tensor:
    """Median errors (d) over seeds, of the better rate. A seed is a channel."""
    found = []
    for rate in RATES:
        named = {"layer": name, "rate": rate, "seeds": seeds, "steps": steps}
        if not runs.has(**named):
            torch.manual_seed(0)
            errors = fitted(LAYERS[name], wanted.repeat(1, seeds), rate, steps)
            runs.add(
                {**named, "errors": errors.unflatten(0, (seeds, -1)).median(0).values.tolist()}
            )
            print(runs.all()[-1], flush=True)
        (run,) = [r for r in runs.all() if all(r[k] == v for k, v in named.items())]
        found.append(torch.tensor(run["errors"], dtype=torch.float64))
    return torch.stack(found).min(0).values


def of_hope(dt: float, wanted: Tensor) -> Tensor:
    """The least errors (d) that 64 Markov parameters can have."""
    layer = HOPE(64, d_state=64, dt_min=dt, dt_max=dt).double()
    with torch.no_grad():
        layer.h.copy_(torch.eye(64))
        layer.D.zero_()
        basis = layer(impulse(64))[0][0]
    found = torch.linalg.lstsq(basis, wanted).solution
    return (basis @ found - wanted).square().sum(0)


def largest_weight(kind: str, t: int) -> float:
    """max |c_k b_k| of an exact delay; see part 2."""
    mpmath.mp.dps = 80
    angles = [mpmath.pi * (2 * k + 1) / (2 * t) for k in range(t)]
    nodes = {
        "real": [(1 + mpmath.cos(a)) / 2 for a in angles],
        "signed": [mpmath.cos(a) for a in angles],
        "complex": [mpmath.expjpi(mpmath.mpf(2 * k) / t) for k in range(t)],
    }[kind]
    powers = mpmath.matrix([[a**row for a in nodes] for row in range(t)])
    wanted = mpmath.matrix([mpmath.mpf(row == (t - 1) // 2) for row in range(t)])
    return float(max(abs(w) for w in mpmath.lu_solve(powers, wanted)))


def main() -> None:
    args = parser(__doc__)
    args.add_argument("--steps", type=int, default=3000)
    args.add_argument("--seeds", type=int, default=3)
    given = args.parse_args()
    goals = targets()
    wanted = torch.stack(list(goals.values()), dim=1)
    path = Path(__file__).parent / "trained" / "impulse_fit.jsonl"
    runs = Runs(path, ("layer", "rate", "seeds", "steps"))
    rows = {name: of_layer(name, wanted, given.seeds, given.steps, runs) for name in LAYERS}
    rows |= {f"HOPE, dt {dt:g}": of_hope(dt, wanted) for dt in (1.0, 0.5, 0.2)}
    lines = [
        "# Impulse responses of real, signed and complex states", "", machine(), "",
        f"{given.seeds} seeds, {given.steps} steps, learning rates {RATES}. Errors relative to the "
        "target's sum of squares; 1 is an output of zero.", "",
        "Command: `python benchmarks/impulse_fit.py`", "", "## Errors after training", "",
        "| layer | " + " | ".join(goals) + " |", "|--|" + "--:|" * len(goals),
        *(f"| {n} | " + " | ".join(f"{x:.2g}" for x in r.tolist()) + " |" for n, r in rows.items()),
        "", "## Largest weight of an exact delay", "",
        "| modes | " + " | ".join(f"t = {t}" for t in SIZES) + " |", "|--|" + "--:|" * len(SIZES),
        *(
            f"| {k} | " + " | ".join(f"{largest_weight(k, t):.2g}" for t in SIZES) + " |"
            for k in ("real", "signed", "complex")
        ),
    ]  # fmt: skip
    save("impulse_fit", "\n".join(lines))


if __name__ == "__main__":
    main()
