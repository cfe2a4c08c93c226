"""Columns of text: the levels of training, and their codes.

Axes: n rows.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from longstate.models._spec import Category

MOST_LEVELS = 1000
MISSING = ("", "na", "nan", "null", "none")
Role = Literal["static", "known", "covariate"]


def is_text(column: pd.Series) -> bool:
    """Whether a column holds texts and no number."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        return False
    if getattr(column.dtype, "kind", "") in "Mmc":
        return False
    words = as_texts(column)
    given = words[words.notna() & ~words.str.lower().isin([*MISSING, "true", "false"])]
    return len(given) > 0 and bool(pd.to_numeric(given, errors="coerce").isna().all())


def as_texts(column: pd.Series) -> pd.Series:
    """Every value as text without spaces around it; whole numbers without a point."""
    if pd.api.types.is_float_dtype(column) and bool((column.dropna() % 1 == 0).all()):
        column = column.astype("Int64")
    return column.astype("string").str.strip()


def category_of(column: pd.Series, role: Role) -> tuple[Category, list[str]]:
    """The category of a column of training, and remarks."""
    words = as_texts(column)
    words = words[words.notna() & ~words.str.lower().isin(MISSING)]
    counts = Counter(words.tolist()).most_common()
    levels = tuple(sorted(word for word, _ in counts[:MOST_LEVELS]))
    notes = []
    if len(counts) > MOST_LEVELS:
        notes.append(
            f"Column {column.name!r} holds {len(counts):,} different texts; the {MOST_LEVELS:,} "
            "most frequent are read, and the others are taken as unknown."
        )
    return Category(str(column.name), role, levels), notes


def codes_of(column: pd.Series, levels: Sequence[str]) -> np.ndarray:
    """(n) float64: 1 and so on in the order of the levels; 0 for missing and other texts."""
    code = {level: i for i, level in enumerate(levels, start=1)}
    return as_texts(column).map(code).fillna(0).to_numpy(dtype=np.float64)
