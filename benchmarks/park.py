"""Bits of parked states: a linear layer against theory, and Mamba-2 on a task.

    python benchmarks/park.py           one thread; five minutes, most of them training,
                                    which a second run does not repeat

1. A linear layer of 32 real numbers: Shannon's bound, an ideal entropy coder and fixed lengths, in
   the coordinates of the readout and in its own; and the error that was measured.
2. A linear layer with its running state in 8 bits: noise predicted and simulated.
3. Mamba-2, two layers, trained on associative recall (6 pairs of 16 keys and 16 values), three
   seeds: the state is parked after the pairs, then asked. Taps of the convolutions take 8 bits a
   number throughout.
"""

import json
from typing import Literal

import torch
from command import parser
from measure import machine, save
from recall import CONTEXT, LETTERS, SEEDS, recall, trained
from torch import Tensor

from longstate.compress import fit_codec, measure_codec, park, plain_codec, quantize_state, unpark
from longstate.compress._codec_report import plain_bits
from longstate.compress._quantizer import gaussian_entropy
from longstate.layers import S4D


def linear_rows(init: Literal["lin", "real"]) -> list[str]:
    torch.manual_seed(0)
    layer = S4D(1, d_state=32, init=init, dt_min=0.02, dt_max=0.02).double()
    u = torch.randn(2000, 1500, 1, dtype=torch.float64)
    lines = []
    for error in (0.1, 0.01, 0.001):
        for rotate in (True, False):
            codec = fit_codec(layer, error=error, rotate=rotate)
            (part,) = codec.rotated
            entropy = float(gaussian_entropy(part.deviation, 1.0).sum())
            report = measure_codec(layer, codec, u, at=1499)
            shannon = f"{part.shannon:.1f}" if rotate else "-"
            name = "of the readout" if rotate else "its own"
            lines.append(
                f"| {init} | {error:.1%} | {name} | {shannon} | {entropy:.1f} | "
                f"{report.bits:.1f} | {report.tensors[0].measured:.3%} |"
            )
    return lines


def noise_rows() -> list[str]:
    torch.manual_seed(0)
    layer = S4D(1, d_state=32, dt_min=0.02, dt_max=0.02).double()
    u = torch.randn(256, 1000, 1, dtype=torch.float64)
    lines = ["| bits | rounding | predicted | simulated (standard error) |", "|---|---|---|---|"]
    with torch.no_grad():
        y = layer(u)[0]
        for rounding in ("nearest", "stochastic"):
            for allocate in (False, True):
                quantized = quantize_state(layer, bits=8, rounding=rounding, allocate=allocate)
                energy = (quantized(u)[0] - y)[:, 300:].square().sum(-1).mean(1)
                error = float(energy.std()) / len(u) ** 0.5
                name = "allocated" if allocate else "equal"
                lines.append(
                    f"| 8, {name} | {rounding} | {quantized.noise().noise[0]:.3g} | "
                    f"{float(energy.mean()):.3g} ({error:.1g}) |"
                )
    return lines


def recall_rows(seed: int) -> list[str]:
    model = trained(seed)
    fit, (test, answers) = recall(1500, 11)[0], recall(4000, 12)
    with torch.no_grad():
        _, state = model(test[:, :CONTEXT])

    def asked(s) -> Tensor:
        with torch.no_grad():
            return model(test[:, CONTEXT:], s)[0][..., LETTERS:].argmax(-1)

    exact = asked(state)
    codecs = {n: plain_codec(model, n, rest="int8") for n in ("int8", "int4", "int3", "int2")}
    for error in (0.001, 0.01, 0.03, 0.1):
        name = f"fitted, error {error:.1%}"
        codecs[name] = fit_codec(model, fit, error=error, at=CONTEXT, rest="int8", rows=1500)
    whole = codecs["int8"].state_bits
    fitted = codecs["fitted, error 1.0%"]
    taps_bits = plain_bits(fitted)
    own = whole - sum(p.place.bits for p in fitted.rounded)
    lines = [
        f"| {seed} | float32 | {own:,} | 100 % | {whole:,} | {accuracy(exact, answers)} | 100 % |"
    ]
    for name, codec in codecs.items():
        parked = park(state, codec)
        bits = 8 * len(parked) / len(test)
        given = asked(unpark(parked, codec))
        lines.append(
            f"| {seed} | {name} | {bits - taps_bits:,.0f} | {(bits - taps_bits) / own:.2%} | "
            f"{bits:,.0f} | {accuracy(given, answers)} | {accuracy(given, exact)} |"
        )
    return lines


def accuracy(given: Tensor, wanted: Tensor) -> str:
    return f"{(given == wanted).double().mean():.2%}"


def main() -> None:
    parser(__doc__).parse_args()
    torch.set_num_threads(1)
    lines = ["# Bits of a parked state", "", machine(), ""]
    lines += ["## A linear layer of 32 numbers (float32: 1,024 bits), white input", ""]
    lines += [
        "S4D of one channel, `init` lin (oscillations) or real (decays that are much alike).",
        "",
    ]
    lines += ["| init | error | coordinates | Shannon | entropy coder | fixed | error, measured |"]
    lines += ["|---|---|---|---|---|---|---|", *linear_rows("lin"), *linear_rows("real")]
    lines += ["", "## The first of them, its running state rounded after every sample", ""]
    lines += noise_rows()
    lines += ["", "## Mamba-2 on associative recall, fixed lengths", ""]
    lines += ["Bits of one sequence, mean over 4,000 that the codec was not fitted to, numbers"]
    lines += ["outside their range and the header included.", ""]
    lines += ["| seed | codec | bits of the heads | share | with taps | right | as unparked |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for seed in SEEDS:
        lines += recall_rows(seed)
    print(json.dumps({"result": str(save("park", "\n".join(lines)))}))


if __name__ == "__main__":
    main()
