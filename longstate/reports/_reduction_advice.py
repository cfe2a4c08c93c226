"""Advice: the first box of the page about a reduction. Each line has figures that were measured."""

from longstate._numbers import number
from longstate.compress import SizePoint
from longstate.reports._memory_advice import Advice, _quoted
from longstate.reports._reduction_examine import ReductionReport

ALLOWED = 0.01  # a metric that is worse by no more than this share counts as kept


def advice(report: ReductionReport) -> list[Advice]:
    """The advice, most useful first; never empty."""
    said = [*_cost(report), *_other_size(report), *_full(report), *_parked(report)]
    return said or [Advice("Use the smaller model; no change is suggested.", "")]


def _cost(report: ReductionReport) -> list[Advice]:
    """Whether the smaller model is good enough, and healing if it is not."""
    if report.before is None or report.after is None:
        return [
            Advice(
                "What the task loses was not measured. Give data.",
                f"longstate reduce {_quoted(report.name)} --data FILE --out NEW",
            )
        ]
    worse = report.after / report.before - 1 if report.before else 0.0
    values = f"{report.metric} goes from {number(report.before)} to {number(report.after)}"
    if worse <= ALLOWED:
        said = f"Use it: {values}, within {100 * ALLOWED:.0f} %."
        return [Advice(said, f"longstate info {_quoted(report.out)}")]
    said = f"{values}, {100 * worse:.1f} % worse."
    if report.found.healing is None:
        command = f"longstate reduce {_quoted(report.name)} --heal-minutes 5 --data FILE --out NEW"
        return [Advice(f"{said} Training towards the whole model's outputs may help.", command)]
    if report.found.healing.ended == "out of time":
        return [Advice(f"{said} The healing ran out of time; give it more.", "--heal-minutes")]
    return [Advice(f"{said} Healing no longer helps; keep more of the state.", "--keep")]


def _other_size(report: ReductionReport) -> list[Advice]:
    """The smallest measured state that costs little, if it is another than this one."""
    best = cheapest(report)
    if best is None or report.before is None or report.after is None:
        return []
    size = report.found.bytes_after
    fine = report.after <= report.before * (1 + ALLOWED)
    if best.keep == 1 or (fine and best.bytes >= size) or (not fine and best.bytes <= size):
        return []
    command = f"longstate reduce {_quoted(report.name)} --keep {best.keep:g} --data FILE --out NEW"
    return [
        Advice(
            f"With {best.keep:g} of each layer's state ({best.bytes:,} bytes) {report.metric} is "
            f"{number(best.metric)}, within {100 * ALLOWED:.0f} % of the whole model.",
            command,
        )
    ]


def cheapest(report: ReductionReport) -> SizePoint | None:
    """The smallest measured state whose metric counts as kept."""
    if report.sizes is None or report.before is None:
        return None
    limit = report.before * (1 + ALLOWED)
    return min(
        (p for p in report.sizes.points if p.metric <= limit), key=lambda p: p.bytes, default=None
    )


def _full(report: ReductionReport) -> list[Advice]:
    full = [row.layer for row in report.found.layers if row.full]
    if not full:
        return []
    names = ", ".join(full[:4]) + (f" and {len(full) - 4} more" if len(full) > 4 else "")
    return [
        Advice(
            f"Layers that need more than nine tenths of their states: {names}. A smaller state "
            "costs much of their output.",
            "",
        )
    ]


def _parked(report: ReductionReport) -> list[Advice]:
    """The fewest bits from which the smaller model does as well as from its state."""
    if report.bits is None:
        return []
    limit = report.bits.exact * (1 + ALLOWED)
    fine = [p for p in report.bits.points if p.metric <= limit]
    if not fine:
        return []
    least = min(fine, key=lambda p: p.bits)
    return [
        Advice(
            f"A state that waits needs {least.bits:,.0f} of its {report.bits.state_bits:,} bits: "
            f"from it {report.metric} is {number(least.metric)}, and {number(report.bits.exact)} "
            "from the state as it is.",
            "longstate.park(state, longstate.fit_codec(model, data, ...))",
        )
    ]
