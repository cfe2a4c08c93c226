"""Accuracy of Mamba-2 on associative recall against the share of the state that is kept.

    python benchmarks/reduce_recall.py       one thread; the first run also trains the models

Two layers of 32 channels with states of 32, three seeds, are trained on 6 pairs of 16 keys and 16
values (`recall.py`), then reduced without any training. Every method sees the same 500 rows of
tokens and nothing else; accuracy is that on 2,000 other rows. Both layers together keep r / 32 of
their states. "measured": each layer keeps what its effect on the output asks for; "uniform": both
keep r.
"""

import statistics
from collections.abc import Iterable

import torch
from command import parser
from measure import machine, save
from published import NAMES, compare, error_of_mean
from recall import SEEDS, recall, right, trained

from longstate import reduce
from longstate.models import LanguageModel

FULL, SIZES = 32, (16, 8, 4, 2)
METHODS = (  # and how the sizes of the two layers are chosen
    ("auto", "measured"),
    ("auto", "uniform"),
    ("energy", "measured"),
    ("ghost", "measured"),
    ("magnitude", "measured"),
    ("random", "measured"),
)


def accuracies(model: LanguageModel, method: str, allocation: str) -> list[float]:
    """After a reduction to each of the sizes."""
    fit, test = recall(500, 11)[0], recall(2000, 12)
    found = []
    for r in SIZES:
        small = reduce(model, fit, keep=r / FULL, method=method, allocation=allocation).model
        found.append(right(small, *test))
    return found


def spread(values: Iterable[float]) -> str:
    """Mean and standard error over seeds, in percent, and the least."""
    v = [100 * x for x in values]
    return f"{statistics.mean(v):.1f} ± {error_of_mean(v):.1f} ({min(v):.1f})"


def compared(found: dict[tuple[str, str], list[list[float]]]) -> list[str]:
    """Ours beside the best published score at every size: a table."""
    lines = [
        "## Ours on recall beside the best published score", "",
        "Difference: right answers with ours less those with the published score, in points of",
        "percent, mean ± standard error over seeds. Last column: whether ours is at least as good",
        "within one standard error.", "",
        "| r | best published | difference | as good |", "|---|---|---|---|",
    ]  # fmt: skip
    for i, r in enumerate(SIZES):
        wrong = {
            method: [100 * (1 - row[i]) for row in rows]
            for (method, allocation), rows in found.items()
            if allocation == "measured"
        }
        lines.append(f"| {r} | {' | '.join(compare(wrong).cells(1))} |")
    return lines


def table() -> list[str]:
    models = [trained(seed) for seed in SEEDS]
    test = recall(2000, 12)
    whole = [right(m, *test) for m in models]
    lines = [
        f"Whole models: {spread(whole)}. Percent right, mean ± standard error over three seeds"
    ]
    lines += ["(least of them).", ""]
    lines += [f"| method | sizes | {' | '.join(f'r = {r}' for r in SIZES)} |"]
    lines += ["|---|---|" + "---|" * len(SIZES)]
    found = {}
    for method, allocation in METHODS:
        rows = [accuracies(m, method, allocation) for m in models]
        found[method, allocation] = rows
        cells = " | ".join(spread(row[i] for row in rows) for i in range(len(SIZES)))
        lines.append(f"| {NAMES[method]} | {allocation} | {cells} |")
        print(lines[-1], flush=True)
    kept = [rows[1] / w for rows, w in zip(found["auto", "measured"], whole, strict=True)]
    lines += ["", f"Ours at r = 8 keeps {min(kept):.1%} of the accuracy in the worst seed."]
    return [*lines, "", *compared(found)]


def main() -> None:
    parser(__doc__).parse_args()
    torch.set_num_threads(1)
    lines = ["# Associative recall with a smaller state", "", machine(), "", *table()]
    save("reduce_recall", "\n".join(lines))


if __name__ == "__main__":
    main()
