"""Speed and memory of the time-invariant layers, compared with peers and with their limits.

    python benchmarks/lti_speed.py            needs `pip install jax` beside longstate

1. diagonal_scan, complex64, forward and backward, (8, 4096, 256), against jax.lax.associative_scan
   (jitted) and a PyTorch loop. Its limit is memory: it must read a, x, h, dh and write h, da, dx.
2. The S4D layer, forward and backward, (8, 16384, 64), 64 states, against the Fourier transforms
   that the same layer would need as a convolution.
3. Irregular against regular time, through S5 and LinOSS.
"""

import json
import warnings

import numpy as np
import torch
from command import parser
from measure import machine, ms, peak_mib, ratio, rounds, save

from longstate.layers import S4D, S5, LinOSS
from longstate.ops import diagonal_scan

warnings.filterwarnings("ignore", message="Casting complex")


def scan_inputs(b=8, t=4096, n=256):
    generator = torch.Generator().manual_seed(0)
    make = lambda: torch.randn(b, t, n, dtype=torch.complex64, generator=generator)  # noqa: E731
    a, x, g = make(), make(), make()
    a = 0.99 * a / a.abs()
    return a.requires_grad_(), x.requires_grad_(), g


def scan_ours(a, x, g):
    return torch.autograd.grad(diagonal_scan(x, a)[0], (a, x), g)


def scan_loop(a, x, g):
    h, states = torch.zeros_like(x[:, 0]), []
    for a_t, x_t in zip(a.unbind(1), x.unbind(1), strict=True):
        h = a_t * h + x_t
        states.append(h)
    return torch.autograd.grad(torch.stack(states, 1), (a, x), g)


def scan_jax():
    import jax
    import jax.numpy as jnp

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    def states(a, x):
        return jax.lax.associative_scan(combine, (a, x), axis=1)[1]

    @jax.jit
    def gradients(a, x, g):
        _, pull = jax.vjp(states, a, x)
        # jax's gradient of a complex function is the conjugate of PyTorch's
        return tuple(jnp.conj(v) for v in pull(jnp.conj(g)))

    def run(a, x, g):
        return jax.block_until_ready(
            gradients(*(jnp.asarray(v.detach().numpy()) for v in (a, x, g)))
        )

    return run


def compare_scans() -> list[str]:
    a, x, g = scan_inputs()
    jax_run = scan_jax()
    ours = scan_ours(a, x, g)
    for name, other in (("loop", scan_loop(a, x, g)), ("jax", jax_run(a, x, g))):
        for mine, theirs in zip(ours, other, strict=True):
            difference = (mine - torch.tensor(np.asarray(theirs))).abs().max()
            scale = mine.abs().max()
            assert difference < 1e-4 * scale, f"{name} differs by {difference / scale}"
    times = rounds(
        {
            "longstate": lambda: scan_ours(a, x, g),
            "jax": lambda: jax_run(a, x, g),
            "loop": lambda: scan_loop(a, x, g),
            "copy": lambda: torch.clone(x.detach()),
        },
        repeats=15,
    )
    memory = peak_mib(
        "import sys; sys.path.insert(0, 'benchmarks')\n"
        "from lti_speed import scan_inputs, scan_ours\n"
        "def prepare(small): return scan_inputs(2, 8, 256) if small else scan_inputs()\n"
        "def work(data): scan_ours(*data)\n"
    )
    size = x.numel() * 8 / 2**20
    traffic = 10 / 2  # units of one array: a copy moves 2, forward 3 and backward 5 + 2 for zeroing
    limit = [traffic * t for t in times["copy"]]
    return [
        "## diagonal_scan, complex64, (8, 4096, 256), forward and backward",
        "",
        "| | ms | time of longstate's |",
        "| --- | --- | --- |",
        f"| longstate | {ms(times['longstate'])} | 1 |",
        *(
            f"| {label} | {ms(other)} | {ratio(other, times['longstate'])} |"
            for label, other in (
                ("jax.lax.associative_scan", times["jax"]),
                ("PyTorch loop", times["loop"]),
                ("moving its arrays (5 copies)", limit),
            )
        ),
        "",
        f"Peak memory beyond a, x and dh: {memory:.0f} MiB, {memory / size:.1f} x the input x"
        f" ({memory / size / 2:.1f} x the inputs a and x).",
        "",
    ]


