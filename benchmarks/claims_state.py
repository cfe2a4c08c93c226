"""Claims about which states can compute and keep what."""

from functools import partial

from claim import ABSTRACT, CODE, FILES, KNOWN, S4, Claim, at
from verdicts import (
    AS_GOOD,
    AT_CHANCE,
    CONSTANT,
    EXACT,
    FAILS,
    HIGHER,
    LOWER,
    SILENT,
    SOLVES,
    TIMES,
    Check,
    Figure,
)

TURNING, FLIP = "screen|rotation", "screen|flip_flop"
parity, a5 = partial(at, "parity", "parity"), partial(at, "a5", "a5")


def parity_at_chance(words: str, layer: str) -> Check:
    figures = parity(layer, layer, 256), parity("chance", "chance", 256)
    return Check(f"Beyond the training length: {words}.", AT_CHANCE, figures)


STATES = (
    Claim(
        "Decays in [0, 1] cannot compute parity, signed ones can",
        "No layer whose decays lie between zero and one computes parity at all lengths. With "
        "decays between minus one and one, one layer does.",
        (("Sarrof et al., 2024", "2405.17394"), ("Grazzi et al., 2024", "2411.12537")),
        FILES, ("screens.py parity",),
        (
            parity_at_chance("decays in [0, 1]", "NonNegative"),
            parity_at_chance("Mamba, decays in [0, 1]", "mamba"),
            parity_at_chance("S4D, complex decays that the input does not change", "s4d"),
            parity_at_chance("S4D, signed decays that the input does not change", "s4d_signed"),
            Check("The same layer with signed decays solves it.", SOLVES,
                  (parity("signed", "Signed", 40),)),
            Check("It solves it beyond the training length.", SOLVES,
                  (parity("signed", "Signed", 256),)),
        ),
        "One block, trained up to length forty. The two layers differ in one function: a sigmoid "
        "or a hyperbolic tangent. All positions count, also the first, which are easier.",
        (parity("LSTM", "lstm", 256), parity("dense linear network", "linearrnn", 256)),
    ),
    Claim(
        "A rotating state solves parity, a decaying one does not",
        "The complex state of Mamba-3 tracks states that the real one of Mamba-2 cannot, such as "
        "parity.",
        (("Lahoti et al., 2026", "2603.15569"),), ABSTRACT, ("screens.py rotation",),
        (
            Check("Mamba-3 solves it at the training length.", SOLVES, (
                at(TURNING, "parity", "Mamba-3", "mamba3", 40),)),
            Check("Mamba-3 solves it beyond the training length.", SOLVES, (
                at(TURNING, "parity", "Mamba-3", "mamba3", 256),)),
            Check("Mamba-2 is at chance beyond the training length.", AT_CHANCE, (
                at(TURNING, "parity", "Mamba-2", "mamba2", 256),
                at(TURNING, "parity", "chance", "chance", 256))),
        ),
        "Two blocks, trained up to length forty.",
    ),
    Claim(
        "Decays in [0, 1] can keep a flip-flop at all lengths",
        "Mamba learns star-free languages such as a flip-flop without an error, and keeps them on "
        "longer words. Attention makes rare errors.",
        (("Sarrof et al., 2024", "2405.17394"), ("Liu et al., 2023", "2306.00946")),
        FILES, ("screens.py flip_flop",),
        (
            *(Check(f"Mamba solves it {where}.", SOLVES, (
                at(FLIP, "flip_flop", "Mamba", "mamba", n),))
              for where, n in (("at the training length", 64), ("beyond it", 512))),
            Check("Mamba makes fewer errors than attention on longer words.", HIGHER, (
                at(FLIP, "flip_flop", "Mamba", "mamba", 512),
                at(FLIP, "flip_flop", "attention", "attention", 512))),
        ),
    ),
    Claim(
        "One dense layer follows products in A5, diagonal ones need depth",
        "The product of many even permutations of five things needs one layer if its matrices are "
        "dense (a linear controlled differential equation). Mamba, S4 and attention need more "
        "layers for longer words; none of them passed words of twenty with four.",
        (("Muca Cirone et al., 2024", "2402.19047"), ("Merrill et al., 2024", "2404.08819")),
        FILES, ("a5.py",),
        (
            Check("One dense layer solves it at the training length.", SOLVES, (
                a5("dense", "dense", 12),)),
            Check("One dense layer solves it beyond the training length.", SOLVES, (
                a5("dense", "dense", 20),)),
            *(Check(f"One layer of {words} fails at words of twenty.", FAILS, (
                a5(words, row, 20), a5("chance", "chance", 20)))
              for words, row in (("diagonal matrices", "diagonal"), ("Mamba", "mamba"),
                                 ("attention", "attention"))),
        ),
        "As in the authors' code, every batch has words of two beside the long ones, and an MLP "
        "follows the layer. Below is what happens without these, with a first state of zero, and "
        "with `stable=True` (rotations). Where a row diverged, free matrices had lengthened the "
        "state without limit; rotations cannot.",
        tuple(a5(row, row, 12) for row in (
            "dense, from zero", "dense, no pairs", "dense, GLU", "rotations", "rotations, GLU",
            "rotations, no pairs")),
    ),
    Claim(
        "Real diagonal systems cannot fit a delay",
        "A diagonal system with real modes needs an exponentially large size or exponentially "
        "large weights for a delay. One with complex modes does not.",
        (("Ran-Milo et al., 2024", "2410.14067"),), CODE, ("impulse_fit.py",),
        (
            Check("Trained real modes learn nothing of a delay.", SILENT, (
                Figure("error, real", "impulse_fit", "Errors after training", "S4D real",
                       "delay 100"),)),
            Check("Complex modes fit it better.", LOWER, (
                Figure("error, complex", "impulse_fit", "Errors after training",
                       "S4D complex (lin)", "delay 100"),
                Figure("error, real", "impulse_fit", "Errors after training", "S4D real",
                       "delay 100"))),
            Check("The weights of an exact delay are far larger for real modes.", TIMES, (
                Figure("real", "impulse_fit", "Largest weight of an exact delay", "real", "t = 32",
                       drawn=False),
                Figure("complex", "impulse_fit", "Largest weight of an exact delay", "complex",
                       "t = 32", drawn=False))),
        ),
        "Errors are relative to an output of zero. Complex modes alone are not enough: the "
        "oscillators of LinOSS did little better than real modes.",
        tuple(Figure(f"error, {row}", "impulse_fit", "Errors after training", row, "delay 100")
              for row in ("S4D signed", "LinOSS im", "LinOSS imex")),
    ),
)  # fmt: skip

