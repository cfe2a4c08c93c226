"""Compare two source trees bit by bit: every op and layer, forward, last state and gradients.

    python tools/bit_identity.py --old 39c87c1                 this checkout against a revision
    python tools/bit_identity.py --old PATH --new PATH         two folders that hold longstate/
    python tools/bit_identity.py --only zoh_scan LinOSS        only cases whose name contains a word

Both trees get the same seeded inputs by keyword, each in its own process, so that the order of
arguments may differ. Cases: each op with all of its arguments, with none of the optional ones,
and with each of them left out; lengths 1, 7, 64 and 300; float32 and float64 (bfloat16 where an op
computes in wider numbers); with and without gradients; on 1 and on 2 threads. The bytes of all
results are compared. A case that raises must raise the same kind of error in both trees.

Both trees compile all their kernels again. With `--warm` both then load them from disk: LLVM may
round an inner function differently inside a kernel than alone, and which of the two runs depends on
whether the kernel was compiled in this process. So a cold tree is not compared with a warm one.

Prints a table of cases that are identical, and the names of tensors that are not. Exit status 1 on
any difference. An op or layer that only one tree has is listed and does not count as a difference.
"""

import argparse
import hashlib
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from _cases import (
    LAYERS,
    OPS,
    WITHOUT_DT,
    Arguments,
    Draw,
    Sizes,
    accepted,
    call,
    find_op,
    make_layer,
    optional,
)
from _trees import CHECKOUT, Worker, answer_questions, tree
from torch import Tensor
from torch.utils._pytree import tree_flatten

LENGTHS = (1, 7, 64, 300)
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
NARROW = ("selective_scan", "longhorn_scan", "short_conv", "chunk_scan")
Hashes = dict[str, str]


def digest(x: Tensor) -> str:
    x = x.detach().resolve_conj().resolve_neg().contiguous()
    described = f"{tuple(x.shape)} {x.dtype} ".encode()
    return hashlib.sha256(described + x.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def hashes(prefix: str, values: Any) -> Hashes:
    leaves, _ = tree_flatten(values)
    return {f"{prefix} {i}": digest(x) for i, x in enumerate(leaves) if isinstance(x, Tensor)}


def differentiate(outputs: list[Tensor], leaves: dict[str, Tensor], seed: int) -> Hashes:
    """Gradients of a fixed random sum of `outputs`."""
    draw = Draw(torch.float64, seed)
    loss = torch.zeros((), dtype=torch.float64)
    for y in outputs:
        if y.requires_grad:
            weight = draw.complex(*y.shape) if y.is_complex() else draw.normal(*y.shape)
            product = y * weight.to(y.dtype)
            loss = loss + (product.real if y.is_complex() else product).double().sum()
    if not loss.requires_grad:
        return {}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        f"gradient of {name}": "none" if g is None else digest(g)
        for name, g in zip(leaves, found, strict=True)
    }


def op_choices(op: str, arguments: Arguments) -> dict[str, set[str]]:
    """Names of cases, and the arguments that each leaves out."""
    extra = optional(op, arguments)
    flags = {"mask", "reset", "lengths"} & extra
    choices = {"all": set(), "none": extra, "no flags": flags}
    return choices | {f"no {name}": {name} for name in sorted(extra)}


def run_op(name: str, dtype: str, length: int, common: list[str]) -> dict[str, Hashes]:
    """All cases of an op with the arguments in `common`, which both trees have."""
    op_name, make = OPS[name]
    op = find_op(op_name)
    if op is None:
        return {}
    arguments = make(Draw(DTYPES[dtype]), Sizes(b=3, t=length, d=72, n=5))
    arguments = {key: v for key, v in arguments.items() if key in common}
    found: dict[str, Hashes] = {}
    for choice, left_out in op_choices(op_name, arguments).items():
        given = {key: v for key, v in arguments.items() if key not in left_out}
        found[choice] = attempt(lambda given=given: run_case(op, given))
    return found


def run_case(op: Any, given: Arguments) -> Hashes:
    with torch.no_grad():
        found = hashes("no_grad", call(op, given))
    leaves = {
        key: v.clone().requires_grad_()
        for key, v in given.items()
        if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex())
    }
    outputs, _ = tree_flatten(call(op, given | leaves))
    found |= hashes("output", outputs) | differentiate(outputs, leaves, 1)
    for i in range(len(outputs)):  # the other outputs' gradients are then None
        part = differentiate(list(tree_flatten(call(op, given | leaves))[0])[i : i + 1], leaves, 2)
        found |= {f"{key}, from output {i}": v for key, v in part.items()}
    return found


def run_layer(name: str, dtype: str, length: int, _: list[str]) -> dict[str, Hashes]:
    """All cases of a layer."""
    b, d_model = 2, 24
    layer = make_layer(name, d_model)
    if layer is None:
        return {}
    layer = layer.to(torch.float64 if dtype == "float64" else torch.float32)
    draw = Draw(DTYPES[dtype])
    u, past = draw.normal(b, length, d_model), draw.normal(b, 5, d_model)
    marks = {"mask": draw.flags(b, length, 0.8), "reset": draw.flags(b, length, 0.1)}
    dt = Draw(torch.float32, 3).uniform(b, length, high=2.0).to(u.dtype)
    with torch.no_grad():
        _, state = layer(past)
    cases: dict[str, tuple[Any, Arguments]] = {
        "plain": (None, {}), "state": (state, {}), "mask": (state, {"mask": marks["mask"]}),
        "reset": (state, {"reset": marks["reset"]}), "mask, reset": (state, marks),
    }  # fmt: skip
    if name not in WITHOUT_DT:
        cases |= {"dt": (state, {"dt": dt}), "dt, mask, reset": (state, marks | {"dt": dt})}
    return {
        case: attempt(lambda s=s, options=options: run_layer_case(layer, u, s, options))
        for case, (s, options) in cases.items()
    }


