"""Reading settings files: TOML, with the line of each fault."""

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

from gkiller.errors import SettingsError, did_you_mean, nearest
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
    key_advice,
    nearest_keys,
    refuse,
    too_large,
    unknown_key,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


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


__all__ = ["Resolved", "preset_names", "resolve"]
DEFAULT_ORIGIN = "default"
PRESET_VARIABLE = ENV_PREFIX + "PRESET"


@dataclass(frozen=True)
class Resolved:
    """Settings and where each came from.

    Attributes:
        origins: for each dotted key ``default``, ``arch NAME``, ``preset NAME``, the file, the variable, the
            flag or ``--set``.
    """

    settings: Settings
    origins: dict[str, str]
    preset: str = DEFAULT_ORIGIN


class _Explicit(Settings):
    """Settings made of what they are given, and of nothing in the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments only: the layers were read before, with their origins."""
        return (init_settings,)


def resolve(
    preset: str | None = None,
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Resolved:
    """Resolve the settings of a command.

    Args:
        preset: a preset's name, as ``--preset`` gives it.
        config: a settings file that is read instead of ``gkiller.toml``.
        overrides: ``KEY=VALUE`` texts, the later the stronger.
        directory: where ``gkiller.toml`` is looked for; the current directory by default.

    Raises:
        SettingsError: an unknown key, a value out of its type or range, a bad file or preset. One
            error names everything that is wrong.
    """
    variables, variable_preset, problems = _from_environment(os.environ if environ is None else environ)
    file = _from_file(config, directory or Path.cwd())
    chosen = Given(preset, "--preset", "--preset") if preset is not None else variable_preset or file.preset
    base = read_preset(chosen.value, chosen.where) if chosen else read_preset("default", "")
    flagged, flag_problems = _from_flags(flags or {})
    overridden, override_problems = _from_overrides(overrides)
    problems = [*base.problems, *file.problems, *problems, *flag_problems, *override_problems]
    given = {**base.given, **file.given, **variables, **flagged, **overridden}
    given = {**_of_arch(given), **given}
    settings, found = _validate(given)
    problems += found
    refuse(problems)
    assert settings is not None  # no problem was found
    origins = {key: given[key].origin if key in given else DEFAULT_ORIGIN for key in settings_by_key()}
    return Resolved(settings, origins, chosen.value if chosen else DEFAULT_ORIGIN)


def settings_values(settings: Settings) -> dict[str, Any]:
    """Return every setting's value by its dotted key; `settings_of` makes the same settings of them."""
    return {
        entry.key: getattr(getattr(settings, entry.section), entry.name)
        for entry in settings_by_key().values()
    }


def settings_of(values: Mapping[str, Any], where: str) -> Settings:
    """Return the settings that typed values make, by dotted key; a missing one has the definition's default.

    Raises:
        SettingsError: an unknown key, or a value out of its type or range.
    """
    known = settings_by_key()
    given = {k: Given(from_value(known[k], v), where, where) for k, v in values.items() if k in known}
    settings, found = _validate(given)
    refuse([*(unknown_key(key, where) for key in values if key not in known), *found])
    assert settings is not None  # no problem was found
    return settings


def value_problem(key: str, value: Any, where: str) -> Problem | None:
    """Return what is wrong with one setting's value on its own, None for nothing.

    Rules over several settings are not asked.
    """
    section, _, name = key.partition(".")
    try:
        type(Settings.model_fields[section].default).model_validate({name: value}, strict=True)
    except ValidationError as error:
        if any(part["loc"] for part in error.errors(include_url=False)):
            return bad_value(key, Given(value, where, where))
    return None


def _of_arch(given: Mapping[str, Given]) -> dict[str, Given]:
    """Return the defaults that the chosen ``model.arch`` brings; none for one that is not valid."""
    chosen = given.get("model.arch")
    known = settings_by_key()["model.arch"].choices
    return read_arch(chosen.value).given if chosen is not None and chosen.value in known else {}


def _from_file(config: str | Path | None, directory: Path) -> FileLayer:
    """Return the layer of ``--config``, or of ``gkiller.toml`` where there is one."""
    if config is not None:
        return read_file(directory / config, str(config))
    path = directory / FILE_NAME
    return read_file(path, FILE_NAME) if path.exists() else FileLayer()


def _from_environment(
    environ: Mapping[str, str],
) -> tuple[dict[str, Given], Given | None, list[Problem]]:
    """Return the values that ``GKILLER_*`` variables give, the preset they name, and their faults."""
    by_variable = {entry.env: entry for entry in settings_by_key().values()}
    given: dict[str, Given] = {}
    preset: Given | None = None
    problems: list[Problem] = []
    for name, text in sorted(environ.items()):
        entry = by_variable.get(name.upper())
        if entry is not None:
            given[entry.key] = Given(from_text(entry, text), name, name)
        elif name.upper() == PRESET_VARIABLE:
            preset = Given(text, name, name) if text else None
        elif name.upper().startswith(ENV_PREFIX):
            problems.append(_unknown_variable(name))
    return given, preset, problems


def _unknown_variable(name: str) -> Problem:
    word = name.upper()
    hits = nearest(word, [PRESET_VARIABLE], 1)
    if not hits:
        key = word.removeprefix(ENV_PREFIX).replace(ENV_DELIMITER, ".")
        hits = [f"{settings_by_key()[hit].env} ({hit})" for hit in nearest_keys(key)[:2]]
    remedy = f"did you mean {' or '.join(hits)}?" if hits else "unset it"
    return Problem(f"no setting has the variable {name}", name, remedy)


def _from_flags(flags: Mapping[str, Any]) -> tuple[dict[str, Given], list[Problem]]:
    """Return the values that flags give."""
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    for key, value in flags.items():
        entry = settings_by_key().get(key)
        if entry is None:
            problems.append(unknown_key(key, "flags"))
            continue
        on, _, off = entry.flag.partition("/")
        origin = (off if value is False and off else on) or "--" + key.rpartition(".")[2].replace("_", "-")
        converted = from_text(entry, value) if isinstance(value, str) else from_value(entry, value)
        given[key] = Given(converted, origin, origin)
    return given, problems


def _from_overrides(overrides: Sequence[str]) -> tuple[dict[str, Given], list[Problem]]:
    """Return the values that ``--set KEY=VALUE`` gives."""
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        entry = settings_by_key().get(key)
        where = f"--set {key}"
        if entry is None:
            problems.append(Problem(f"unknown setting {key!r}", where, key_advice(key)))
        elif not equals:
            problems.append(
                Problem(f"no value for {key}", where, f"write --set {key}={entry.default_text or 'VALUE'}")
            )
        else:
            given[key] = Given(from_text(entry, value, quotes=True), "--set", where)
    return given, problems


def _validate(given: Mapping[str, Given]) -> tuple[Settings | None, list[Problem]]:
    """Return the settings, or None and what is wrong with them.

    Sections are checked strictly, one by one: a file that says ``epochs = "5"`` is wrong, as the
    reading of flags and variables has turned text into numbers already.
    """
    sections: dict[str, Any] = {}
    problems: list[Problem] = []
    for section, info in Settings.model_fields.items():
        prefix = section + "."
        values = {
            key.removeprefix(prefix): leaf.value for key, leaf in given.items() if key.startswith(prefix)
        }
        try:
            sections[section] = type(info.default).model_validate(values, strict=True)
        except ValidationError as error:
            problems += from_validation(error.errors(include_url=False), section, given)
    if problems:
        return None, problems
    try:
        checked = _Explicit(**sections)
    except ValidationError as error:
        return None, from_validation(error.errors(include_url=False), "", given)
    return Settings.model_construct(**{name: getattr(checked, name) for name in sections}), []
