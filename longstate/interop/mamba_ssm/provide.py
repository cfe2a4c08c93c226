"""`import mamba_ssm` and `import causal_conv1d` where the packages are not installed.

The folder `published` has the two packages as files that import what this one computes. A finder at
the end of `sys.meta_path` finds them there. What is really installed is found before, and stays: on
a machine that has the packages, the same program runs on them.

There is no distribution behind the names: `importlib.metadata` does not know them, and versions end
in "+longstate".
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

PACKAGES = ("mamba_ssm", "causal_conv1d")
FOLDER = Path(__file__).parent / "published"


class _Finder(MetaPathFinder):
    """Finds the packages; what is in them is found by Python, through their `__path__`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(FOLDER)]) if name in PACKAGES else None


@dataclass(frozen=True)
class Provided:
    """What `provide_mamba_ssm` did. As a context manager it takes that back at the end.

    Attributes:
        packages: those of "mamba_ssm" and "causal_conv1d" that are this library's. The others are
            really installed.
    """

    packages: tuple[str, ...]
    _finder: MetaPathFinder | None = field(repr=False)

    def undo(self) -> None:
        """Take the names away again, if it was this call that made them.

        What was imported from them stays usable. A second time does nothing.
        """
        if self._finder is None or self._finder not in sys.meta_path:
            return
        sys.meta_path.remove(self._finder)
        for name in [n for n in sys.modules if n.partition(".")[0] in PACKAGES and _is_ours(n)]:
            del sys.modules[name]

    def __enter__(self) -> "Provided":
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def provide_mamba_ssm() -> Provided:
    """Make `mamba_ssm` and `causal_conv1d` importable, on any device, unless they are installed.

        provide_mamba_ssm()
        from mamba_ssm import Mamba
        from causal_conv1d import causal_conv1d_fn

    Call it before the code that imports them: many projects decide at import what there is. To call
    it again is harmless.

    Returns:
        What was provided, with `undo()`.
    """
    finder = None
    if not any(isinstance(f, _Finder) for f in sys.meta_path):
        finder = _Finder()
        sys.meta_path.append(finder)
    return Provided(tuple(name for name in PACKAGES if _is_ours(name)), finder)


def _is_ours(name: str) -> bool:
    module = sys.modules.get(name)
    spec = find_spec(name) if module is None else getattr(module, "__spec__", None)
    return spec is not None and FOLDER in Path(spec.origin or "").parents
