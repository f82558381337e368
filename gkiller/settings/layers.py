"""The layers of settings, weakest first: arch, preset, file, ``GKILLER_*`` variables, flags and ``--set``.

The preset is named by ``--preset``, else by ``GKILLER_PRESET``, else by ``preset = "..."`` at the top of the
settings file, which is ``gkiller.toml`` or the one of ``--config``.

The sources of pydantic-settings would give values without origins and lines, and leave out unknown variables.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gkiller.errors import SettingsError
from gkiller.settings.definition import ENV_DELIMITER, ENV_PREFIX, Settings
from gkiller.settings.reference import settings_by_key
from gkiller.settings.values import (
    MOST_BITS,
    Given,
    Problem,
    bad_value,
    from_text,
    from_validation,
    from_value,
    nearest_keys,
    refuse,
    too_large,
    unknown_key,
)
from gkiller.wording import did_you_mean, nearest, proposal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_FOLDER = files("gkiller.settings")
_FILE_NAME = "gkiller.toml"
_DEFAULT = "default"
_PRESET_VARIABLE = ENV_PREFIX + "PRESET"
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([^=#]+?)\s*=")
_LONG = re.compile(r"[0-9_]{4000}")
_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)")


@dataclass(frozen=True)
class Resolved:
    """Settings and where each came from."""

    settings: Settings
    # for each dotted key default, arch NAME, preset NAME, the file, the variable, the flag or --set
    origins: dict[str, str]
    preset: str = _DEFAULT


@dataclass
class Layer:
    """What one source says: values by dotted key, a preset if it names one, and what is wrong with it."""

    given: dict[str, Given] = field(default_factory=dict)
    preset: Given | None = None
    problems: list[Problem] = field(default_factory=list)


def resolve(
    preset: str | None = None,
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Resolved:
    """Resolve the settings of a command; one `SettingsError` names everything that is wrong.

    Args:
        config: a settings file that is read instead of ``gkiller.toml``.
        flags: values by dotted key: text, or already typed.
        overrides: ``KEY=VALUE`` texts, the later the stronger.
        environ: the process's own by default.
        directory: where ``gkiller.toml`` is looked for; the current directory by default.
    """
    variables = _from_environment(os.environ if environ is None else environ)
    file = _from_file(config, directory or Path.cwd())
    named = Given(preset, "--preset", "--preset") if preset is not None else variables.preset or file.preset
    chosen = named or Given(_DEFAULT, "", "")
    preset_layer = _read_preset(chosen.value, chosen.where)
    layers = [preset_layer, file, variables, _from_flags(flags or {}), _from_overrides(overrides)]
    given = {key: value for layer in layers for key, value in layer.given.items()}
    given = {**_of_arch(given), **given}
    settings = _validated(given, (problem for layer in layers for problem in layer.problems))
    origins = {key: given[key].origin if key in given else _DEFAULT for key in settings_by_key()}
    return Resolved(settings, origins, chosen.value)


def settings_values(settings: Settings) -> dict[str, Any]:
    """Return every setting's value by its dotted key; `settings_of` makes the same settings of them."""
    return {entry.key: getattr(getattr(settings, entry.section), entry.name) for entry in settings_by_key().values()}


def settings_of(values: Mapping[str, Any], where: str) -> Settings:
    """Return the settings of typed values by dotted key; a missing one has the definition's default."""
    known = settings_by_key()
    given = {k: Given(from_value(known[k], v), where, where) for k, v in values.items() if k in known}
    return _validated(given, (unknown_key(key, where) for key in values if key not in known))


def value_problem(key: str, value: Any, where: str) -> Problem | None:
    """Return what is wrong with one setting's value on its own; rules over several settings are left out."""
    section, _, name = key.partition(".")
    try:
        type(Settings.model_fields[section].default).model_validate({name: value}, strict=True)
    except ValidationError as error:
        if any(part["loc"] for part in error.errors(include_url=False)):
            return bad_value(key, Given(value, where, where))
    return None


