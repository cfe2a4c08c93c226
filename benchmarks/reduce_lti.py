"""Balanced truncation of random linear systems: is the error inside its two-sided bound?

    python benchmarks/reduce_lti.py [--systems 300] [--seed 0] [--slycot PYTHON]

Random stable diagonal systems with complex poles in conjugate pairs and several inputs and outputs
are truncated in both forms (half and real). The error in the H-infinity norm is found in two ways
that share no code: as `error_of` encloses it, and here by a grid of frequencies that is refined
around every peak until it stands still. The bounds are sigma_(r+1) and 2 or 4 times the tail. A
violation is an error beyond a bound by more than one part in 10^6.

--slycot names the Python of an environment with slycot and NumPy. Then SLICOT's AB09AD computes
the Hankel singular values of each system, and AB13DD the norm of each error, as a third opinion.
"""

import json
import math
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from command import parser
from measure import machine, save
from torch import Tensor

from longstate.memory import hankel
from longstate.memory._difference import error_of, minus
from longstate.memory._truncate import by_halves, by_reals
from longstate.systems import DiagonalSystem

SLACK = 1e-6
SLYCOT = """
import json, sys
import numpy as np, slycot
out = []
for case in json.load(open(sys.argv[1])):
    A, B, C, D = (np.array(case[k], dtype=float) for k in "ABCD")
    n, m, p = len(A), B.shape[1], C.shape[0]
    if case["what"] == "hankel":
        found = slycot.ab09ad("D", "B", "N", n, m, p, A, B, C, nr=n)
        out.append(list(map(float, found[5] if len(found) > 5 else found[4])))
    else:
        E = np.eye(n)
        out.append(float(slycot.ab13dd("D", "I", "N", "D", n, m, p, A, E, B, C, D)[0]))
json.dump(out, open(sys.argv[2], "w"))
"""


def random_system(draw: torch.Generator) -> DiagonalSystem:
    """2 to 24 pairs of poles, 1 to 4 inputs and outputs, moduli from 0 to 0.999."""
    n, i, o = (int(torch.randint(*r, (1,), generator=draw)) for r in ((2, 25), (1, 5), (1, 5)))
    gap = 10 ** (-3 * torch.rand(n, generator=draw, dtype=torch.float64))
    angle = math.pi * torch.rand(n, generator=draw, dtype=torch.float64)
    B, C = (torch.randn(*s, generator=draw, dtype=torch.complex128) for s in ((n, i), (o, n)))
    D = torch.randn(o, i, generator=draw, dtype=torch.float64)
    return DiagonalSystem(torch.polar(1 - gap, angle), B, C, D, conjugate=True, discrete=True)


def by_grid(error: DiagonalSystem) -> float:
    """The largest singular value over frequencies: a grid around the poles, then each peak is
    searched again on a finer one."""
    near, width = error.A.angle().abs(), (1 - error.A.abs()).clamp(min=1e-9)
    around = torch.cat([near + k * width for k in np.linspace(-6, 6, 97)])
    w = torch.cat([torch.linspace(0, math.pi, 4001, dtype=torch.float64), around])
    w = w.clamp(0, math.pi).unique()
    value = _sizes(error, w)
    for _ in range(12):
        hill = torch.ones_like(value, dtype=torch.bool)  # no neighbour is higher
        hill[1:] &= value[1:] >= value[:-1]
        hill[:-1] &= value[:-1] >= value[1:]
        best = torch.where(hill, value, 0).argsort(descending=True)[:48]
        gap = torch.maximum(w.diff(prepend=w[:1])[best], w.diff(append=w[-1:])[best])
        fine = (w[best][:, None] + gap[:, None] * torch.linspace(-1, 1, 9).double()).flatten()
        w = torch.cat([w, fine.clamp(0, math.pi)]).unique()
        value = _sizes(error, w)
    return float(value.max())


