from longstate.ops._layout import on_large_pages

__all__ = ["on_large_pages"]
