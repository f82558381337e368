"""gkiller: trains, proves and ships a small toxicity classifier for plain CPUs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gkiller.errors import GkillerError
    from gkiller.inference.loading import load

    __version__: str

__all__ = ["GkillerError", "__version__", "load"]

_LAZY = {"GkillerError": ("gkiller.errors", "GkillerError"), "load": ("gkiller.inference.loading", "load")}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: ``import gkiller`` itself costs nothing."""
    if name == "__version__":
        from contextlib import suppress
        from importlib.metadata import PackageNotFoundError, version

        for name in ("gkiller", "gkiller-lite"):
            with suppress(PackageNotFoundError):
                return version(name)
        return "0+unknown"  # run from a source tree that was never installed
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
