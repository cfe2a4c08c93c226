"""Peak memory of a Mamba block, forward and backward, beyond what its matrix products need.

    python benchmarks/selective_memory.py     needs `pip install mambapy transformers`; ten minutes

The unit is one tensor (b, t, d_inner) in float32, at the shape of mamba-130m: d_model 768, d_inner
1536, d_state 16, length 1024, batch 1. Inputs, parameters and the gradient of the output exist
before and are not counted.

Matrix-product buffers are the inputs and outputs of the four products and the gradients of all of
them, weights included. `products` below is a block with these alone: each buffer is created when
its product or its source needs it, written once, and freed after its last use, including uses
between the products (the convolution's backward still reads the output of in_proj). Nothing is
created early, and nothing is kept that is not an input or an output of a product. Its peak is
subtracted.

There are three measurements. Tracked: the memory of PyTorch's allocator, from the profiler, with a
list of its contents. Resident: growth of the peak of a new process, median of three. It is larger
than tracked for two reasons: memory that the matrix library and the kernels allocate themselves,
and freed memory that malloc has not returned and that could not be used again. So the third
measurement is resident with malloc (glibc) set to give every tensor its own pages, which contains
only the first part. From each the peak of the products alone, measured in the same way, is
subtracted.
"""

import json
import os
import statistics
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import torch
from command import parser, peers
from measure import machine, peak_mib, save
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from longstate.layers import Mamba

with peers(__name__, __doc__, "mambapy transformers"):
    from selective_peers import (
        BOUND,
        alone_with_transformers,
        both_ways,
        largest_difference,
        mambapy_block,
        transformers_mixer,
    )

T, D_MODEL = 1024, 768
_OWN_PAGES = "MALLOC_MMAP_THRESHOLD_"
PEERS = ("mambapy", "transformers, use_mambapy", "transformers, loop over time")


def case(name: str):
    """`work(u, g)`: forward and backward of one block, in the input and all parameters."""
    torch.manual_seed(0)
    layer = block = Mamba(D_MODEL)
    if name == "products":
        return lambda u, g: products(layer, u, g)
    if name == "mambapy":
        block = mambapy_block(layer)
    elif name != "longstate":
        block = transformers_mixer(layer, name.endswith("use_mambapy"))
    return lambda u, g: both_ways(block, u, g)()


def inputs(t: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, t, D_MODEL, requires_grad=True), torch.randn(batch, t, D_MODEL)


def products(layer: Mamba, u: Tensor, g: Tensor) -> list[Tensor]:
    """The block's products and their gradients; ones replace the results of the other ops."""
    inner, rank, length = layer.d_inner, layer.rank, u.shape[0] * u.shape[1]
    W_in, W_x, W_dt, W_out = (
        getattr(layer, name).weight.detach()
        for name in ("in_proj", "x_proj", "dt_proj", "out_proj")
    )
    u, g = u.detach().flatten(0, 1), g.flatten(0, 1)
    xz = u @ W_in.T
    x = u.new_ones(length, inner)  # from the convolution
    steering = x @ W_x.T
    step = steering[:, :rank] @ W_dt.T
    y = u.new_ones(length, inner)  # from the scan
    out = y @ W_out.T
    grads = [g.T @ y]
    grad_y = g @ W_out
    del y
    grad_step, grad_x, grad_z = (u.new_ones(length, inner) for _ in range(3))  # from the scan
    del grad_y, step
    grad_steering = torch.ones_like(steering)
    grads.append(grad_step.T @ steering[:, :rank])
    grad_steering[:, :rank] = grad_step @ W_dt
    del grad_step, steering
    grads.append(grad_steering.T @ x)
    grad_x.addmm_(grad_steering, W_x)
    del x, grad_steering
    grad_xz = torch.ones_like(xz)  # from the convolution, and the scan's half beside it
    del xz, grad_x, grad_z
    return [out, *grads, grad_xz.T @ u, grad_xz @ W_in]


def unit(batch: int) -> int:
    """Bytes."""
    return 4 * batch * T * 2 * D_MODEL


