"""`longstate certify` and `longstate memory`: bounds for all inputs, and what a model remembers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate.cli._runs import Reading, Run
from longstate.cli._terminal import say, write

if TYPE_CHECKING:
    from longstate.memory import Certificate


ROWS, LENGTH = 4, 512


def certify(
    model: Run,
    data: Reading = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON instead of a table.")
    ] = False,
    attack: Annotated[bool, typer.Option(help="Also search for the worst inputs.")] = True,
    radius: Annotated[
        float | None,
        typer.Option(
            help="Largest Euclidean norm of a sample, for layers that have no norm before them."
        ),
    ] = None,
    dt: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH",
            help="Shortest and longest time between samples, 1 being the regular interval.",
        ),
    ] = (1.0, 1.0),
) -> None:
    """Compute bounds on a model's states that hold for all inputs.

    The exit code is 1 if a claim fails.
    """
    from longstate.cli.show import show_certificate, working
    from longstate.memory import certify, layers_of
    from longstate.reports._subject import open_subject

    subject = open_subject(model)
    read = None if data is None else subject.read(data).data(ROWS, subject.length or LENGTH)
    with working("certifying", sum(1 for _ in layers_of(subject.model))) as show:
        found: Certificate = certify(
            subject.model, read, attack=attack, radius=radius, dt=dt, progress=show
        )
    if json:
        write(found.to_json() + "\n")
    else:
        show_certificate(found)
        say(found.sentence)
        for remark in subject.remarks if dt == (1.0, 1.0) else ():
            say(remark)
    if not found.passed:
        raise typer.Exit(1)


def memory(
    model: Run,
    data: Reading = None,
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("memory.html"),
) -> None:
    """Show what the layers of a model remember: a table, and a report to open in a browser."""
    from longstate.cli.show import show_layers, working
    from longstate.memory import layers_of
    from longstate.reports import memory as report
    from longstate.reports._subject import open_subject

    subject = open_subject(model)
    reading = subject.read(data)
    with working("measuring", 3 * sum(1 for _ in layers_of(subject.model))) as show:
        found = report.examine(subject, reading, progress=show)
    show_layers(found)
    for said in (report.headline(found), *subject.remarks):
        say(said)
    say(f"The report is {report.write(found, out)}")
