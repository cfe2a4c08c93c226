from longstate.ops._layout import array, compute_dtype, rows

__all__ = ["array", "compute_dtype", "rows"]
