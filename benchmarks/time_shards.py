"""Time of a sequence cut along time over ranks, with simulated work and a simulated network.

    python benchmarks/time_shards.py     two minutes

Four processes run the code of `longstate.parallel` and its messages (gloo). Layers do no work: they
sleep for the time of their samples, forward and backward, so that other load and the number of
cores do not matter; and every message is late by a latency and by its bytes at a bandwidth.

Ideal is the time of one process divided by the ranks. The predictions, for L layers, m
micro-batches and R ranks, where one layer takes w on one rank for all rows:

    pipeline    L w + (R - 1) w / m, and R - 1 messages forward and R - 1 backward
    prefix      2 L w, and log2(R) + 1 messages forward and as many backward
    selective   (1 + s) L w, and the same messages; s is the share of the scan in a layer, which
                alone runs twice

The number of messages does not depend on L: no rank waits for a rank to its right, so that a rank
that is late by some messages in one layer is as late in the next one, and finds them there.

The share s is measured on selective layers as they are, in one process and in its processor time:
the time of a layer with the scans of `longstate.parallel` over the time without, less 1.
"""

import copy
import math
import tempfile
import time
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from command import parser
from measure import machine, save
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from longstate.layers import S4D, GatedSSM, Layer, Longhorn, Mamba, Mamba2, Mamba3
from longstate.parallel import _scans, _shards, shard_time
from longstate.parallel._line import Line

RANKS, ROWS, SAMPLES, CHANNELS = 4, 4, 64, 8
SHARE = 0.2  # of the scan in a selective layer
WIDTH, LENGTH = 1024, 1024  # of the layers that are measured
PER_ROW = 0.1  # seconds of one layer's forward pass for one row of the whole sequence
REPEATS = 3


class Network(NamedTuple):
    latency: float  # seconds
    bandwidth: float  # bytes per second

    def seconds(self, size: int) -> float:
        return self.latency + size / self.bandwidth


NETWORKS = {
    "none": Network(0.0, math.inf),
    "1 ms, 1 GB/s": Network(1e-3, 1e9),
    "5 ms, 100 kB/s": Network(5e-3, 1e5),
}


class SlowLine(Line):
    """Messages that arrive late. Each says when it was sent."""

    network = NETWORKS["none"]

    def put(self, tensors, by):
        now = torch.tensor([time.time()], dtype=torch.float64)
        super().put([*tensors, now], by)

    def take(self, like, by):
        *found, sent = super().take([*like, torch.zeros(1, dtype=torch.float64)], by)
        size = sum(x.numel() * x.element_size() for x in like)
        arrives = float(sent) + self.network.seconds(size) if float(sent) else 0.0
        time.sleep(max(0.0, arrives - time.time()))
        return found


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, seconds, *tensors):
        ctx.seconds = seconds
        time.sleep(seconds)
        return tuple(x.view_as(x) for x in tensors)

    @staticmethod
    def backward(ctx, *grads):
        time.sleep(2 * ctx.seconds)  # a backward pass is about two forward passes
        return None, *grads


def work(u, state, share=1.0):
    """The time of one pass, without the work."""
    return _Sleep.apply(share * PER_ROW * u.shape[0] * u.shape[1] / SAMPLES, u, state)


class Passing(Layer):
    """A layer whose state is neither linear nor attention: it is passed on."""

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model, self.D = d_model, nn.Parameter(torch.ones(d_model))

    def init_state(self, batch):
        return self.D.new_zeros(batch, 16)

    def forward(self, u, state=None, **options):
        y, state = work(u, state)
        return y * self.D, state


class Linear(S4D):
    """A layer with a prefix."""

    def __init__(self, d_model: int):
        super().__init__(d_model, d_state=16)

    def forward(self, u, state=None, **options):
        y, state = work(u, state)
        return y * self.D, state


def slow_scan(x, A, h0=None, *, mask=None, reset=None):
    return work(x, h0, SHARE)


class Selective(GatedSSM):
    """A layer whose scan alone runs again."""

    def __init__(self, d_model: int):
        super().__init__(d_model, d_state=64)
        self.scans = {"ssm": slow_scan}

    def forward(self, u, state=None, **options):
        state = self.init_state(len(u)) if state is None else state
        u, h0 = work(u, state["ssm"], 1 - SHARE)
        y, last = self.scans["ssm"](u, self.D, h0[..., 0])
        return y * self.D, {"ssm": last[..., None]}


def scan_before(call, line):
    """As for any scan, but without the third run that finds M."""
    s = _scans._state(slow_scan, call)
    return _scans._elementwise(line, torch.ones_like(s), s)


