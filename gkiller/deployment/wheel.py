"""A data-only wheel: a model to install, which `load("name")` and every command then know by its name.

The format is that of the Python packaging specification "Binary distribution format"; the model is announced as an
entry point of the group "gkiller.models". The same model gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gkiller
from gkiller.deployment.deploy import copy_deployed
from gkiller.errors import ExportError, OutputError, SettingsError
from gkiller.model.layout import DEFAULT, ENTRY_POINTS, GRAPHS, GraphPrecision
from gkiller.storage.files import write_bytes, writing
from gkiller.wording import visible

if TYPE_CHECKING:
    from gkiller.scoring.models import AnyModel


EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold, for every file: the bytes do not depend on a clock."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")
_TAKEN: Final = ("gkiller", "gkiller-lite", DEFAULT)


@dataclass(frozen=True)
class Wheel:
    """What was built."""

    path: Path
    size: int  # bytes
    name: str  # of the distribution, and of the model in `load`
    version: str
    graph: str


def build_wheel(
    loaded: AnyModel,
    out: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    precision: GraphPrecision | None = None,
) -> Wheel:
    """Write a wheel into a directory.

    Args:
        name: "gkiller-model" if None.
        version: gkiller's own if None.
        precision: of the graph; if None, the first of "int8", "fp32" and "fp16" that was exported.

    Raises:
        SettingsError: a name or a version that pip would refuse, or a name that has another meaning.
        ExportError: the model has no such graph.
        OutputError: it cannot be written.
    """
    name, number = name or "gkiller-model", version or gkiller.__version__.replace("+unknown", "")
    normal = re.sub(r"[-_.]+", "-", name).lower()
    if not _NAME.fullmatch(name) or normal in _TAKEN or not normal[0].isalpha():
        raise SettingsError(
            f"{name!r} cannot be the name of a wheel",
            where="--package-name",
            remedy=f"a letter first, then letters, digits, '-', '_' and '.'; not {', '.join(_TAKEN)}",
        )
    if not _VERSION.fullmatch(number):
        raise SettingsError(f"{number!r} is no version", where="--package-version", remedy="such as 1.0.2")
    graph, package = _graph(loaded, precision), normal.replace("-", "_")
    files = {f"{package}/__init__.py": f'"""The model {name}, for gkiller."""\n'.encode()}
    files |= {f"{package}/model/{file}": content for file, content in _model_files(loaded, graph).items()}
    stem = f"{package}-{number}"
    content = _zipped(files, stem, _metadata(name, number, loaded), f"[{ENTRY_POINTS}]\n{name} = {package}\n")
    target = out / f"{stem}-py3-none-any.whl"
    with writing(target):
        out.mkdir(parents=True, exist_ok=True)
    write_bytes(target, content)
    return Wheel(target, len(content), name, number, graph)


def _graph(loaded: AnyModel, precision: GraphPrecision | None) -> str:
    if loaded.path is None:
        raise OutputError("the model was not read from a directory", remedy="save it first")
    there = [kind for kind, file in GRAPHS.items() if (loaded.path / file).is_file()]
    if precision is not None and precision not in there:
        raise ExportError(
            f"the model has no {precision} graph",
            where=str(loaded.path),
            remedy=f"it has {', '.join(there) or 'none'}; 'gkiller export' and 'gkiller quantize' make them",
        )
    if not there:
        remedy = f"run: gkiller quantize {loaded.path}"
        raise ExportError("the model has no graph yet", where=str(loaded.path), remedy=remedy)
    return GRAPHS[precision or there[0]]


def _model_files(loaded: AnyModel, graph: str) -> dict[str, bytes]:
    """Return what is needed to predict, sealed again for these files alone."""
    with tempfile.TemporaryDirectory(prefix="gkiller-wheel-") as folder:
        place = Path(folder) / "model"
        copy_deployed(loaded, graph, place)
        found = sorted(path for path in place.rglob("*") if path.is_file())
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in found}


def _metadata(name: str, number: str, loaded: AnyModel) -> str:
    labels = visible(", ".join(loaded.labels), lines=False)
    return f"""\
Metadata-Version: 2.1
Name: {name}
Version: {number}
Summary: A model for gkiller that scores comments: {labels}.
Requires-Python: >=3.11
Requires-External: gkiller or gkiller-lite
Description-Content-Type: text/markdown

Made by `gkiller export --format wheel`. It holds a model and no code; with `gkiller` or `gkiller-lite` installed:

```python
import gkiller

gkiller.load("{name}").predict("you are kind")
```
"""


def _zipped(files: dict[str, bytes], stem: str, metadata: str, entry_points: str) -> bytes:
    """Return the archive; its list of digests comes last, as the specification recommends."""
    info = f"{stem}.dist-info"
    tags = "Wheel-Version: 1.0\nGenerator: gkiller\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    own = {"METADATA": metadata, "WHEEL": tags, "entry_points.txt": entry_points}
    whole = {**dict(sorted(files.items())), **{f"{info}/{file}": text.encode() for file, text in own.items()}}
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
