"""Small series and small settings, so that a test trains in about a second."""

import numpy as np
import pandas as pd

from longstate.train import Size, Training

TINY = Size(d_model=4, n_layers=1, d_state=4)
QUICK = Training(epochs=2, windows_per_epoch=64, batch_size=16)


def hourly(rows=400, seed=0, start="2024-01-01"):
    """y has a daily cycle, and follows the square of x; z is known in advance."""
    draw = np.random.default_rng(seed)
    t = np.arange(rows)
    x = np.sin(t / 7) + 0.1 * draw.standard_normal(rows)
    z = np.cos(t / 11)
    y = 20 + 3 * np.sin(2 * np.pi * t / 24) + x**2 + z + 0.1 * draw.standard_normal(rows)
    times = pd.date_range(start, periods=rows, freq="h")
    return pd.DataFrame({"date": times.astype(str), "y": y, "x": x, "z": z})


def months(seed=0):
    """A panel in long form: six monthly series of different lengths and sizes, in mixed order."""
    draw = np.random.default_rng(seed)
    parts = []
    for i, rows in enumerate((80, 60, 30, 80, 70, 45)):
        times = pd.date_range("2015-01-01", periods=80, freq="MS")[80 - rows :]
        season = np.sin(2 * np.pi * (times.month - i % 3) / 12)
        y = 10**i * (5 + season + 0.1 * draw.standard_normal(rows))
        names = {"unique_id": f"s{i}", "kind": "abc"[i % 3], "size": float(i)}
        parts.append(pd.DataFrame({"ds": times, "y": y, **names}))
    return pd.concat(parts, ignore_index=True)


def write_arrow(frame, path, *, stream=False, rows=None):
    """Write an Arrow file, or a stream, in batches of so many rows."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame)
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(str(path), table.schema) as file:
        file.write_table(table, max_chunksize=rows)
