"""Memory of training on long sequences, with and without segments.

    python benchmarks/segments.py     twenty minutes

A stack of two Mamba layers and an S4D layer (d_model 32, float32, batch 1, dropout 0.1), forward
and backward of the mean square of y, on one thread. With `segment=4096` the backward pass runs each
segment once more from the state before it.

Growth of the peak of resident memory in a new process, without the input, which exists before, with
malloc (glibc) set to give every tensor its own pages, so that freed memory is not counted. The
output y, its gradient and the gradient of the input have the length of the sequence in any case;
their sum is in the last column. "Whole" is not measured where it would need more than 8 GiB.
"""

import os
import time

import torch
from command import parser
from measure import machine, peak_mib, ratio, rounds, save

D_MODEL, SEGMENT = 32, 4096
LENGTHS = (16_384, 65_536, 262_144, 1_000_000)
LONGEST_WHOLE = 262_144
CODE = f"""
import torch
from longstate.layers import S4D, Mamba
from longstate.models import Stack
torch.set_num_threads(1)
torch.manual_seed(0)
mixers = [Mamba({D_MODEL}), S4D({D_MODEL}, d_state=16), Mamba({D_MODEL})]
model = Stack(mixers, dropout=0.1)
def prepare(small):
    return torch.randn(1, 5000 if small else LENGTH, {D_MODEL}, requires_grad=True)
def work(u):
    model(u)[0].square().mean().backward()
"""


def code(length: int, segment: int | None) -> str:
    return CODE.replace("LENGTH", str(length)) + f"\nmodel.segment = {segment}\n"


def passes(segment: int | None):
    """Forward and backward of 65,536 samples."""
    names: dict = {}
    exec(code(65_536, segment), names)
    u = names["prepare"](False)
    return lambda: names["work"](u)


def main() -> None:
    torch.set_num_threads(1)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # of the processes that are measured
    lines = [
        "# Memory of training on long sequences",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        machine(),
        "",
        "| samples | whole, MiB | segments, MiB | seconds | y and both gradients, MiB |",
        "| --: | --: | --: | --: | --: |",
    ]
    for length in LENGTHS:
        whole = f"{peak_mib(code(length, None)):,.0f}" if length <= LONGEST_WHOLE else ""
        began = time.perf_counter()
        parts = peak_mib(code(length, SEGMENT))
        seconds = time.perf_counter() - began
        least = 3 * length * D_MODEL * 4 / 2**20
        lines.append(f"| {length:,} | {whole} | {parts:,.0f} | {seconds:.0f} | {least:,.0f} |")
        print(lines[-1], flush=True)
    times = rounds({"whole": passes(None), "segments": passes(SEGMENT)}, 3)
    found = ratio(times["segments"], times["whole"])
    lines += ["", "Seconds: with segments, and with the start of the process.", ""]
    lines += [f"Time with segments over time without, 65,536 samples: {found}."]
    save("segments", "\n".join(lines))


if __name__ == "__main__":
    parser(__doc__).parse_args()
    main()
