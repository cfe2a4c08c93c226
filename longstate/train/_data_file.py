"""Read the file of a data frame, by its content: CSV or Parquet."""

from pathlib import Path

import pandas as pd

from longstate._formats import PARQUET, table_format
from longstate.errors import InputError, needs
from longstate.train._csv import read_csv

EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")


def read_table(path: str | Path) -> pd.DataFrame:
    """The table in a CSV file, as `read_csv` reads it, or in a Parquet file, with its index.

    Args:
        path: a file, or a pipe with CSV. The content decides, not the name.

    Raises:
        InputError: the file is missing, damaged or of another format, or holds no rows; or it is a
            Parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() in EXCEL:
            raise InputError(
                f"{path} is a spreadsheet; save the sheet as a CSV file (in Excel: File, Save As, "
                "CSV UTF-8), or in Python read it with pandas.read_excel and give the frame"
            )
        if table_format(path) == PARQUET:
            return _read_parquet(path)
    return read_csv(path)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except ImportError:
        raise needs(str(path), "pyarrow", "parquet") from None
    except Exception as e:  # pyarrow's own errors
        why = " ".join(str(e).split())[:200]
        raise InputError(f"{path} is not a readable Parquet file: {why}") from None
    if frame.empty:
        raise InputError(f"{path} holds no rows of data")
    return frame
