"""The table of a data frame: for a training, and for a fitted forecaster."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from longstate.errors import InputError, near
from longstate.models import ForecastSpec
from longstate.train._columns import Columns
from longstate.train._frame import Data, Names, as_frame, find_time, names_of, only_column
from longstate.train._labels import Role, category_of, is_text
from longstate.train._origin import Origin, later_series, until
from longstate.train._panel_table import ID, TIME, VALUE, make_panel, melt
from longstate.train._table import Table, make_table
from longstate.train._time_step import Timing


@dataclass(frozen=True)
class Roles:
    """The columns of `Forecaster.fit`, as they are given."""

    target: Names | None
    covariates: Names = ()
    known: Names = ()
    time: str | int | None = None
    id: str | int | None = None
    static: Names = ()
    wide: bool = False


def training_table(data: Data, roles: Roles, timing: Timing) -> tuple[Table, tuple[str, ...]]:
    """The table of a training, and notes on what was found in the columns.

    Raises:
        InputError: the data cannot be used.
    """
    frame = _flat(as_frame(data))
    when = None if roles.time is None else str(roles.time)
    id = None if roles.id is None else str(roles.id)
    notes: list[str] = []
    covariates, known, static = map(names_of, (roles.covariates, roles.known, roles.static))
    others = (*covariates, *known, *static)
    target = None if roles.target is None else names_of(roles.target)
    if roles.wide:
        if id is not None or target is None:
            raise InputError("a wide frame needs the columns of its series as target, and no id")
        frame, when, found = find_time(frame, when, (*target, *others))
        notes += found
        frame = melt(frame, target)
        id, target = ID, (VALUE,)
    elif id is None and {ID, TIME, VALUE} <= set(frame.columns):
        id, when, target = ID, when or TIME, target or (VALUE,)
        notes.append(
            f"Columns {ID!r}, {TIME!r} and {VALUE!r} were found: one model for all series."
        )
    if id is None and static:
        raise InputError("static columns are of the series of a panel; id (--id) names its column")
    if target is None:
        rest = frame.drop(columns=[n for n in (id, *others) if n in frame.columns])
        at = when if len(rest.columns) == 1 else _with_time(frame, id, when, others)[1]
        target = (only_column(rest, at),)
    frame, when, found = _with_time(frame, id, when, (*target, *others))
    notes += () if roles.wide else found
    categories = []
    for names, role in _roles(covariates, known, static):
        for name in names:
            if name in frame.columns and (name == id or is_text(frame[name])):
                one, remarks = category_of(frame[name], role)
                categories.append(one)
                notes += remarks
    texts = {one.column for one in categories}
    if texts:
        notes.append(
            f"{', '.join(map(repr, sorted(texts)))}: text, which the network alone reads; ridge "
            "and line do not."
        )
    left = [tuple(n for n in names if n not in texts) for names in (covariates, known, static)]
    columns = Columns(target, left[0], left[1], when, id, left[2], tuple(categories))
    make = make_table if id is None else make_panel
    return make(frame, columns, timing=timing), tuple(notes)


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the levels of its index as columns, if it has several, such as id and time."""
    if frame.index.nlevels == 1:
        return frame
    return frame.reset_index(level=[n for n in frame.index.names if n not in (None, *frame)])


def _roles(
    covariates: tuple[str, ...], known: tuple[str, ...], static: tuple[str, ...]
) -> tuple[tuple[tuple[str, ...], Role], ...]:
    return (static, "static"), (known, "known"), (covariates, "covariate")


def _with_time(
    frame: pd.DataFrame, id: str | None, time: str | None, used: Sequence[str]
) -> tuple[pd.DataFrame, str | None, tuple[str, ...]]:
    """`find_time`; in a panel by the rows of one series, because times begin anew in each."""
    if id is None:
        return find_time(frame, time, tuple(used))
    if id not in frame.columns:
        raise InputError(f"there is no column {id!r}; {near(id, frame.columns)}")
    if time is None and TIME in frame.columns and TIME not in used:
        return frame, TIME, ()
    one = frame[frame[id] == frame[id].iloc[0]] if len(frame) else frame
    found, time, notes = find_time(one, time, (id, *used))
    if time is not None and time not in frame.columns and time in found.columns:
        frame = frame.rename_axis(time).reset_index()
    return frame, time, notes


def table_for(data: Data, spec: ForecastSpec, origin: Origin | None = None) -> Table:
    """The columns of `spec`, on its calendar, up to `origin`; the time may have another name. A
    panel that was trained on a wide frame takes one, too.

    Raises:
        InputError: the data or the origin cannot be used.
    """
    frame = named(data, spec)
    if origin is None:
        return table_of(frame, spec)
    kept = until(frame, spec, origin)
    table = table_of(kept, spec)
    return replace(table, notes=(*table.notes, *later_series(frame, kept, spec)))


def table_of(frame: pd.DataFrame, spec: ForecastSpec) -> Table:
    """The table of a frame from `named`."""
    columns = Columns(
        spec.targets,
        spec.covariates,
        spec.known,
        spec.time,
        spec.id,
        spec.static,
        spec.categories,
    )
    make = make_table if spec.id is None else make_panel
    return make(frame, columns, calendar=spec.calendar)


def named(data: Data, spec: ForecastSpec) -> pd.DataFrame:
    """The data as a long frame, with the time under the name of training."""
    frame = _flat(as_frame(data))
    used = (*spec.targets, *spec.covariates, *spec.known, *spec.static)
    wide: list[str] = []
    if spec.id is not None and spec.id not in frame.columns:
        wide = [name for name in spec.series if name in frame.columns]
        if not wide:
            raise InputError(
                f"there is no column {spec.id!r}, which names the series; "
                f"{near(spec.id, frame.columns)}"
            )
    if spec.time is not None and spec.time not in frame.columns:
        frame, found, _ = _with_time(frame, None if wide else spec.id, None, (*used, *wide))
        if found is not None:
            frame = frame.rename(columns={found: spec.time})
    if wide:
        frame = melt(frame, wide)
    return frame
