"""Time two source trees in turn: ops and layers, forward, forward and backward, and single steps.

    python tools/paired_speed.py --old 39c87c1                 this checkout against a revision
    python tools/paired_speed.py --old PATH --new PATH         two folders that hold longstate/
    python tools/paired_speed.py --only Mamba --threads 2      only rows whose name contains a word

Each tree runs in a process of its own. They take turns at every row, so that other load affects
both. Where a process happens to get its memory changes the time of some rows by 15 % for as long
as it lives; so this is done with several pairs of processes. A row prints the median times, and the
median, smallest and largest ratio (new / old) of the pairs. Rows whose median is above `--limit`
are marked, and the exit status is then 1. Run it on an idle machine: other load changes ratios too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _cases import LAYERS, OPS, accepted, call, find_op, make_layer
from _draw import Draw, Sizes
from _trees import CHECKOUT, Worker, answer_questions, kernel_cache, tree
from torch import Tensor
from torch.utils._pytree import tree_flatten

LIMIT = 1.03
SECONDS = 0.1  # approximate time of one turn
FLAGS = {"mask", "reset", "lengths"}

_SELECTIVE = Sizes(b=1, t=1024, d=1536, n=16)
_OP_SIZES = {
    "diagonal_scan": Sizes(b=4, t=2048, d=256, n=0),
    "zoh_scan": Sizes(b=2, t=1024, d=64, n=0),
    "zoh_channel_scan": Sizes(b=4, t=256, d=64, n=32),
    "oscillator_scan": Sizes(b=2, t=1024, d=64, n=0),
    "diagonal_channel_scan": Sizes(b=4, t=1024, d=128, n=32),
    "dense_channel_scan": Sizes(b=4, t=1024, d=64, n=32),
    "dplr_channel_scan": Sizes(b=4, t=1024, d=64, n=32),
    "allpass_channel_scan": Sizes(b=4, t=1024, d=64, n=64),
    "expm_scan": Sizes(b=4, t=256, d=0, n=64),
    "chimera_scan": Sizes(b=4, t=256, d=64, n=8),
    "chunk_scan": Sizes(b=1, t=1024, d=1536, n=64, p=64),
    "short_conv": Sizes(b=1, t=1024, d=1536, n=0),
}
_LARGE = {"Mamba", "FalconMamba", "Longhorn", "Mamba2", "Mamba3"}

_runs: dict[str, Callable[[], object]] = {}


def _leaves(values: Iterable[Any]) -> list[Tensor]:
    return [
        v for v in values if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex())
    ]


def _both_ways(run: Callable[[], Any], leaves: list[Tensor]) -> Callable[[], object]:
    """Forward and backward; the gradients of the outputs are ones."""

    def whole() -> object:
        outputs = [y for y in tree_flatten(run())[0] if y.requires_grad]
        ones = [torch.ones_like(y) for y in outputs]
        return torch.autograd.grad(outputs, leaves, ones, allow_unused=True)

    return whole


def _without_gradients(run: Callable[[], Any]) -> Callable[[], object]:
    def plain() -> object:
        with torch.no_grad():
            return run()

    return plain


def _op_runs(name: str) -> dict[str, Callable[[], object]]:
    op_name, make = OPS[name]
    op = find_op(op_name)
    if op is None:
        return {}
    arguments = make(Draw(torch.float32), _OP_SIZES.get(op_name, _SELECTIVE))
    known = accepted(op) - FLAGS
    arguments = {key: v for key, v in arguments.items() if key in known}
    leaves = {
        key: v.clone().requires_grad_()
        for key, v in arguments.items()
        if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex())
    }
    return {
        "forward": _without_gradients(lambda: call(op, arguments)),
        "forward+backward": _both_ways(lambda: call(op, arguments | leaves), [*leaves.values()]),
    }


def _layer_runs(name: str) -> dict[str, Callable[[], object]]:
    large = LAYERS[name][0] in _LARGE
    d_model, n = (512, {"d_state": 16}) if large else (128, {"d_state": 64})
    if LAYERS[name][0] in ("Chimera", "LongVQ"):
        n = {}  # 8 states for each channel are many here
    if LAYERS[name][0] in ("Mamba2", "Mamba3"):
        n = {"d_state": 64, "headdim": 64}
    layer: Any = make_layer(name, d_model, **n)
    if layer is None:
        return {}
    draw = Draw(torch.float32)
    u = draw.normal(1 if large else 4, 1024, d_model)
    one = draw.normal(1, d_model)
    with torch.no_grad():
        _, state = layer(u[:1, :8])
    leaves = [u.clone().requires_grad_(), *layer.parameters()]
    return {
        "forward": _without_gradients(lambda: layer(u)),
        "forward+backward": _both_ways(lambda: layer(leaves[0])[0], leaves),
        "step": _without_gradients(lambda: layer.step(one, state)),
    }


def answer(question: list[Any]) -> Any:
    """Worker: ["open", kind, name, threads] gives the modes, [mode, calls] seconds of a call."""
    global _runs
    if question[0] == "open":
        _, kind, name, threads = question
        torch.set_num_threads(threads)
        _runs = (_op_runs if kind == "op" else _layer_runs)(name)
        return list(_runs)
    mode, calls = question
    run = _runs[mode]
    run()  # refills the caches after the other process
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls


class Turns(NamedTuple):
    """Seconds of a call, by turn, in one pair of processes."""

    old: list[float]
    new: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.new) / statistics.median(self.old)


Row = tuple[str, str, str]  # op or layer, case, mode


def turns(old: Worker, new: Worker, mode: str, rounds: int) -> Turns:
    old.ask([mode, 1])
    new.ask([mode, 1])
    calls = max(1, round(SECONDS / old.ask([mode, 1])))
    pairs = [(old.ask([mode, calls]), new.ask([mode, calls])) for _ in range(rounds)]
    return Turns([a for a, _ in pairs], [b for _, b in pairs])


def measure(old: Worker, new: Worker, options: argparse.Namespace) -> dict[Row, Turns]:
    found: dict[Row, Turns] = {}
    for kind, name in [("op", x) for x in OPS] + [("layer", x) for x in LAYERS]:
        if options.only and not any(word in name for word in options.only):
            continue
        question = ["open", kind, name, options.threads]
        had, has = old.ask(question), new.ask(question)
        for mode in [x for x in had if x in has and x in (options.mode or had)]:
            found[kind, name, mode] = turns(old, new, mode, options.rounds)
    return found


def report(found: list[dict[Row, Turns]], limit: float) -> int:
    """Print the table; the number of rows above the limit."""
    slow = 0
    print(f"{'':6}{'case':34}{'mode':18}{'old ms':>10}{'new ms':>10}  new / old (per process)")
    for kind, name, mode in found[0]:
        row = [one[kind, name, mode] for one in found]
        a = statistics.median(x for one in row for x in one.old)
        b = statistics.median(x for one in row for x in one.new)
        ratios = sorted(one.ratio for one in row)
        ratio = statistics.median(ratios)
        slow += ratio > limit
        print(
            f"{kind:6}{name:34}{mode:18}{1e3 * a:10.3f}{1e3 * b:10.3f}"
            f"  {ratio:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            f"{'  SLOWER' if ratio > limit else ''}"
        )
    return slow


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--old", default="39c87c1", help="revision or folder (default: %(default)s)"
    )
    parser.add_argument("--new", default=str(CHECKOUT), help="revision or folder (this checkout)")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="words in case names")
    parser.add_argument("--mode", nargs="*", metavar="MODE", help="forward, forward+backward, step")
    parser.add_argument("--processes", type=int, default=5, help="pairs of processes (5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each in a pair (3)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and the kernels (1)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest ratio (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or options.processes < 1:
        parser.error("--rounds and --processes must be at least 1")
    script, found = Path(__file__).name, []
    with tree(options.old) as before, tree(options.new) as after:
        for i in range(options.processes):
            print(f"pair {i + 1} of {options.processes}", file=sys.stderr, flush=True)
            with (
                Worker(before, script, options.threads, kernel_cache(before)) as old,
                Worker(after, script, options.threads, kernel_cache(after)) as new,
            ):
                found.append(measure(old, new, options))
    slow = report(found, options.limit)
    print(f"{slow} rows above {options.limit}")
    return 1 if slow else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        answer_questions(answer)
    else:
        sys.exit(main())
