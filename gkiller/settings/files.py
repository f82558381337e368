"""Reading settings files: TOML, with the line of each fault."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from gkiller.errors import SettingsError, did_you_mean, nearest
from gkiller.settings.definition import Settings
from gkiller.settings.problems import Given, Problem, unknown_key
from gkiller.settings.reference import settings_by_key
from gkiller.settings.values import MOST_BITS, from_value, too_large

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "gkiller.toml"
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([^=#]+?)\s*=")
_LONG = re.compile(r"[0-9_]{4000}")
_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)")


@dataclass
class FileLayer:
    """What one settings file says: its values, its ``preset`` if it names one, and its faults."""

    given: dict[str, Given] = field(default_factory=dict)
    preset: Given | None = None
    problems: list[Problem] = field(default_factory=list)


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped presets, ``default`` first."""
    folder = files("gkiller.settings").joinpath("presets")
    names = sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )
    return tuple(sorted(names, key=lambda name: name != "default"))


def preset_about(name: str) -> str:
    """Return what a shipped preset is for: the comment at the top of its file, on one line."""
    lines = takewhile(lambda line: line.startswith("#"), _preset_text(name).splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def _preset_text(name: str) -> str:
    return files("gkiller.settings").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")


def read_preset(name: str, where: str) -> FileLayer:
    """Return what a shipped preset sets.

    Raises:
        SettingsError: there is no such preset.
    """
    if name not in preset_names():
        raise SettingsError(
            f"there is no preset {name!r}", where=where, remedy=did_you_mean(name, preset_names())
        )
    return parse(_preset_text(name), f"preset {name}")


def read_arch(name: str) -> FileLayer:
    """Return the defaults that an architecture brings, where they are other than the definition's."""
    file = files("gkiller.settings").joinpath("archs", f"{name}.toml")
    return parse(file.read_text(encoding="utf-8"), f"arch {name}") if file.is_file() else FileLayer()


def read_file(path: Path, origin: str) -> FileLayer:
    """Return what a settings file sets.

    Raises:
        SettingsError: it is missing, unreadable, not UTF-8 or not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(
            "there is no such settings file", where=origin, remedy=_neighbours(path)
        ) from None
    except IsADirectoryError:
        remedy = f"name a file in it, such as {path / FILE_NAME}"
        raise SettingsError("this is a directory, not a settings file", where=origin, remedy=remedy) from None
    except UnicodeDecodeError as error:
        what = f"the settings file is not UTF-8 (byte {error.start + 1})"
        raise SettingsError(what, where=origin, remedy="save it as UTF-8") from None
    except OSError as error:
        what = f"the settings file cannot be read: {error.strerror or error}"
        raise SettingsError(what, where=origin, remedy="check its permissions") from None
    return parse(text, origin)


def parse(text: str, origin: str) -> FileLayer:
    """Return what TOML text sets.

    Raises:
        SettingsError: it is not TOML; the error names the line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        where = f"{origin}, line {position[1]}, column {position[2]}" if position else f"{origin}, at its end"
        what = "invalid TOML: " + _POSITION.sub("", str(error)).replace(" (at end of document)", "")
        raise SettingsError(
            what, where=where, remedy='write lines such as lr = 3e-5 or metric = "ap"'
        ) from None
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        what = "lists are nested too deeply" if deep else "a number has too many digits"
        long = (number for number, line in enumerate(text.splitlines(), 1) if _LONG.search(line))
        line = "" if deep else f", line {next(long, 1)}"
        raise SettingsError(what, where=origin + line, remedy="mend the value") from None
    layer = FileLayer()
    for name, value in document.items():
        if too_large(value):
            inside = [leaf for leaf in value if too_large(value[leaf])] if isinstance(value, dict) else []
            where = _where(text, origin, (name, *inside[:1]))
            raise SettingsError(f"a number has over {MOST_BITS:,} bits", where=where, remedy="mend the value")
        _take(layer, name, value, text, origin)
    return layer


def _take(layer: FileLayer, name: str, value: Any, text: str, origin: str) -> None:
    """Put a top-level entry of a file into its layer."""
    where = _where(text, origin, (name,))
    if name == "preset" and isinstance(value, str):
        layer.preset = Given(value, origin, where)
    elif isinstance(value, dict) and name in Settings.model_fields:
        for leaf, inner in value.items():
            _take_leaf(layer, f"{name}.{leaf}", inner, _where(text, origin, (name, leaf)), origin)
    elif name == "preset":
        layer.problems.append(
            Problem(f"preset must be a name, not {value!r}", where, 'write preset = "fast"')
        )
    elif isinstance(value, dict):
        for leaf in value or {"": None}:
            key = f"{name}.{leaf}".rstrip(".")
            layer.problems.append(unknown_key(key, _where(text, origin, (name, leaf))))
    else:
        layer.problems.append(unknown_key(name, where))


def _take_leaf(layer: FileLayer, key: str, value: Any, where: str, origin: str) -> None:
    entry = settings_by_key().get(key)
    if entry is None:
        layer.problems.append(unknown_key(key, where))
    else:
        layer.given[key] = Given(from_value(entry, value), origin, where)


def _where(text: str, origin: str, path: tuple[str, ...]) -> str:
    """Return the origin with the line that sets ``path``, where a plain reading finds it."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            table = _parts(header[1])
            if table == path:
                return f"{origin}, line {number}"
            continue
        assignment = _KEY.match(line)
        if assignment and (table + _parts(assignment[1]))[: len(path)] == path:
            return f"{origin}, line {number}"
    return origin


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _neighbours(path: Path) -> str:
    """Return a remedy for a missing file: the TOML files beside it that look like it."""
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    names = sorted(item.name for item in path.parent.iterdir() if item.suffix == ".toml")
    hits = nearest(path.name, names)
    if hits:
        return did_you_mean(path.name, hits)
    return (
        "leave --config out to use gkiller.toml or the defaults; 'gkiller config show --toml' prints a file"
    )
