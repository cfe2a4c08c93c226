"""`import mamba_ssm` and `import causal_conv1d` if the packages are not installed.

A finder at the end of `sys.meta_path` creates the modules that `names.py` lists; each looks up a
name in this library at the first use. Installed packages are found first and are not changed: on a
machine with the packages, the same program uses them.

The modules have no distribution: `importlib.metadata` does not find them, and versions end in
"+longstate".
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from longstate.interop.mamba_ssm.names import NAMES, REFUSED, REFUSED_MODULES, VERSIONS

PACKAGES = tuple(VERSIONS)
_HOME = "longstate.interop.mamba_ssm"
_PARENTS = {name.rpartition(".")[0] for name in (*NAMES, *REFUSED_MODULES)}


class _Finder(MetaPathFinder, Loader):
    """Finds and creates the modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = sys.modules.get(name.partition(".")[0])
        if name.partition(".")[0] not in PACKAGES or (package and not _made_here(package.__spec__)):
            return None
        if name in REFUSED_MODULES:
            raise ModuleNotFoundError(_sentence(name, REFUSED_MODULES[name]), name=name)
        if name in NAMES or name in _PARENTS:
            return ModuleSpec(name, self, origin="longstate", is_package=name in _PARENTS)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """None: Python creates an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Set up the lazy look-up of names."""
        name = module.__name__
        module.__doc__ = f"The names of `{name}`, computed by longstate."
        homes = {
            published: (home, own or published)
            for home, names in NAMES.get(name, {}).items()
            for published, own in map(_both_names, names.split())
        }
        refused = REFUSED.get(name, {})

        def look_up(wanted: str) -> Any:
            if wanted in homes:
                home, own = homes[wanted]
                found = getattr(import_module(f"{_HOME}.{home}"), own)
                setattr(module, wanted, found)
                return found
            if wanted in refused:
                raise ImportError(_sentence(f"{name}.{wanted}", refused[wanted]))
            raise AttributeError(f"module {name!r} has no attribute {wanted!r}")

        public = [published for published in homes if not published.startswith("_")]
        module.__getattr__ = look_up  # type: ignore[method-assign]
        module.__all__ = public  # type: ignore[attr-defined]
        module.__dir__ = lambda: [*vars(module), *homes]  # type: ignore[method-assign]
        if name in VERSIONS:
            module.__version__ = VERSIONS[name]  # type: ignore[attr-defined]


def _both_names(entry: str) -> tuple[str, str]:
    """The published name, and longstate's name if different: `ours=published` in the table."""
    own, _, published = entry.rpartition("=")
    return published, own


def _sentence(name: str, way_out: str) -> str:
    return f"longstate does not provide {name}: {way_out}"


@dataclass(frozen=True)
class Provided:
    """The result of `provide_mamba_ssm`. As a context manager it is undone at the end.

    Attributes:
        packages: those of "mamba_ssm" and "causal_conv1d" that this library provides. The others
            are installed.
    """

    packages: tuple[str, ...]
    _finder: MetaPathFinder | None = field(repr=False)

    def undo(self) -> None:
        """Remove the names again, if this call added them.

        Objects that were imported from them stay usable. A second call does nothing.
        """
        if self._finder is None or self._finder not in sys.meta_path:
            return
        sys.meta_path.remove(self._finder)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in PACKAGES and _made_here(module.__spec__):
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

    Call it before the code that imports them: many projects check at import what is available. It
    can be called again. A published name that is not provided raises ImportError with a sentence
    that says what to use instead.

    Returns:
        The provided packages, with `undo()`.
    """
    finder = None
    if not any(isinstance(f, _Finder) for f in sys.meta_path):
        finder = _Finder()
        sys.meta_path.append(finder)
    return Provided(tuple(name for name in PACKAGES if _is_ours(name)), finder)


def _is_ours(name: str) -> bool:
    module = sys.modules.get(name)
    return _made_here(find_spec(name) if module is None else getattr(module, "__spec__", None))


def _made_here(spec: ModuleSpec | None) -> bool:
    return spec is not None and isinstance(spec.loader, _Finder)
