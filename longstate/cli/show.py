"""Tables and a progress bar on the console."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import nn

from longstate._numbers import score
from longstate.cli._terminal import say, show_facts, show_table, visible
from longstate.layers import Layer

if TYPE_CHECKING:  # commands that show little should start soon
    from longstate.compress import Reduction
    from longstate.memory import Certificate
    from longstate.models import ForecastSpec
    from longstate.reports.memory import MemoryReport
    from longstate.train import Backtest, Forecaster, ForecastEvaluation, Progress
    from longstate.train._chosen import Chosen

WORST = 5  # series that are shown


@contextmanager
def progress_bar(what: str = "training") -> Iterator[Callable[["Progress"], None]]:
    """Steps done, the best validation loss and the time left, on standard error."""
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("step {task.completed:.0f} of at most {task.total:.0f}"),
        TextColumn("best {task.fields[best]} at step {task.fields[at]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=math.inf, best="-", at=0)

    def show(progress: "Progress") -> None:
        bar.start()  # started at the first step, because the data may be refused before
        bar.update(
            task,
            total=progress.total,
            completed=progress.step,
            best=f"{progress.best_loss:.4f}",
            at=progress.best_step,
        )

    try:
        yield show
    finally:
        bar.stop()


@contextmanager
def working(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on standard error, for work that takes longer than two seconds.

    Yields:
        A function to call with the name of each of the `total` parts before it begins.
    """
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.fields[part]}"))
    console = Console(stderr=True)
    bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=total, part="")
    later = threading.Timer(2.0, bar.start)
    later.daemon = True
    begun = -1

    def show(part: str) -> None:
        nonlocal begun
        begun += 1
        bar.update(task, completed=begun, part=escape(visible(part)))

    later.start()
    try:
        yield show
    finally:
        later.cancel()
        later.join()
        bar.stop()


def show_evaluation(evaluation: "ForecastEvaluation") -> None:
    from longstate.train._summary import SCORE_HEAD, score_cells

    e = evaluation
    title = (
        f"{', '.join(e.targets)}: {e.windows} windows, horizon {e.horizon}, {e.first} to {e.last}"
    )
    caption = (
        "MSE, MAE and CRPS in units of the training part's deviation; CRPS is an estimate from the "
        f"quantiles, a little too small; sMAPE in percent; a season has {e.season} rows"
    )
    show_table(title, SCORE_HEAD, score_cells(e), caption=caption)
    if e.quantiles:
        found = ", ".join(
            f"{100 * q.observed:.0f} % (asked {100 * q.level:g} %)" for q in e.quantiles
        )
        say(f"Share of the truth at or below each quantile: {found}.")
    for band in e.bands:
        say(band.words())
    for sentence in (*e.verdict(), *e.notes):
        say(sentence)
    if e.series:
        worst = [one.cells() for one in e.series[:WORST]]
        show_table(
            "The series with the largest errors",
            ("series", "values", "MSE", e.series[0].best),
            worst,
        )
        say(e.by_series() or "")


def show_backtest(found: "Backtest", spec: "ForecastSpec") -> None:
    """The scores and notes of a backtest."""
    levels, rows = spec.quantiles, []
    for row in found.scores.to_dict("records"):
        held = "-" if row["held"] != row["held"] else f"{100 * row['held']:.0f} %"
        errors = [score(row[name]) for name in ("mae", "rmse")]
        rows.append([row["target"], row["method"], *errors, held])
    unit = "the unit of the target" if spec.id is None else "standard deviations of each series"
    caption = f"MAE and RMSE in {unit}"
    if len(levels) > 1:
        asked = 100 * (levels[-1] - levels[0])
        caption += f"; held: share of the truth in the widest band ({asked:g} % are asked)"
    head = ("target", "method", "MAE", "RMSE", "held")
    show_table("Backtest", head, rows, caption=caption, right=2)
    if spec.id is not None:
        _show_worst(found)
    for sentence in found.notes:
        say(sentence)


def _show_worst(found: "Backtest") -> None:
    """The series of a backtest with the largest errors of the model."""
    model = found.series[found.series["method"] == "model"]
    rows = [
        [str(row["series"]), row["target"], f"{row['values']:,}", *map(score, row[["mae", "rmse"]])]
        for _, row in model.sort_values("scaled", ascending=False)[:WORST].iterrows()
    ]
    show_table(
        "The series with the largest errors",
        ("series", "target", "values", "MAE", "RMSE"),
        rows,
        caption="MAE and RMSE in the unit of the target; the largest share of its standard "
        "deviation first",
        right=2,
    )


def show_choice(choice: "Chosen | None") -> None:
    """The weights of the methods and their errors on validation."""
    from longstate.train._summary import CHOICE_HEAD

    if choice is None:
        return
    show_table("What the forecast is made of", CHOICE_HEAD, [p.cells() for p in choice.parts])
    for sentence in choice.sentences():
        say(sentence)


def show_forecaster(run: Path, forecaster: "Forecaster") -> None:
    from longstate.train._summary import described

    show_facts(str(run), described(forecaster))
    show_choice(forecaster.choice)
    for note in forecaster.facts["notes"]:
        say(note)


def show_model(run: Path, model: nn.Module) -> None:
    """A table of a model or a layer without the record of a training."""
    from longstate.train._summary import settings

    layers = [type(m).__name__ for m in model.modules() if isinstance(m, Layer)]
    rows = {
        "what": type(model).__name__,
        "layers": ", ".join(layers) if len(layers) <= 6 else f"{len(layers)}: {layers[0]}, ...",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
    }
    spec = getattr(model, "spec", None)
    rows |= {} if spec is None else settings(spec)
    show_facts(str(run), rows)


def show_certificate(found: "Certificate") -> None:
    head, body = found.rows()
    rows: list[list[str]] = []
    layer = ""
    for name, *cells in body:
        if name != layer:
            rows.append([name])
            layer = name
        rows.append(cells)
    show_table("", head[1:], rows, right=2)


def show_reduction(found: "Reduction") -> None:
    head, body = found.rows()
    rows = [row for name, *cells, _ in body for row in ([name], cells)]
    show_table("", head[1:-1], rows)
    for name, *_, remark in body:
        if remark:
            say(f"{name}: {remark}")


def show_layers(found: "MemoryReport") -> None:
    head, body = found.rows()
    show_table(f"{found.name}, reading {found.what}", head, body, right=2)