def _sizes(error: DiagonalSystem, w: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(error.frequency_response(w), 2)


def ask_slycot(python: str, cases: list[dict]) -> list:
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "cases.json", Path(folder) / "found.json"
        given.write_text(json.dumps(cases))
        subprocess.run([python, "-c", SLYCOT, str(given), str(got)], check=True)
        return json.loads(got.read_text())


def case_of(what: str, system: DiagonalSystem) -> dict:
    """In the convention x_{k+1} = A x_k + B u_k, whose response comes a step later: the same norms
    where D is 0."""
    dense = system.to_dense()
    parts = {"A": dense.A, "B": dense.B, "C": dense.C, "D": torch.zeros_like(dense.D)}
    return {"what": what, **{k: v.tolist() for k, v in parts.items()}}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--systems", type=int, default=300)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--slycot")
    arguments = options.parse_args()
    draw = torch.Generator().manual_seed(arguments.seed)
    rows: dict[str, list[dict[str, float]]] = {"half": [], "real": []}
    cases, sigmas, found_errors = [], [], []
    for _ in range(arguments.systems):
        system = random_system(draw)
        n = system.d_state
        m = int(torch.randint(1, n, (1,), generator=draw))
        sigma = hankel(system).values
        cases.append(case_of("hankel", system))
        sigmas.append(sigma)
        for form, make in (("half", by_halves), ("real", by_reals)):
            small = make(system, m)
            error = minus(system, small.system)
            grid, enclosed = by_grid(error), error_of(system, small.system)
            rows[form].append(
                {
                    "least": float(sigma[2 * m]), "bound": float(small.bound), "grid": grid,
                    "low": float(enclosed.low), "high": float(enclosed.high),
                    "condition": float(small.condition), "gain": float(sigma[0]),
                }
            )  # fmt: skip
            cases.append(case_of("error", error))
            found_errors.append((grid, float(enclosed.low), float(enclosed.high)))
    lines = [
        "| form | systems | below sigma_(r+1) | above the bound | grid outside [low, high] | bound "
        "/ error, median | 95 % | condition, median | largest |",
        "|--|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for form, seen in rows.items():
        fine = [r for r in seen if math.isfinite(r["bound"])]
        below = sum(r["grid"] < r["least"] * (1 - SLACK) - 1e-9 * r["gain"] for r in fine)
        above = sum(r["grid"] > r["bound"] * (1 + SLACK) for r in fine)
        outside = sum(
            not r["low"] * (1 - SLACK) <= r["grid"] <= r["high"] * (1 + SLACK) for r in fine
        )
        slack = [r["bound"] / r["grid"] for r in fine]
        conditions = [r["condition"] for r in fine]
        lines.append(
            f"| {form} | {len(fine)} of {len(seen)} | {below} | {above} | {outside} | "
            f"{np.median(slack):.2f} | {np.quantile(slack, 0.95):.2f} | "
            f"{np.median(conditions):.1f} | {max(conditions):.3g} |"
        )
    text = (
        f"# Balanced truncation of random linear systems\n\n{machine()}\n\n"
        f"{arguments.systems} systems, seed {arguments.seed}: 2 to 24 pairs of complex poles of "
        "modulus 0 to 0.999, 1 to 4 inputs and outputs, a random number of pairs kept. Bounds: "
        "sigma_(r+1), and 2 (real) or 4 (half) times the tail. Slack of a comparison: "
        f"{SLACK:g} relative.\n\nCommand: `python benchmarks/reduce_lti.py`\n\n" + "\n".join(lines)
    )
    if arguments.slycot:
        text += "\n\n" + _third(ask_slycot(arguments.slycot, cases), cases, sigmas, found_errors)
    save("reduce_lti", text)


def _third(answers: list, cases: list[dict], sigmas: list[Tensor], known: list[tuple]) -> str:
    values = [a for a, c in zip(answers, cases, strict=True) if c["what"] == "hankel"]
    norms = [a for a, c in zip(answers, cases, strict=True) if c["what"] == "error"]
    off = [
        float((torch.tensor(v, dtype=torch.float64) - s).abs().max() / s[0])
        for v, s in zip(values, sigmas, strict=True)
    ]
    apart = [abs(a - g) / max(g, 1e-300) for a, (g, _, _) in zip(norms, known, strict=True)]
    missed = sum(a < low * (1 - SLACK) for a, (_, low, _) in zip(norms, known, strict=True))
    above = sum(a > high * (1 + SLACK) for a, (_, _, high) in zip(norms, known, strict=True))
    return (
        "SLICOT, through slycot: Hankel singular values differ by at most "
        f"{max(off):.1e} of the largest; norms of the errors from the grid's by a median of "
        f"{np.median(apart):.1e} and at most {max(apart):.1e}, relative. AB13DD is above the "
        f"certified upper bound in {above} of {len(norms)} cases, and below the certified lower "
        f"bound, at a frequency where the gain can be looked up, in {missed}: there its search "
        "missed the peak."
    )


if __name__ == "__main__":
    main()