cost = partial(Figure, studies="generation", table="Milliseconds for the next sample", drawn=False)
noise = partial(Figure, studies="noise", table="noise")
STEP, AGAIN, CACHE = "S4, a step", "S4, the convolution again", "attention with a cache"
SHORT, LONG = "256", "65536"
MEMORY = (
    Claim(
        "S4 generates at a constant cost per sample",
        "As a recurrence S4 needs the same time for every sample. Running its convolution again, "
        "or attention over all that came before, costs more as the context grows.",
        (S4,), KNOWN, ("generation.py",),
        (
            Check("A step of S4 costs the same after any context.", CONSTANT, (
                cost("long context", row=STEP, column=LONG),
                cost("short context", row=STEP, column=SHORT))),
            Check("The convolution again costs more after a longer context.", HIGHER, (
                cost("long context", row=AGAIN, column=LONG),
                cost("short context", row=AGAIN, column=SHORT))),
            Check("A step costs less than the convolution again.", LOWER, (
                cost("step", row=STEP, column=SHORT),
                cost("convolution", row=AGAIN, column=SHORT))),
            Check("Attention with a cache costs more after a longer context.", HIGHER, (
                cost("long context", row=CACHE, column=LONG),
                cost("short context", row=CACHE, column=SHORT))),
            Check("A step costs less than attention after a long context.", LOWER, (
                cost("step", row=STEP, column=LONG), cost("attention", row=CACHE, column=LONG))),
        ),
    ),
    Claim(
        "HiPPO's first values beat random ones",
        "The first values of A decide whether a state space model learns long memory: those from "
        "HiPPO do far better than random or real ones.",
        (("Gu et al., 2020", "2008.07669"), ("Gu et al., 2022", "2206.11893")), KNOWN,
        ("screens.py initialisation",),
        tuple(
            Check(f"{name} remembers more than {other}.", HIGHER, (
                at("initialisation", "delay", name, row, 64),
                at("initialisation", "delay", other, loser, 64)))
            for name, row in (("S4D-LegS", "s4d_legs"), ("S4D-Lin", "s4d"))
            for other, loser in (("random first values", "s4d_random"),
                                 ("real first values", "s4d_real"))
        ),
        "The task is a delay of sixteen samples, with two blocks.",
    ),
    Claim(
        "HOPE's memory does not decay under padded noise",
        "Noise between what must be kept and the question for it hurts S4D and does not hurt HOPE.",
        (("Yu et al., 2024", "2405.13975"),), ABSTRACT, ("noise.py", "screens.py padded_noise"),
        (
            *(Check(f"HOPE keeps more than S4D through {words} noise.", HIGHER, (
                noise(f"HOPE, {column}", row="hope", column=column),
                noise(f"S4D, {column}", row="s4d", column=column)))
              for words, column in (("short", "length 64"), ("long", "length 512"))),
            Check("HOPE keeps as much through long noise as through short.", AS_GOOD, (
                noise("HOPE, length 512", row="hope", column="length 512"),
                noise("HOPE, length 64", row="hope", column="length 64"))),
        ),
        "A reconstruction: numbers among noise, where the paper pads images. Trained and tested "
        "with the same amount of noise. With more of it than in training, fixed layers give "
        "nothing: their answer is what they read a fixed time ago.",
        (noise("Mamba, length 512", row="mamba", column="length 512"),
         *(at("padded_noise", "noise_padded", f"{name} trained with less noise", row, 192)
           for name, row in (("HOPE", "hope"), ("S4D", "s4d"), ("Mamba", "mamba")))),
    ),
    Claim(
        "LinOSS is better on very long series",
        "On series of fifty thousand samples LinOSS is nearly twice as good as Mamba and LRU.",
        (("Rusch and Rus, 2025", "2410.03943"),), ABSTRACT,
        ("long_series.py",),
        tuple(Check(f"LinOSS is better than {name}.", HIGHER, (
            Figure("LinOSS", "long_series", "long series", "linoss", "accuracy"),
            Figure(name, "long_series", "long series", row, "accuracy")))
            for name, row in (("Mamba", "mamba"), ("S5", "s5"))),
        "Not the sets of the paper, and shorter: eight thousand samples, in which a slow "
        "oscillation is to be recognised in noise. S5 is in the place of LRU.",
        (Figure("S4D", "long_series", "long series", "s4d", "accuracy"),
         Figure("chance", "long_series", "long series", "chance", "accuracy", drawn=False)),
    ),
)  # fmt: skip

IDENTITIES = (
    Claim(
        "The hidden attention of a selective layer is exact",
        "The output of a selective layer is a matrix that depends on the data, times its input.",
        (("Ali et al., 2024", "2403.01590"),), CODE, ("hidden_attention.py",),
        tuple(
            Check(f"{name}: the matrix times the input is the output.", EXACT, (
                Figure("relative error", "hidden_attention", "", name, "largest relative error",
                       drawn=False),))
            for name in ("Mamba", "Mamba2", "Longhorn", "S4D", "S5", "LinOSS")
        ),
        "An identity, so no seeds: the largest error over random inputs.",
    ),
)  # fmt: skip

CLAIMS = (*STATES, *MEMORY, *IDENTITIES)
