"""Claims about selecting, recalling and learning from what a model has read."""

from functools import partial

from claim import ABSTRACT, KNOWN, LONGHORN, MAMBA, NOTES, Claim, at
from verdicts import AS_GOOD, FAILS, HIGHER, KEPT, LOWER, SOLVES, Check, Figure

COPY, RECALL = "screen|selection", "screen|extrapolation"
CONTEXT = "screen|in_context"


def unsolved(studies: str, task: str, layers: dict[str, str], length: int) -> tuple[Check, ...]:
    """Layers without selection fail."""
    guess = at(studies, task, "chance", "chance", length)
    return tuple(
        Check(f"{name} fails.", FAILS, (at(studies, task, name, layer, length), guess))
        for name, layer in layers.items()
    )


def solved(
    studies: str, task: str, layers: dict[str, str], lengths: tuple[int, int]
) -> tuple[Check, ...]:
    """Layers that select solve it, at the training length and beyond."""
    return tuple(
        Check(f"{name} solves it {where}.", SOLVES, (at(studies, task, name, layer, n),))
        for name, layer in layers.items()
        for n, where in zip(lengths, ("at the training length", "beyond it"), strict=True)
    )


FIXED = {"S4D": "s4d", "S5": "s5", "LinOSS": "linoss"}
SELECTIVE = {"Mamba": "mamba", "Longhorn": "longhorn"}

SELECTION = (
    Claim(
        "Selective copying needs a layer that selects",
        "Data stand among noise at random places. A time-invariant layer (S4) cannot pick them "
        "out; a selective one (Mamba) can.",
        (MAMBA,), KNOWN, ("screens.py selective_copy", "screens.py selection"),
        (*unsolved("selective_copy", "selective_copy", FIXED, 48),
         *solved("selective_copy", "selective_copy", SELECTIVE, (48, 192))),
        "Smaller than the paper's: eight data symbols, and short training. What surprised: two "
        "gated blocks of time-invariant layers nearly learn the length of the training, though not "
        "a longer one. Shown below is a fifth of the steps, which are too few for Mamba.",
        (at("selective_copy", "selective_copy", "S4D", "s4d", 192),
         at(COPY, "selective_copy", "Mamba, a fifth of the steps", "mamba", 48),
         at(COPY, "selective_copy", "S4D, a fifth of the steps", "s4d", 48)),
    ),
    Claim(
        "Induction heads: a selective layer learns them and extrapolates",
        "Give the symbol that followed a mark. Time-invariant layers fail; Mamba learns it at one "
        "length and keeps it at far longer ones.",
        (MAMBA,), KNOWN, ("screens.py selection",),
        (*unsolved(COPY, "induction", FIXED, 64),
         *solved(COPY, "induction", SELECTIVE, (64, 512))),
        "Smaller than the paper's, and tested at eight times the training length.",
    ),
)  # fmt: skip

study = partial(Figure, studies="state_study")
text = partial(
    Figure,
    studies="length_extrapolation_tinyshakespeare",
    table="All 110,592 bytes, read in windows of",
)

