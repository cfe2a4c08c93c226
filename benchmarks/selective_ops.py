"""The CPU kernels of the selective layers against the limits of the machine, in the same run.

    python benchmarks/selective_ops.py            threads 1 and 2; about a minute

The shape is a block of mamba-130m: 768 model channels, 1536 inner, 16 states, 1024 steps, batch 1.
Limits: PyTorch's matrix product (GFLOP/s), its copy of an array of the same size as an operand and
of one much larger than the caches (GB/s), and the block's four matrix products, forward and
backward (ms). A kernel's bytes are its operands read once and its results written once; its
operations are the necessary ones: a fused multiply-add counts as two, exp as the 15 of its
polynomial, and recomputed states are included.
"""

import json

import torch
from command import parser
from measure import machine, rounds, save
from torch import Tensor

from longstate.ops import longhorn_scan, selective_scan, short_conv

B, T, D_MODEL, D, N, RANK = 1, 1024, 768, 1536, 16, 48
OPERATIONS = {  # per channel, step and state; forward, backward
    "selective_scan": (20, 36),
    "longhorn_scan, diagonal": (7, 24),
    "longhorn_scan, exact": (6, 22),
}


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_()


def operands(dtype: torch.dtype) -> dict[str, Tensor]:
    """Operands as in a block: x and z are halves of one projection."""
    x, z = randn(B, T, 2 * D, dtype=dtype).detach().chunk(2, dim=-1)
    return {
        "x": x.requires_grad_(),
        "z": z.requires_grad_(),
        "u": randn(B, T, D, dtype=dtype),
        "dt": randn(B, T, D, dtype=dtype),
        "B": randn(B, T, N, dtype=dtype),
        "C": randn(B, T, N, dtype=dtype),
        "A": (-torch.arange(1.0, N + 1).repeat(D, 1)).requires_grad_(),
        "D": torch.ones(D, requires_grad=True),
        "bias": torch.full((D,), -4.0, requires_grad=True),
        "taps": randn(D, 4),
    }


def ops(p: dict[str, Tensor]):
    """Name, forward, and the tensors whose gradients are computed."""
    scan = [p[k] for k in ("u", "dt", "B", "C", "D", "z", "bias")]
    yield (
        "short_conv + SiLU",
        lambda: short_conv(p["x"], p["taps"], p["bias"], activation="silu")[0],
        [p["x"], p["taps"], p["bias"]],
    )
    yield (
        "selective_scan",
        lambda: selective_scan(
            p["u"], p["dt"], p["A"], p["B"], p["C"], p["D"], p["z"],
            dt_bias=p["bias"], dt_softplus=True,
        )[0],
        [*scan, p["A"]],
    )  # fmt: skip
    for update in ("diagonal", "exact"):
        yield (
            f"longhorn_scan, {update}",
            lambda update=update: longhorn_scan(
                p["u"], p["dt"], p["B"], p["C"], p["D"], p["z"],
                beta_bias=p["bias"], beta_sigmoid=True, update=update,
            )[0],
            scan,
        )  # fmt: skip


def block_products():
    """The four matrix products of a block: forward, and forward with backward."""
    shapes = ((D_MODEL, 2 * D), (D, RANK + 2 * N), (RANK, D), (D, D_MODEL))
    pairs = [(randn(T, i), randn(o, i), torch.randn(T, o)) for i, o in shapes]

    def forward():
        with torch.no_grad():
            for a, w, _ in pairs:
                a @ w.T

    def both():
        for a, w, g in pairs:
            torch.autograd.grad(a @ w.T, (a, w), g)

    return forward, both


def limits() -> dict[str, float]:
    square = torch.randn(1536, 1536)
    small, large = torch.randn(B, T, D), torch.randn(64 * 2**20)
    to_small, to_large = torch.empty_like(small), torch.empty_like(large)
    forward, both = block_products()
    times = rounds(
        {
            "product": lambda: square @ square,
            "small": lambda: to_small.copy_(small),
            "large": lambda: to_large.copy_(large),
            "block forward": forward,
            "block both": both,
        },
        repeats=9,
    )
    best = {name: min(values) for name, values in times.items()}
    return {
        "GFLOP/s": 2 * 1536**3 / best["product"] / 1e9,
        "GB/s in cache": 8 * small.numel() / best["small"] / 1e9,
        "GB/s": 8 * large.numel() / best["large"] / 1e9,
        "block forward ms": 1e3 * best["block forward"],
        "block both ms": 1e3 * best["block both"],
    }


def measure(dtype: torch.dtype) -> list[dict]:
    p, lines = operands(dtype), []
    for name, forward, leaves in ops(p):
        y = forward()
        g = torch.randn_like(y)

        def without_gradient(forward=forward):
            with torch.no_grad():
                forward()

        def backward(y=y, leaves=leaves, g=g):
            torch.autograd.grad(y, leaves, g, retain_graph=True)

        times = rounds({"forward": without_gradient, "backward": backward}, repeats=25)
        size = sum(x.numel() * x.element_size() for x in leaves)
        moved = {"forward": size + y.nbytes, "backward": 2 * size + y.nbytes}
        for way, which in (("forward", 0), ("backward", 1)):
            seconds = min(times[way])
            count = OPERATIONS.get(name, (0, 0))[which] * B * T * D * N
            lines.append(
                {
                    "op": name, "way": way, "dtype": str(dtype).removeprefix("torch."),
                    "threads": torch.get_num_threads(), "ms": 1e3 * seconds,
                    "median ms": 1e3 * sorted(times[way])[len(times[way]) // 2],
                    "GB/s": moved[way] / seconds / 1e9, "GFLOP/s": count / seconds / 1e9,
                }
            )  # fmt: skip
    return lines


def main() -> None:
    parser(__doc__).parse_args()
    torch.manual_seed(0)
    text, every = ["# The selective family's CPU kernels", ""], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        limit = limits()
        text += [machine(), "", "Limits: " + ", ".join(f"{k} {v:.1f}" for k, v in limit.items())]
        text += [
            "",
            "| op | way | dtype | ms (median) | of the block's products | GB/s | GFLOP/s |",
        ]
        text += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for dtype in (torch.float32, torch.bfloat16):
            for line in measure(dtype):
                share = "block forward ms" if line["way"] == "forward" else "block both ms"
                text.append(
                    f"| {line['op']} | {line['way']} | {line['dtype']} "
                    f"| {line['ms']:.2f} ({line['median ms']:.2f}) "
                    f"| {line['ms'] / limit[share]:.1%} "
                    f"| {line['GB/s']:.1f} ({line['GB/s'] / limit['GB/s']:.0%}) "
                    f"| {line['GFLOP/s']:.0f} ({line['GFLOP/s'] / limit['GFLOP/s']:.0%}) |"
                )
                every.append(line | {"limits": limit})
        text.append("")
    save("selective_ops", "\n".join([*text, json.dumps(every)]))


if __name__ == "__main__":
    main()