def _validated(given: Mapping[str, Given], problems: Iterable[Problem]) -> Settings:
    """Return the settings, or raise one error of the problems so far and of those found here.

    Sections are checked strictly: ``epochs = "5"`` in a file is wrong, and flags are numbers already.
    """
    sections: dict[str, Any] = {}
    found: list[Problem] = []
    for section, info in Settings.model_fields.items():
        prefix = section + "."
        values = {key.removeprefix(prefix): g.value for key, g in given.items() if key.startswith(prefix)}
        try:
            sections[section] = type(info.default).model_validate(values, strict=True)
        except ValidationError as error:
            found += from_validation(error.errors(include_url=False), section, given)
    if not found:
        try:
            settings = Settings(**sections)
        except ValidationError as error:
            found = from_validation(error.errors(include_url=False), "", given)
    refuse([*problems, *found])
    return settings


def preset_names() -> tuple[str, ...]:
    """Return the names of the built-in presets, ``default`` first."""
    items = [item.name for item in _FOLDER.joinpath("presets").iterdir()]
    names = [name.removesuffix(".toml") for name in items if name.endswith(".toml")]
    return tuple(sorted(names, key=lambda name: (name != _DEFAULT, name)))


def preset_about(name: str) -> str:
    """Return what a built-in preset is for: the comment at the top of its file, on one line."""
    lines = takewhile(lambda line: line.startswith("#"), _preset_text(name).splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def _preset_text(name: str) -> str:
    return _FOLDER.joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")


def _read_preset(name: str, where: str) -> Layer:
    if name not in (names := preset_names()):
        raise SettingsError(f"there is no preset {name!r}", where=where, remedy=did_you_mean(name, names))
    return parse(_preset_text(name), f"preset {name}")


def read_arch(name: str) -> Layer:
    """Return the defaults that an architecture brings, where they are other than the definition's."""
    file = _FOLDER.joinpath("archs", f"{name}.toml")
    return parse(file.read_text(encoding="utf-8"), f"arch {name}") if file.is_file() else Layer()


def _of_arch(given: Mapping[str, Given]) -> dict[str, Given]:
    """Return the defaults that the chosen ``model.arch`` brings; none for one that is not valid."""
    chosen = given.get("model.arch")
    known = settings_by_key()["model.arch"].choices
    return read_arch(chosen.value).given if chosen is not None and chosen.value in known else {}


def _from_file(config: str | Path | None, directory: Path) -> Layer:
    """Return the layer of ``--config``, or of ``gkiller.toml`` where there is one."""
    origin = str(_FILE_NAME if config is None else config)
    path = directory / origin
    if config is None and not path.exists():
        return Layer()
    try:
        return parse(path.read_text(encoding="utf-8-sig"), origin)
    except FileNotFoundError:
        what, remedy = "there is no such settings file", _neighbours(path)
    except IsADirectoryError:
        what, remedy = "this is a directory, not a settings file", f"name a file in it, such as {path / _FILE_NAME}"
    except UnicodeDecodeError as error:
        what, remedy = f"the settings file is not UTF-8 (byte {error.start + 1})", "save it as UTF-8"
    except OSError as error:
        what, remedy = f"the settings file cannot be read: {error.strerror or error}", "check its permissions"
    raise SettingsError(what, where=origin, remedy=remedy)


def _neighbours(path: Path) -> str:
    """Return a remedy for a missing file: the TOML files next to it with a similar name."""
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if hits := nearest(path.name, sorted(item.name for item in path.parent.glob("*.toml"))):
        return proposal(map(repr, hits))
    return "leave --config out to use gkiller.toml or the defaults; 'gkiller config show --toml' prints a file"


def parse(text: str, origin: str) -> Layer:
    """Return what TOML text sets; the `SettingsError` of other text names the line."""
    document = _parse_toml(text, origin)
    layer = Layer()
    for name, value in document.items():
        where = _where(text, origin, (name,))
        if too_large(value):
            inside = [leaf for leaf in value if too_large(value[leaf])] if isinstance(value, dict) else []
            where = _where(text, origin, (name, *inside[:1]))
            raise SettingsError(f"a number has over {MOST_BITS:,} bits", where=where, remedy="mend the value")
        if name == "preset" and isinstance(value, str):
            layer.preset = Given(value, origin, where)
        elif name == "preset":
            layer.problems.append(Problem(f"preset must be a name, not {value!r}", where, 'write preset = "fast"'))
        elif not isinstance(value, dict) or not (value or name in Settings.model_fields):
            layer.problems.append(unknown_key(name, where))
        else:
            for leaf, inner in value.items():
                key, where = f"{name}.{leaf}", _where(text, origin, (name, leaf))
                if entry := settings_by_key().get(key):
                    layer.given[key] = Given(from_value(entry, inner), origin, where)
                else:
                    layer.problems.append(unknown_key(key, where))
    return layer


def _parse_toml(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        where = f"{origin}, line {position[1]}, column {position[2]}" if position else f"{origin}, at its end"
        what = "invalid TOML: " + _POSITION.sub("", str(error)).replace(" (at end of document)", "")
        remedy = 'write lines such as lr = 3e-5 or metric = "ap"'
    except RecursionError:
        what, where, remedy = "lists are nested too deeply", origin, "mend the value"
    except ValueError:
        line = next((n for n, line in enumerate(text.splitlines(), 1) if _LONG.search(line)), 1)
        what, where, remedy = "a number has too many digits", f"{origin}, line {line}", "mend the value"
    raise SettingsError(what, where=where, remedy=remedy)


def _where(text: str, origin: str, path: tuple[str, ...]) -> str:
    """Return the origin with the line that sets ``path``, where a plain reading finds it."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            if table == path:
                return f"{origin}, line {number}"
        elif (key := _KEY.match(line)) and (table + _parts(key[1]))[: len(path)] == path:
            return f"{origin}, line {number}"
    return origin


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _from_environment(environ: Mapping[str, str]) -> Layer:
    by_variable = {entry.env: entry for entry in settings_by_key().values()}
    layer = Layer()
    for name, text in sorted(environ.items()):
        if entry := by_variable.get(name.upper()):
            layer.given[entry.key] = Given(from_text(entry, text), name, name)
        elif name.upper() == _PRESET_VARIABLE:
            layer.preset = Given(text, name, name) if text else None
        elif name.upper().startswith(ENV_PREFIX):
            layer.problems.append(_unknown_variable(name))
    return layer


def _unknown_variable(name: str) -> Problem:
    word = name.upper()
    hits = nearest(word, [_PRESET_VARIABLE], 1)
    if not hits:
        key = word.removeprefix(ENV_PREFIX).replace(ENV_DELIMITER, ".")
        hits = [f"{settings_by_key()[hit].env} ({hit})" for hit in nearest_keys(key)[:2]]
    remedy = proposal(hits) if hits else "unset it"
    return Problem(f"no setting has the variable {name}", name, remedy)


def _from_flags(flags: Mapping[str, Any]) -> Layer:
    layer = Layer()
    for key, value in flags.items():
        entry = settings_by_key().get(key)
        if entry is None:
            layer.problems.append(unknown_key(key, "flags"))
            continue
        off = entry.flag.partition("/")[2]
        origin = off if value is False and off else entry.on_flag
        converted = from_text(entry, value) if isinstance(value, str) else from_value(entry, value)
        layer.given[key] = Given(converted, origin, origin)
    return layer


def _from_overrides(overrides: Sequence[str]) -> Layer:
    layer = Layer()
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        entry, where = settings_by_key().get(key), f"--set {key}"
        if entry is None:
            layer.problems.append(unknown_key(key, where))
        elif not equals:
            example = f"write --set {key}={entry.default_text or 'VALUE'}"
            layer.problems.append(Problem(f"no value for {key}", where, example))
        else:
            layer.given[key] = Given(from_text(entry, value, quotes=True), "--set", where)
    return layer