class Layers(nn.Module):
    def __init__(self, kind, count):
        super().__init__()
        self.layers = nn.ModuleList(kind(CHANNELS) for _ in range(count))

    def forward(self, u):
        for layer in self.layers:
            u = layer(u)[0]
        return u


class Case(NamedTuple):
    name: str
    kind: type
    layers: int
    parts: int


CASES = (
    Case("pipeline, 1 layer", Passing, 1, 1),
    Case("pipeline, 4 layers", Passing, 4, 1),
    Case("pipeline, 4 layers, 4 micro-batches", Passing, 4, 4),
    Case("prefix, 4 layers", Linear, 4, 1),
    Case("selective, 4 layers", Selective, 4, 1),
)


def measured(rank, size, results):
    _shards.Line = SlowLine
    _scans._BEFORE[slow_scan] = scan_before
    mesh = init_device_mesh("cpu", (size,))
    for label, network in NETWORKS.items():
        SlowLine.network = network
        for case in CASES:
            torch.manual_seed(0)
            model = shard_time(Layers(case.kind, case.layers), mesh, micro_batches=case.parts)
            times = []
            for _ in range(REPEATS + 1):
                u = torch.randn(ROWS, SAMPLES // size, CHANNELS, requires_grad=True)
                dist.barrier()
                began = time.perf_counter()
                model(u).sum().backward()
                dist.barrier()
                times.append(time.perf_counter() - began)
            if rank == 0:
                results[label, case.name] = sorted(times[1:])[REPEATS // 2]


def predicted(case: Case, network: Network) -> float:
    """Seconds by the formulas in this script's description."""
    work = 3 * PER_ROW * ROWS / RANKS  # one layer, forward and backward, on one rank
    if case.kind is not Passing:
        linear = case.kind is Linear
        state = ROWS * CHANNELS * 8 * 8 if linear else ROWS * 64 * 4  # 8 complex numbers a channel
        product = CHANNELS * 8 * 8 if linear else state
        rounds = math.ceil(math.log2(RANKS))
        late = rounds * network.seconds(state + product) + network.seconds(state)
        return (2 if linear else 1 + SHARE) * case.layers * work + 2 * late
    late = (RANKS - 1) * network.seconds(ROWS * 16 * 4 // case.parts)
    return (case.layers + (RANKS - 1) / case.parts) * work + 2 * late


class OneRank:
    """The messages of a rank without neighbours."""

    size, rank = 1, 0

    def move(self, by, *tensors):
        return tuple(0 * x for x in tensors)


def ratios() -> dict[str, float]:
    """Of the processor time of a layer with sharded scans to that without, by layer."""
    torch.set_num_threads(1)
    found = {}
    for kind in (Mamba, Longhorn, Mamba2, Mamba3):
        torch.manual_seed(0)
        whole = kind(WIDTH)
        sharded = copy.deepcopy(whole)
        sharded.scans = {k: _scans.sharded(op, OneRank()) for k, op in whole.scans.items()}
        u = torch.randn(1, LENGTH, WIDTH, requires_grad=True)
        each = []
        for _ in range(REPEATS + 3):
            times = []
            for layer in (whole, sharded):
                began = time.process_time()
                layer(u)[0].sum().backward()
                times.append(time.process_time() - began)
            each.append(times[1] / times[0])
        found[kind.__name__] = sorted(each[1:])[len(each) // 2]
    return found


def start(rank, path, results):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=RANKS,
        timeout=timedelta(seconds=300),
    )  # fmt: skip
    measured(rank, RANKS, results)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(start, (f"{folder}/ranks", results), nprocs=RANKS)
        found = dict(results)
    lines = [
        "# Sequences over ranks: simulated work, simulated network",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        machine(),
        "",
        f"{RANKS} ranks, {ROWS} rows; a layer takes {1e3 * PER_ROW:.0f} ms for a row of the whole "
        "sequence forward, and twice that backward.",
        "",
        "| network | layers | ideal, ms | predicted, ms | measured, ms | efficiency |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for (label, name), seconds in found.items():
        case = next(c for c in CASES if c.name == name)
        ideal = 3 * PER_ROW * ROWS * case.layers / RANKS
        lines.append(
            f"| {label} | {name} | {1e3 * ideal:.0f} | "
            f"{1e3 * predicted(case, NETWORKS[label]):.0f} | {1e3 * seconds:.0f} | "
            f"{ideal / seconds:.0%} |"
        )
    lines += [
        "",
        f"Selective layers: d_model {WIDTH}, {LENGTH} samples, forward and backward, 1 thread.",
        "",
        "| layer | time with sharded scans / without |",
        "| --- | --: |",
        *(f"| {name} | {ratio:.2f} |" for name, ratio in ratios().items()),
    ]
    save("time_shards", "\n".join(lines))


if __name__ == "__main__":
    parser(__doc__).parse_args()
    main()