def resident(name: str, batch: int, own_pages: bool = False) -> float:
    """Growth of the process's peak, in units."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch, selective_memory\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        f"run = selective_memory.case({name!r})\n"
        "def work(data): run(*data)\n"
        f"def prepare(small): return selective_memory.inputs(32 if small else {T}, {batch})\n"
    )
    if own_pages:
        os.environ[_OWN_PAGES] = "65536"
    try:
        repeats = 1 if "loop" in name else 3  # the loop takes minutes
        mib = statistics.median(peak_mib(code) for _ in range(repeats))
    finally:
        os.environ.pop(_OWN_PAGES, None)
    return mib * 2**20 / unit(batch)


def tracked(name: str, batch: int) -> tuple[float, Counter[tuple[str, float]]]:
    """The peak in units, and its contents: number of buffers by source and size."""
    work, data = case(name), inputs(T, batch)
    work(*inputs(32))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work(*data)
    live: dict[int, tuple[str, int]] = {}
    then: list[tuple[str, int]] = []
    now = peak = 0
    for address, size, op in allocations(recorded):
        if size > 0:
            live[address] = op, size
            now += size
        elif address in live:  # otherwise it was allocated before
            now -= live.pop(address)[1]
        if now > peak:
            peak, then = now, list(live.values())
    return peak / unit(batch), Counter((op, size / unit(batch)) for op, size in then)


def allocations(recorded: profile) -> list[tuple[int, int, str]]:
    """Address, size (negative: freed) and source, in order of time."""
    found = []
    waiting = [(e, ()) for e in recorded.profiler.kineto_results.experimental_event_tree()]
    while waiting:
        event, above = waiting.pop()
        if event.tag == torch._C._profiler._EventType.Allocation:
            fields = event.extra_fields
            found.append((event.start_time_ns, fields.ptr, fields.alloc_size, maker(above)))
        waiting += [(below, (*above, event.name)) for below in event.children]
    return [(address, size, op) for _, address, size, op in sorted(found)]


def maker(above: tuple[str, ...]) -> str:
    """The op that allocated it: an op of longstate, a product, or another one."""
    known = [x for x in above if x.startswith("longstate::") or x in ("aten::mm", "aten::addmm")]
    op = (known or [x for x in above if x.startswith("aten::")] or ["?"])[0]
    back = any("autograd::engine" in x for x in above) and not op.endswith("_backward")
    return op + (", on the way back" if back else "")


def compare_first() -> None:
    data = inputs(64)
    for name in PEERS:
        ours, theirs = (lambda name=name: case(name)(*data) for name in ("longstate", name))
        error = largest_difference(ours, theirs)
        assert error < BOUND, f"{name} differs by {error}"


def table(batch: int, names: tuple[str, ...]) -> list[str]:
    lines = [
        "",
        f"## Batch {batch}: a unit is {unit(batch) / 2**20:.0f} MiB",
        "",
        "| block | tracked | beyond products | resident | beyond products | own pages | beyond |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    alone: list[float] = []
    for name in ("products", "longstate", *names):
        held, buffers = tracked(name, batch)
        peaks = [held, resident(name, batch)]
        if name not in PEERS:
            peaks.append(resident(name, batch, own_pages=True))
        alone = alone or peaks
        cells = [f"{peak:.1f} | {peak - a:.1f}" for peak, a in zip(peaks, alone, strict=False)]
        lines.append(f"| {name} | {' | '.join(cells)} |" + " | |" * (name in PEERS))
        if name == "longstate":
            ours = buffers
    lines += [
        "",
        "What PyTorch held at longstate's peak:",
        "",
        "| made by | units |",
        "| --- | --- |",
    ]
    for (name, size), count in sorted(ours.items(), key=lambda x: -x[0][1] * x[1]):
        if size * count >= 0.1:
            lines.append(f"| {name} | {size:.2f}{f' x {count}' if count > 1 else ''} |")
    small = sum(size * count for (_, size), count in ours.items() if size * count < 0.1)
    return [*lines, f"| small ones | {small:.2f} |"]


def main() -> None:
    parser(__doc__).parse_args()
    alone_with_transformers()
    compare_first()
    torch.set_num_threads(2)
    lines = [
        "# Peak memory of a Mamba block, forward and backward",
        "",
        f"In tensors (b, t, d_inner) of float32; d_model {D_MODEL}, d_state 16, length {T}.",
        "Command: `python benchmarks/selective_memory.py`, which says what counts and what is",
        "measured. Goal: at most 3 beyond inputs, parameters and matrix-product buffers.",
        "",
        f"{machine()}; mambapy {version('mambapy')}, transformers {version('transformers')}",
        *table(1, PEERS),
        *table(8, ()),
    ]
    print(json.dumps({"result": str(save("selective_memory", "\n".join(lines)))}))


if __name__ == "__main__":
    main()
