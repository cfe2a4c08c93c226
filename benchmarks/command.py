"""The command line of every benchmark: `--help` prints the script's docstring and runs nothing."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def parser(doc: str | None) -> argparse.ArgumentParser:
    """For a script that has options to add.

    Args:
        doc: the docstring of the script.
    """
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


@contextmanager
def peers(name: str, doc: str | None, packages: str) -> Iterator[None]:
    """Around the imports of packages that longstate does not need.

    Where one is missing, `--help` works all the same, and anything else ends with a sentence.

    Args:
        name: `__name__` of the script. doc: its docstring.
        packages: what pip has to install.
    """
    try:
        yield
    except ImportError as error:
        if name != "__main__":
            raise
        parser(doc).parse_known_args()
        sys.exit(f"{sys.argv[0]}: {error}; pip install {packages}")
