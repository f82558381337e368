"""Which of gkiller's modules the inference code needs: read off its imports, so that no list goes stale."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

from gkiller.errors import WheelContentError

ROOT: Final = "gkiller.inference"
ALLOWED: Final = ("numpy", "onnxruntime", "tokenizers")
"""What an inference-only installation depends on."""


def needed_modules(package: Path, root: str = ROOT, allowed: Collection[str] = ALLOWED) -> dict[str, Path]:
    """Return every module that importing ``root`` may need, by name, with its file.

    Imports inside of functions count, those for type checking alone do not. The top package's own
    ``__init__`` is left out.

    Args:
        package: the directory of the package that ``root`` is in.
        root: the module to start from.
        allowed: packages that it may need beside the standard library.

    Raises:
        WheelContentError: there is no such module, or it needs a package that is not allowed.
    """
    top = package.name
    found: dict[str, Path] = {}
    waiting = [(root, root)]
    while waiting:
        name, asked_by = waiting.pop()
        if name in found or name == top:
            continue
        first = name.split(".", 1)[0]
        if first != top:
            _check_outsider(first, asked_by, allowed)
            continue
        path = _file_of(package, name)
        if path is None:
            if name == root:
                raise WheelContentError(
                    "the inference code is not there", where=name, remedy="install gkiller again"
                )
            continue  # an attribute of a module
        found[name] = path
        waiting += [(parent, name) for parent in _parents(name)]
        waiting += [(target, name) for target in _imports(path, name)]
    return dict(sorted(found.items()))


def _check_outsider(name: str, asked_by: str, allowed: Collection[str]) -> None:
    if name not in allowed and name not in sys.stdlib_module_names:
        raise WheelContentError(
            f"the inference code imports {name}",
            where=asked_by,
            remedy=f"it may need {', '.join(allowed)} and the standard library; please report this",
        )


def _file_of(package: Path, name: str) -> Path | None:
    place = package.parent.joinpath(*name.split("."))
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(2, len(parts))]


def _imports(path: Path, name: str) -> list[str]:
    """Return the names that a module imports; ``from a import b`` gives a and a.b."""
    here = name if path.name == "__init__.py" else name.rpartition(".")[0]
    targets: list[str] = []
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            targets += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, here)
            targets += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        waiting += ast.iter_child_nodes(node)
    return targets


def _absolute(node: ast.ImportFrom, here: str) -> str:
    if not node.level:
        return node.module or ""
    parts = here.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"
