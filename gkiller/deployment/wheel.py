"""An inference-only wheel: the code that scores, and one model, for numpy, onnxruntime and tokenizers alone.

The format is that of the Python packaging specification "Binary distribution format". The same model and
the same gkiller give the same bytes.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import re
import sys
import tempfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gkiller
from gkiller.assets import MODEL_FOLDER
from gkiller.deployment.deploy import copy_deployed
from gkiller.errors import ExportError, OutputError, SettingsError, WheelContentError
from gkiller.model.layout import GRAPHS, GraphPrecision
from gkiller.storage.files import write_bytes, writing
from gkiller.wording import visible

if TYPE_CHECKING:
    from gkiller.model.directory import LoadedModel


ROOT: Final = "gkiller.inference"
ALLOWED: Final = ("numpy", "onnxruntime", "tokenizers")
"""What an inference-only installation depends on."""
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold, for every file: the bytes do not depend on a clock."""
MODEL: Final = f"gkiller/assets/{MODEL_FOLDER}"
_PYTHON: Final = ">=3.11"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")


def needed_modules(package: Path, root: str = ROOT, allowed: Collection[str] = ALLOWED) -> dict[str, Path]:
    """Return every module that importing ``root`` of a package may need, by name, with its file.

    Imports inside of functions count, those for type checking alone do not. The top package's own
    ``__init__`` is left out.

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
        if first != top and first not in allowed and first not in sys.stdlib_module_names:
            remedy = f"it may need {', '.join(allowed)} and the standard library; please report this"
            raise WheelContentError(f"the inference code imports {first}", where=asked_by, remedy=remedy)
        if first != top:
            continue
        path = _file_of(package, name)
        if path is None:
            if name == root:
                raise WheelContentError("the inference code is not there", where=name, remedy="install gkiller again")
            continue  # an attribute of a module
        found[name] = path
        parts = name.split(".")
        waiting += [(".".join(parts[:count]), name) for count in range(2, len(parts))]
        waiting += [(target, name) for target in _imports(path, name)]
    return dict(sorted(found.items()))


def _file_of(package: Path, name: str) -> Path | None:
    place = package.parent.joinpath(*name.split("."))
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def _imports(path: Path, name: str) -> list[str]:
    """Return the names that a module imports; ``from a import b`` gives a and a.b."""
    here = name if path.name == "__init__.py" else name.rpartition(".")[0]
    targets: list[str] = []
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
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


_INIT = '''\
"""gkiller, inference only: scores comments with the model that this package holds."""

from __future__ import annotations

from gkiller.errors import GkillerError
from gkiller.inference import load

__version__ = "{version}"
__all__ = ["GkillerError", "__version__", "load"]
'''


@dataclass(frozen=True)
class Wheel:
    """What was built."""

    path: Path
    size: int  # in bytes
    name: str
    version: str
    graph: str
    modules: tuple[str, ...]


def build_wheel(
    loaded: LoadedModel,
    out: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    precision: GraphPrecision | None = None,
) -> Wheel:
    """Write a wheel into a directory.

    Args:
        name: of the distribution, "gkiller-model" by default; the package in it is always imported as ``gkiller``.
        precision: "int8", "fp32" or "fp16"; the first of these that was exported by default.

    Raises:
        SettingsError: a name or a version that pip would refuse, or the name of the full package.
        ExportError: the model has no such graph.
        WheelContentError: the inference code needs more than a wheel depends on, or the licence is missing.
        OutputError: it cannot be written.
    """
    name = name or "gkiller-model"
    number = version or gkiller.__version__.replace("+unknown", "")
    _check_names(name, number)
    graph = _graph(loaded, precision)
    package = Path(gkiller.__file__).parent
    modules = needed_modules(package)
    files: dict[str, bytes] = {"gkiller/__init__.py": _INIT.format(version=number).encode()}
    for path in modules.values():
        files[f"gkiller/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    files["gkiller/py.typed"] = b""
    files.update({f"{MODEL}/{file}": content for file, content in _model_files(loaded, graph).items()})
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{number}"
    content = _zipped(files, stem, _metadata(name, number, loaded))
    target = out / f"{stem}-py3-none-any.whl"
    with writing(target):
        out.mkdir(parents=True, exist_ok=True)
    write_bytes(target, content)
    return Wheel(target, len(content), name, number, graph, ("gkiller", *modules))


def _check_names(name: str, number: str) -> None:
    if not _NAME.fullmatch(name) or re.sub(r"[-_.]+", "-", name).lower() == "gkiller":
        remedy = "letters, digits, '-', '_' and '.', and not 'gkiller', which is the full package"
        raise SettingsError(f"{name!r} cannot be the name of a wheel", where="--package-name", remedy=remedy)
    if not _VERSION.fullmatch(number):
        raise SettingsError(f"{number!r} is no version", where="--package-version", remedy="such as 1.0.2")


def _graph(loaded: LoadedModel, precision: GraphPrecision | None) -> str:
    if loaded.path is None:
        raise OutputError("the model was not read from a directory", remedy="save it first")
    there = [kind for kind, file in GRAPHS.items() if (loaded.path / file).is_file()]
    where = str(loaded.path)
    if precision is not None and precision not in there:
        remedy = f"it has {', '.join(there) or 'none'}; 'gkiller export' and 'gkiller quantize' make them"
        raise ExportError(f"the model has no {precision} graph", where=where, remedy=remedy)
    if not there:
        raise ExportError("the model has no graph yet", where=where, remedy=f"run: gkiller quantize {where}")
    return GRAPHS[precision or there[0]]


def _model_files(loaded: LoadedModel, graph: str) -> dict[str, bytes]:
    """Return what is needed to predict, sealed again for these files alone."""
    with tempfile.TemporaryDirectory(prefix="gkiller-wheel-") as folder:
        place = Path(folder) / "model"
        copy_deployed(loaded, graph, place)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


def _requirements() -> list[str]:
    """Return the full package's own requirements on what the wheel depends on."""
    own = requires("gkiller") or []
    found = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower(): line for line in own}
    return [found.get(name, name) for name in ALLOWED]


def _license() -> str:
    """Return the licence of the code, which asks to be handed on with it."""
    text = distribution("gkiller").read_text("licenses/LICENSE")
    if text is None:
        raise WheelContentError("the licence is not there", where="gkiller", remedy="install gkiller again")
    return text


def _metadata(name: str, number: str, loaded: LoadedModel) -> str:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {number}",
        f"Summary: A toxicity classifier for plain CPUs: {visible(', '.join(loaded.labels), lines=False)}.",
        "License: Apache-2.0 (the code)",
        "License-File: LICENSE",
        f"Requires-Python: {_PYTHON}",
        *(f"Requires-Dist: {line}" for line in _requirements()),
        "Description-Content-Type: text/markdown",
        "",
        "Made by `gkiller export --format wheel`. It is imported as `gkiller` and cannot be installed beside",
        "the full package of that name.",
        "",
        "```python",
        "from gkiller import load",
        "",
        'load().predict("you are kind")',
        "```",
        "",
    ]
    return "\n".join(lines)


def _zipped(files: dict[str, bytes], stem: str, metadata: str) -> bytes:
    """Return the archive; its list of digests comes last, as the specification recommends."""
    info = f"{stem}.dist-info"
    tags = "Wheel-Version: 1.0\nGenerator: gkiller\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    whole = {
        **dict(sorted(files.items())),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": tags.encode(),
        f"{info}/LICENSE": _license().encode(),
    }
    record = "".join(f"{path},{_digest(content)},{len(content)}\n" for path, content in whole.items())
    whole[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in whole.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3  # the same on every system
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
