"""What a model directory holds, for every reader of it: imports nothing but the standard library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from gkiller.errors import ModelFormatError, ModelNotFoundError, ModelTamperedError

FORMAT_VERSION = 1
META, CONFIG, WEIGHTS, TOKENIZER, CARD = (
    "gkiller.json",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "README.md",
)
REMEDY_DAMAGED = "copy the model again from where it came, or train it again"


def find_model(path: str | Path) -> Path:
    """Return the model directory at ``path``, or at ``path/model`` when ``path`` is a run.

    Raises:
        ModelNotFoundError: there is neither.
    """
    directory = Path(path).expanduser()
    for candidate in (directory, directory / "model"):
        if (candidate / META).is_file():
            return candidate
    raise ModelNotFoundError(
        "no such directory" if not directory.exists() else f"no model there: {META} is missing",
        where=str(directory),
        remedy="name a run or its model directory, such as runs/NAME/model; 'gkiller train' makes one",
    )


def parse_json(content: str | bytes, where: Path) -> dict[str, Any]:
    """Return the JSON object in a file's content.

    Raises:
        ModelFormatError: it is not UTF-8, not JSON, or no object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(
            f"not readable as JSON: {one_line(error)}", where=str(where), remedy=REMEDY_DAMAGED
        ) from error
    if not isinstance(value, dict):
        raise ModelFormatError("not a JSON object", where=str(where), remedy=REMEDY_DAMAGED)
    return value


def check_version(metadata: Mapping[str, Any], where: Path) -> None:
    """Refuse a gkiller.json of another format.

    Raises:
        ModelFormatError: its version is unknown.
    """
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ModelFormatError(
            f"model format {metadata.get('format_version')!r} is unknown",
            where=str(where),
            remedy=f"this gkiller reads format {FORMAT_VERSION}; use the version that wrote it",
        )


def content_digest(metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of gkiller.json's content, its own digest left out.

    Raises:
        ValueError: it holds a NaN or an infinity.
    """
    rest = {key: value for key, value in metadata.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_digest(metadata: Mapping[str, Any], where: Path) -> None:
    """Refuse a gkiller.json that is not as it was written.

    Raises:
        ModelTamperedError: its own digest does not fit.
    """
    try:
        digest = content_digest(metadata)
    except ValueError:  # a NaN is none of ours
        digest = ""
    if metadata.get("digest") != digest:
        raise ModelTamperedError(
            "the file was changed after it was written",
            where=str(where),
            remedy=f"{REMEDY_DAMAGED}; 'gkiller threshold' is what changes thresholds",
        )


def listed_file(directory: Path, name: str) -> Path:
    """Return where a file that gkiller.json lists is.

    Raises:
        ModelFormatError: its name, or a link, leads out of the directory.
        ModelTamperedError: it is not there.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise ModelFormatError(f"{name!r} leads out of the directory", where=str(directory / META))
    path = directory / name
    if not path.is_file():
        raise ModelTamperedError("a file is missing", where=str(path), remedy=REMEDY_DAMAGED)
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ModelFormatError("a link leads out of the directory", where=str(path))
    return path


def altered(path: Path) -> ModelTamperedError:
    """Return the error for a file whose SHA-256 is not the recorded one."""
    return ModelTamperedError(
        "the file is not the one that was saved: its SHA-256 differs",
        where=str(path),
        remedy=REMEDY_DAMAGED,
    )


def checked_threshold(value: Any) -> float:
    """Return a stored threshold as a number.

    Raises:
        ValueError: it is not in 0..1.
    """
    threshold = float(value)
    if not 0 <= threshold <= 1:
        raise ValueError(f"the threshold {value!r} is not in 0..1")
    return threshold


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, shortened."""
    return " ".join(str(error).split())[:300] or type(error).__name__
