"""One selective layer at the mamba-130m shape, against its own matrix products.

    python benchmarks/mamba_block.py            d_model 768, expand 2, d_state 16, length 1024

The limit of such a layer is the time of its four projections (Mamba-2 and Mamba-3: two, and the
products inside the chunks, see chunk_scan.py). Each layer is first compared with its recurrence in
float64.
"""

import torch
from command import parser
from measure import machine, ms, ratio, rounds, save

from longstate.layers import Longhorn, Mamba

LENGTH, D_MODEL = 1024, 768


def products(layer, u):
    """Forward and backward of the projections alone, on inputs of the same shapes."""
    pairs = []
    for name in ("in_proj", "x_proj", "dt_proj", "dt_head", "out_proj"):
        linear = getattr(layer, name, None)
        if linear is not None:
            x = torch.randn(u.shape[1], linear.in_features)
            g = torch.randn(u.shape[1], linear.out_features)
            pairs.append((x, linear.weight.detach(), g))

    def forward():
        return [x @ w.T for x, w, _ in pairs]

    def both():
        return [(x @ w.T, g @ w, g.T @ x) for x, w, g in pairs]

    return forward, both


def compare(label, layer) -> list[str]:
    u = torch.randn(1, LENGTH, D_MODEL)
    with torch.no_grad():
        short = u[:, :64]
        exact = layer.double()(short.double())[0]
        error = (layer.float()(short)[0] - exact).abs().max() / exact.abs().max()
    assert error < 1e-5, f"{label}: float32 differs from float64 by {error}"
    g = torch.randn_like(u)
    u.requires_grad_()
    wanted = [u, *layer.parameters()]

    def forward():
        with torch.no_grad():
            return layer(u)

    def both():
        return torch.autograd.grad(layer(u)[0], wanted, g)

    forward_limit, both_limit = products(layer, u)
    times = rounds(
        {"forward": forward, "limit": forward_limit, "both": both, "both limit": both_limit},
        repeats=11,
    )
    return [
        f"| {label} | {ms(times['forward'])} | {ratio(times['forward'], times['limit'])} | "
        f"{ms(times['both'])} | {ratio(times['both'], times['both limit'])} |"
    ]


def main() -> None:
    parser(__doc__).parse_args()
    lines = [
        "# Selective layers against their own matrix products",
        "",
        f"Batch 1, length {LENGTH}, d_model {D_MODEL}, expand 2, d_state 16, float32.",
        "Command: `python benchmarks/mamba_block.py`. Ratios are medians within rounds, with the",
        "middle half of them; 1 would be the matrix products alone.",
        "",
        machine(),
    ]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        lines += [
            "",
            f"## Threads: {threads}",
            "",
            "| layer | forward, ms | ratio | forward and backward, ms | ratio |",
            "| --- | --- | --- | --- | --- |",
        ]
        torch.manual_seed(0)
        lines += compare("Mamba", Mamba(D_MODEL))
        lines += compare("Longhorn, diagonal", Longhorn(D_MODEL))
        lines += compare("Longhorn, exact", Longhorn(D_MODEL, variant="exact"))
    save("mamba_block", "\n".join(lines))


if __name__ == "__main__":
    main()