def compare_s4d() -> list[str]:
    torch.manual_seed(0)
    layer = S4D(64, d_state=64)
    u = torch.randn(8, 16384, 64, requires_grad=True)
    g = torch.randn_like(u)
    parameters = [u, *layer.parameters()]

    def run():
        return torch.autograd.grad(layer(u)[0], parameters, g)

    signal, size = u.detach().mT.contiguous(), 2 * 16384
    spectrum = torch.fft.rfft(signal, n=size)
    kernel = torch.randn(64, 16384)

    def transforms():
        # forward: the input, the kernel, back; backward: the output's gradient, and to both inputs
        torch.fft.rfft(signal, n=size)
        torch.fft.rfft(kernel, n=size)
        torch.fft.irfft(spectrum, n=size)
        torch.fft.rfft(signal, n=size)
        torch.fft.irfft(spectrum, n=size)
        torch.fft.irfft(spectrum[0], n=size)

    convolve_agrees(layer)
    times = rounds({"layer": run, "transforms": transforms}, repeats=15)
    return [
        "## S4D layer, (8, 16384, 64), 64 states, forward and backward",
        "",
        "| | ms | ratio |",
        "| --- | --- | --- |",
        f"| layer, with its state and all gradients | {ms(times['layer'])} | "
        f"{ratio(times['layer'], times['transforms'])} |",
        f"| the Fourier transforms of a convolution alone | {ms(times['transforms'])} | 1 |",
        "",
    ]


def convolve_agrees(layer):
    u = torch.randn(1, 16384, 64)
    with torch.no_grad():
        kernel = layer.double().system().impulse_response(16384)[..., 0, 0]
        layer.float()
        size = 2 * u.shape[1]
        product = torch.fft.rfft(u.double().mT, size) * torch.fft.rfft(kernel, size)
        expected = torch.fft.irfft(product, size)[..., : u.shape[1]].mT
        error = (layer(u)[0] - expected).abs().max() / expected.abs().max()
    assert error < 1e-4, f"layer and convolution differ by {error}"


def irregular_code(name: str, irregular: bool) -> str:
    return f"""
import torch
from longstate.layers import S5, LinOSS
torch.manual_seed(0)
layer = {name}(64, d_state=128)
def prepare(small):
    b, t = (2, 16) if small else (8, 4096)
    return torch.randn(b, t, 64, requires_grad=True), torch.rand(b, t) + 0.5
def work(data):
    u, dt = data
    layer(u, dt=dt if {irregular} else None)[0].square().sum().backward()
"""


def compare_irregular() -> list[str]:
    lines = [
        "## Irregular against regular time, (8, 4096, 64), 128 states, forward and backward",
        "",
        "| layer | regular, ms | irregular, ms | ratio | regular, MiB | irregular, MiB | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for make in (S5, LinOSS):
        torch.manual_seed(0)
        layer = make(64, d_state=128)
        u = torch.randn(8, 4096, 64, requires_grad=True)
        dt, ones = torch.rand(8, 4096) + 0.5, torch.ones(8, 4096)
        difference = (layer(u, dt=ones)[0] - layer(u)[0]).abs().max()
        assert difference < 1e-4, f"dt = 1 differs by {difference}"

        def run(dt, layer=layer, u=u):
            torch.autograd.grad(layer(u, dt=dt)[0].square().sum(), [u, *layer.parameters()])

        times = rounds(
            {"regular": lambda run=run: run(None), "irregular": lambda run=run, dt=dt: run(dt)},
            repeats=9,
        )
        name = make.__name__
        even, uneven = (peak_mib(irregular_code(name, i)) for i in (False, True))
        lines.append(
            f"| {name} | {ms(times['regular'])} | {ms(times['irregular'])} | "
            f"{ratio(times['irregular'], times['regular'])} | {even:.0f} | {uneven:.0f} | "
            f"{uneven / even:.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser(__doc__).parse_args()
    lines = [
        "# Speed of the time-invariant family",
        "",
        "Command: `python benchmarks/lti_speed.py`. Outputs were compared first. Times are",
        "medians; ratios are medians within rounds, with the middle half of them.",
        "",
        machine(),
        "",
        *compare_scans(),
        *compare_s4d(),
        *compare_irregular(),
    ]
    print(json.dumps({"result": str(save("lti_speed", "\n".join(lines)))}))


if __name__ == "__main__":
    main()
