"""The command line of every benchmark: `--help` prints the script's docstring and runs nothing."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser to which a script can add options.

    Args:
        doc: the docstring of the script.
    """
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


@contextmanager
def peers(name: str, doc: str | None, packages: str) -> Iterator[None]:
    """Context manager for the import of packages that longstate does not need.

    If one is missing, `--help` still works, and otherwise the script exits with a message.

    Args:
        name: `__name__` of the script. doc: its docstring.
        packages: names for `pip install`.
    """
    try:
        yield
    except ImportError as error:
        if name != "__main__":
            raise
        parser(doc).parse_known_args()
        sys.exit(f"{sys.argv[0]}: {error}; pip install {packages}")
