"""Read the file of a data frame, by its content: CSV, Parquet or Arrow; or a folder of files."""

from pathlib import Path

import pandas as pd

from longstate._formats import TABLE, table_format
from longstate.errors import InputError
from longstate.train._arrow import read_arrow
from longstate.train._csv import read_csv

EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
SERIES = "unique_id"


def read_table(path: str | Path) -> pd.DataFrame:
    """The table in a CSV file, as `read_csv` reads it, or in a Parquet or Arrow file, with its
    index; or the tables in a folder, joined.

    Args:
        path: a file, or a pipe with CSV. The content decides, not the name. Or a folder of such
            files with the same columns. Its rows are joined in the order of the names, which are
            in a new column `unique_id`, without their endings, unless the files have one.

    Raises:
        InputError: the file is missing, damaged or of another format, or holds no rows; or it is a
            Parquet or Arrow file, and pyarrow is not installed; or the files of a folder have other
            columns.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        if path.suffix.lower() in EXCEL:
            raise InputError(
                f"{path} is a spreadsheet; save the sheet as a CSV file (in Excel: File, Save As, "
                "CSV UTF-8), or in Python read it with pandas.read_excel and give the frame"
            )
        if table_format(path) is not None:
            return read_arrow(path)
    return read_csv(path)


def _read_folder(folder: Path) -> pd.DataFrame:
    files = sorted(p for p in folder.iterdir() if TABLE.search(p.name) and p.is_file())
    if not files:
        raise InputError(
            f"{folder} is a folder without tables; CSV, Parquet or Arrow files were expected"
        )
    frames: list[pd.DataFrame] = []
    for file in files:
        frame = read_table(file)
        named = [name for name in frame.index.names if name is not None]
        frame = frame.reset_index(level=named) if named else frame
        if SERIES not in frame:
            frame.insert(0, SERIES, TABLE.sub("", file.name))
        if frames and set(frame) != set(frames[0]):
            odd = min(map(str, set(frame) ^ set(frames[0])))
            has = "has" if odd in frame else "lacks"
            raise InputError(f"{file} {has} the column {odd!r}, unlike {files[0]}")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
