"""Mamba-2's scan and layer against their own matrix products, in one run.

    python benchmarks/chunk_scan.py           one thread and two; two minutes

At the shape of mamba2-130m (d_model 768, 24 heads of 64, length 1024), forward and backward:
1. chunk_scan against its matrix products alone, at the same sizes: four inside the chunks, seven
   for the state, and the four small ones of B and C. The recomputation of C B^T in the backward
   pass is not included in the products.
2. The layers against these products and those of the projections. The goal for Mamba-2 is at most
   twice their time.
3. Peak memory of the scan beyond its inputs, in units of x.
"""

import json

import torch
from command import parser
from measure import machine, ms, peak_mib, ratio, rounds, save

from longstate.layers import Mamba2, Mamba3
from longstate.ops.chunk_scan import CHUNK, chunk_scan

T, HEADS, P, D_MODEL = 1024, 24, 64, 768

MEMORY = """
import torch
from longstate.ops.chunk_scan import chunk_scan
def prepare(small):
    t = 64 if small else {t}
    g = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(1, t, *shape, generator=g)
    v = [make({h}, {p}), -make({h}).abs(), make(1, {n}), make(1, {n})]
    return [x.requires_grad_() for x in v], make({h}, {p})
def work(data):
    v, g = data
    torch.autograd.grad(chunk_scan(*v)[0], v, g)
"""


def inputs(n: int, t: int = T) -> dict[str, torch.Tensor]:
    """Views into one convolved projection, as in the layer."""
    generator = torch.Generator().manual_seed(0)
    convolved = torch.randn(1, t, HEADS * P + 2 * n, generator=generator)
    x, B, C = convolved.split([HEADS * P, n, n], -1)
    step = torch.rand(1, t, HEADS, generator=generator) * 0.1
    tensors = {
        "x": x.view(1, t, HEADS, P), "log_a": -step, "B": B[:, :, None], "C": C[:, :, None],
        "weight": step, "D": torch.ones(HEADS),
    }  # fmt: skip
    return {name: v.detach().requires_grad_() for name, v in tensors.items()}


def scan(v, g, impl="auto"):
    y, _ = chunk_scan(**v, impl=impl)
    return (y, *torch.autograd.grad(y, list(v.values()), g))


def compare_with_loop(n: int) -> None:
    v = inputs(n, t=150)
    g = torch.randn(v["x"].shape, generator=torch.Generator().manual_seed(1))
    for name, a, b in zip(("y", *v), scan(v, g), scan(v, g, "reference"), strict=True):
        error = ((a - b).abs().max() / b.abs().max()).item()
        assert error < 1e-5, f"{name} differs from the loop by {error}"


def scan_products(n: int, heads_apart: bool = False):
    """The products of one chunk, once for each chunk: forward, then backward."""
    groups = HEADS if heads_apart else 1
    q, k = HEADS * P // groups, CHUNK
    B, C = torch.randn(2, groups, k, n)
    M, x = torch.randn(HEADS, k, k), torch.randn(HEADS, k, P)
    wide, h, CB = torch.randn(groups, k, q), torch.randn(groups, q, n), torch.randn(groups, k, k)

    def run():
        for _ in range(T // k):
            torch.bmm(C, B.mT), torch.bmm(M, x), torch.bmm(wide.mT, B), torch.bmm(C, h.mT)
        for _ in range(T // k):
            torch.bmm(x, x.mT), torch.bmm(M.mT, x), torch.bmm(wide.mT, C), torch.bmm(B, h.mT)
            torch.bmm(wide, h), torch.bmm(wide, h), torch.bmm(CB, B), torch.bmm(CB.mT, C)

    return run


def projections(layer):
    pairs = []
    for linear in (layer.in_proj, layer.out_proj):
        u = torch.randn(1, T, linear.in_features, requires_grad=True)
        pairs.append((linear, u, torch.randn(1, T, linear.out_features)))

    def run():
        for linear, u, g in pairs:
            torch.autograd.grad(linear(u), (u, linear.weight), g)

    return run


def row(name: str, n: int, whole, products) -> str:
    def alone():
        for run in products:
            run()

    times = rounds({"whole": whole, "products": alone})
    return (
        f"| {name} | {n} | {ms(times['whole'])} | {ms(times['products'])} | "
        f"{ratio(times['whole'], times['products'])} |"
    )


def compare_with_float64(layer) -> None:
    u = torch.randn(1, 150, D_MODEL)
    with torch.no_grad():
        exact = layer.double()(u.double())[0]
        error = ((layer.float()(u)[0] - exact).abs().max() / exact.abs().max()).item()
    assert error < 1e-5, f"{type(layer).__name__}: float32 differs from float64 by {error}"


def rows(n: int) -> list[str]:
    """The scan and the layers with n states."""
    v = inputs(n)
    g = torch.randn(v["x"].shape)
    lines = [row("chunk_scan", n, lambda: scan(v, g), [scan_products(n)])]
    for make in (Mamba2, Mamba3):
        layer = make(D_MODEL, d_state=n, d_head=P)
        compare_with_float64(layer)
        u, g = torch.randn(1, T, D_MODEL, requires_grad=True), torch.randn(1, T, D_MODEL)

        def whole(layer=layer, u=u, g=g):
            torch.autograd.grad(layer(u)[0], [u, *layer.parameters()], g)

        products = [projections(layer), scan_products(n, heads_apart=make is Mamba3)]
        lines.append(row(make.__name__, n, whole, products))
    return lines


def main() -> None:
    parser(__doc__).parse_args()
    torch.manual_seed(0)
    lines = ["# chunk_scan, Mamba-2 and Mamba-3 against their own matrix products"]
    lines += ["", "Forward and backward, length 1024, float32.", "", machine()]
    for n in (128, 64):
        compare_with_loop(n)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        lines += ["", f"## Threads: {threads}", ""]
        lines += ["| | d_state | whole, ms | products, ms | ratio |", "|---|---|---|---|---|"]
        for n in (128, 64):
            lines += rows(n)
    lines += ["", "| d_state | peak memory of chunk_scan / size of x |", "|---|---|"]
    for n in (128, 64):
        t = 16 * T
        peak = peak_mib(MEMORY.format(t=t, h=HEADS, p=P, n=n))
        lines.append(f"| {n} | {peak * 2**20 / (4 * t * HEADS * P):.1f} |")
    print(json.dumps({"result": str(save("chunk_scan", "\n".join(lines)))}))


if __name__ == "__main__":
    main()