def run_layer_case(layer: Any, u: Tensor, state: Any, options: Arguments) -> Hashes:
    with torch.no_grad():
        found = hashes("no_grad", layer(u, state, **options))
        start = layer.init_state(u.shape[0]) if state is None else state
        for t in range(min(3, u.shape[1])):
            y, start = layer.step(u[:, t], start, **{k: v[:, t] for k, v in options.items()})
            found |= hashes(f"step {t}", (y, start))
    leaves = {"u": u.clone().requires_grad_(), **dict(layer.named_parameters())}
    flat, structure = tree_flatten(state)
    if state is not None:
        flat = [x.clone().requires_grad_() for x in flat]
        leaves |= {f"state {i}": x for i, x in enumerate(flat)}
        state = torch.utils._pytree.tree_unflatten(flat, structure)
    outputs, _ = tree_flatten(layer(leaves["u"], state, **options))
    return found | hashes("output", outputs) | differentiate(outputs, leaves, 1)


def attempt(run: Any) -> Hashes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()
    except (ValueError, RuntimeError, NotImplementedError) as e:
        return {"raises": type(e).__name__}


def names(kind: str, name: str) -> list[str]:
    """Arguments that this tree accepts; empty if it has no such op or layer."""
    if kind == "layer":
        return ["u"] if make_layer(name, 24) is not None else []
    op = find_op(OPS[name][0])
    return [] if op is None else sorted(accepted(op))


def answer(question: list[Any]) -> Any:
    """A worker's answer to [kind, name], or to [kind, name, dtype, length, threads, arguments]."""
    kind, name, *rest = question
    if not rest:
        return names(kind, name)
    dtype, length, threads, common = rest
    torch.set_num_threads(threads)
    return (run_op if kind == "op" else run_layer)(name, dtype, length, common)


def rows(words: list[str]) -> Iterable[tuple[str, str, list[str]]]:
    """Kind, name and types of every row of the table."""
    for name, (op, _) in OPS.items():
        if not words or any(word in name for word in words):
            yield "op", name, list(DTYPES)[: 3 if op in NARROW else 2]
    for name in LAYERS:
        if not words or any(word in name for word in words):
            yield "layer", name, list(DTYPES)


def compare(
    old: Worker, new: Worker, kind: str, name: str, dtype: str, common: list[str]
) -> tuple[int, list[str]]:
    """Number of compared tensors, and names of those that differ."""
    count, differ = 0, []
    for length in LENGTHS:
        for threads in (1, 2):
            question = [kind, name, dtype, length, threads, common]
            for worker in (old, new):
                worker.send(question)
            before, after = old.receive(), new.receive()
            for case, had in before.items():
                has, where = after[case], f"length {length}, {threads} threads, {case}"
                count += len(had)
                if ("raises" in has) != ("raises" in had):
                    differ.append(f"{where}: only one raises: {(had | has)['raises']}")
                    continue
                keys = sorted(had.keys() | has.keys())
                differ += [f"{where}: {key}" for key in keys if had.get(key) != has.get(key)]
    return count, differ


def report(old: Worker, new: Worker, words: list[str], show: int | None) -> tuple[int, int]:
    """Print the table, unless `show` is None; numbers of compared and of different tensors."""
    total = wrong = 0
    say = print if show is not None else lambda *_, **__: None
    say(f"{'':6}{'case':34}{'type':10}{'tensors':>8}  identical?")
    for kind, name, dtypes in rows(words):
        had, has = old.ask([kind, name]), new.ask([kind, name])
        if not had or not has:
            say(f"{kind:6}{name:34}{'':18}  only in the {'old' if had else 'new'} tree")
            continue
        for dtype in dtypes:
            count, differ = compare(old, new, kind, name, dtype, sorted({*had} & {*has}))
            total, wrong = total + count, wrong + len(differ)
            verdict = f"no: {len(differ)} differ" if differ else "yes"
            say(f"{kind:6}{name:34}{dtype:10}{count:>8}  {verdict}", flush=True)
            for line in differ[:show]:
                say(f"{'':10}{line}")
    return total, wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--old", default="39c87c1", help="revision or folder (default: %(default)s)"
    )
    parser.add_argument("--new", default=str(CHECKOUT), help="revision or folder (this checkout)")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="words in case names")
    parser.add_argument(
        "--warm", action="store_true", help="run all twice; compare kernels that come from disk"
    )
    parser.add_argument("--show", type=int, default=5, help="differences to print per row (5)")
    options = parser.parse_args()
    began = time.monotonic()
    with (
        tree(options.old) as before,
        tree(options.new) as after,
        tempfile.TemporaryDirectory() as folder,
    ):
        caches = Path(folder, "old"), Path(folder, "new")
        for show in ([None] if options.warm else []) + [options.show]:
            with (
                Worker(before, Path(__file__).name, 2, caches[0]) as old,
                Worker(after, Path(__file__).name, 2, caches[1]) as new,
            ):
                total, wrong = report(old, new, options.only, show)
    print(f"{total} tensors compared, {wrong} differ; {time.monotonic() - began:.0f} s")
    return 1 if wrong or not total else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        answer_questions(answer)
    else:
        sys.exit(main())