ONLINE = (
    Claim(
        "Longhorn recalls better than Mamba",
        "Of the state space models that were compared, Longhorn is the best on associative recall "
        "of several queries.",
        (LONGHORN,), NOTES,
        ("state_study.py --data FOLDER --work FOLDER", "screens.py extrapolation"),
        (
            Check("With equal parameters Longhorn recalls more.", HIGHER, (
                study("Longhorn", table="recall", row="longhorn", column="metric (standard error)",
                      also={"equal": "parameters"}),
                study("Mamba", table="recall", row="mamba", column="metric (standard error)"),
            )),
            Check("With an equal state Longhorn recalls more.", HIGHER, (
                study("Longhorn", table="recall", row="longhorn", column="metric (standard error)"),
                study("Mamba", table="recall", row="mamba", column="metric (standard error)"),
            )),
            Check("With the default sizes, on fewer pairs, Longhorn recalls more.", HIGHER, (
                at(RECALL, "recall", "Longhorn", "longhorn", 20),
                at(RECALL, "recall", "Mamba", "mamba", 20),
            )),
        ),
        "Equal steps for both. A layer that fails here might learn with more of them.",
    ),
    Claim(
        "Longhorn keeps its quality beyond the training length",
        "Read in windows far longer than those of the training, its error does not grow.",
        (LONGHORN,), ABSTRACT,
        ("length_extrapolation.py tinyshakespeare.txt --work FOLDER", "screens.py extrapolation"),
        (
            Check("Text at sixteen times the training length, as released.", KEPT, (
                text("change in bits per byte", row="Longhorn, diagonal", column="4096 less 256"),
            )),
            Check("Text at sixteen times the training length, exact update.", KEPT, (
                text("change in bits per byte", row="Longhorn, exact", column="4096 less 256"),
            )),
            Check("Recall at four times the training length is as good.", AS_GOOD, (
                at("extrapolation", "recall", "Longhorn", "longhorn", 80),
                at("extrapolation", "recall", "Longhorn", "longhorn", 20),
            )),
        ),
        "Beside it, the change of other layers on the same text.",
        (*(text(row, row=row, column="4096 less 256") for row in ("Mamba", "Mamba-2", "S4D")),
         at("extrapolation", "recall", "recall by Mamba", "mamba", 80)),
    ),
    Claim(
        "Longhorn's exact update is better than the diagonal one",
        "The paper derives an exact minimiser and releases a diagonal approximation of it. Whether "
        "that costs quality was a question of the reviewers.",
        (LONGHORN,), NOTES,
        ("screens.py extrapolation", "length_extrapolation.py tinyshakespeare.txt --work FOLDER"),
        (
            Check("Recall at the training length.", HIGHER, (
                at("extrapolation", "recall", "exact", "longhorn_exact", 20),
                at("extrapolation", "recall", "diagonal", "longhorn", 20),
            )),
            Check("Bits per byte of text at the training length.", LOWER, (
                text("exact", row="Longhorn, exact", column="256"),
                text("diagonal", row="Longhorn, diagonal", column="256"),
            )),
            Check("Bits per byte of text at sixteen times the training length.", LOWER, (
                text("exact", row="Longhorn, exact", column="4096"),
                text("diagonal", row="Longhorn, diagonal", column="4096"),
            )),
        ),
        "A question of ours, asked with the papers' two forms.",
    ),
)  # fmt: skip

LEARNING = (
    Claim(
        "Attention copies better than a fixed state",
        "What a fixed state can copy is limited by its bits. Attention has no such limit, learns "
        "to copy faster, and copies longer words than in training.",
        (("Jelassi et al., 2024", "2402.01032"),), ABSTRACT, ("screens.py copy",),
        tuple(
            Check(f"Attention copies more than Mamba {where}.", HIGHER, (
                at("screen|copy", "copy", "attention", "attention", n),
                at("screen|copy", "copy", "Mamba", "mamba", n)))
            for where, n in (("at the training length", 33), ("at twice that", 65))
        ),
        "The right symbols are given while copying, so that no error leads to another.",
    ),
    Claim(
        "Mamba learns in context as well as attention, but not retrieval",
        "Trained on prompts of examples, Mamba does regression about as well as attention. It "
        "fails where a vector must be looked up.",
        (("Park et al., 2024", "2402.04248"),), NOTES, ("screens.py in_context",),
        (
            Check("Mamba is as good as attention on linear regression.", AS_GOOD, (
                at(CONTEXT, "icl_linear", "Mamba", "mamba", 28),
                at(CONTEXT, "icl_linear", "attention", "attention", 28))),
            Check("Attention is better at retrieval.", HIGHER, (
                at("in_context", "icl_retrieval", "attention", "attention", 17),
                at("in_context", "icl_retrieval", "Mamba", "mamba", 17))),
        ),
        "Far smaller and far shorter training than the paper's.",
    ),
)  # fmt: skip

CLAIMS = (*SELECTION, *ONLINE, *LEARNING)
