"""The options that commands share, built from the one settings definition.

A command that depends on settings is written so::

    @with_settings("data", "train", "evaluation.resamples", without=("data.source",))
    def command(resolved: Resolved, path: Annotated[Path, typer.Argument()], json: JsonFlag = False) -> None:
        \"\"\"One line that ``gkiller --help`` shows.\"\"\"

and gets, beside its own parameters, a flag for each setting named that has one, plus ``--preset``,
``--config`` and ``--set``. What it receives in ``resolved`` is validated and knows its origins. A
command with a parameter ``asked: frozenset[str]`` also gets the dotted keys that its command line set, by
flag, ``--set`` or ``--config``, and not what lies around (``gkiller.toml``, variables).
"""

from __future__ import annotations

import inspect
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gkiller.settings import Reference

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")
]
"""The annotation of a command's ``json: JsonFlag = False``."""


def out_place(parameter: typer.CallbackParam, value: Any) -> Any:
    """Refuse "-" as the place of an output that does not go to standard output, before any work is done.

    Raises:
        SettingsError: it is "-".
    """
    from gkiller.errors import SettingsError

    if value is not None and str(value) == "-":
        raise SettingsError(
            "'-' stands for standard output, where this cannot go",
            where=parameter.opts[0],
            remedy="name a place, such as ./out",
        )
    return value


PANEL = "Settings"
_METAVARS = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT", "list": "A,B,...", "numbers": "N,N,..."}


def option(key: str, text: str | None = None) -> Any:
    """Return the annotation of an option that sets ``key``; None means that it was not given.

    Its help is the setting's, or ``text`` where the command takes it in another sense. The value stays text:
    the settings check it, so that a bad one answers alike wherever it came from.

    Raises:
        KeyError: no such setting.
    """
    from gkiller.settings import settings_by_key

    entry = settings_by_key()[key]
    flag = entry.flag or "--" + entry.name.replace("_", "-")
    common: dict[str, Any] = {
        "help": option_help(entry) if text is None else text.replace("[", "\\["),
        "rich_help_panel": entry.section.capitalize(),
        "show_default": False,
    }
    flags = [flag, *filter(None, [entry.alias])]
    if entry.kind == "bool":
        return Annotated[bool | None, typer.Option(flag, **common)]
    if entry.kind == "choice":
        return Annotated[
            str | None,
            typer.Option(flag, metavar="|".join(entry.choices), autocompletion=_completion(entry.choices), **common),
        ]
    chosen = typer.Option(*flags, metavar=_METAVARS[entry.kind], **common)
    return Annotated[list[str] | None, chosen] if entry.kind == "list" else Annotated[str | None, chosen]


def option_help(entry: Reference) -> str:
    """Return a setting's help: its description, then unit, range and default in brackets."""
    facts = [entry.unit, entry.range_text, f"default: {entry.default_text or 'empty'}"]
    text = f"{entry.description} [{'; '.join(fact for fact in facts if fact)}]"
    return text.replace("[", "\\[")  # typer reads the help as rich markup


def with_settings(
    *names: str, without: Iterable[str] = (), helps: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a typer command the settings' flags, and the command their resolution.

    Args:
        helps: by dotted key, the help of a flag that this command takes in another sense than the setting's.

    The decorated function takes ``resolved: Resolved`` beside its own typer parameters; every
    parameter is passed by name.

    Raises:
        KeyError: a name that is neither a section nor a setting.
    """
    chosen = _chosen(names, frozenset(without))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = _own_parameters(command)
        flags = {_parameter_name(entry.key): entry for entry in chosen}

        @wraps(command)
        def wrapper(**given: Any) -> None:
            from gkiller.settings import resolve

            values = {name: _joined(given.pop(name)) for name in flags}
            config = given.pop("config")
            resolved = resolve(
                preset=given.pop("preset"),
                config=config,
                flags={flags[name].key: value for name, value in values.items() if value is not None},
                overrides=given.pop("set_") or (),
            )
            if "asked" in inspect.signature(command).parameters:
                given["asked"] = _asked(resolved.origins, config)
            command(resolved=resolved, **given)

        parameters = [*own, *_setting_parameters(chosen, helps or {}), *_layer_parameters()]
        _redeclare(wrapper, parameters)
        return wrapper

    return decorate


def _chosen(names: Iterable[str], without: frozenset[str]) -> list[Reference]:
    """Return the settings that ``names`` ask for, in the order of the definition."""
    from gkiller.settings import settings_by_key, settings_reference

    wanted = list(names)
    sections = {entry.section for entry in settings_reference()}
    for name in [*wanted, *without]:
        if name not in sections and name not in settings_by_key():
            raise KeyError(name)
    return [
        entry
        for entry in settings_reference()
        if entry.key not in without and (entry.key in wanted or (entry.section in wanted and entry.flag))
    ]


def _own_parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    """Return the command's own parameters for typer, with their annotations evaluated."""
    declared = {
        name: parameter
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in ("resolved", "asked")
    }
    # The command's `resolved: Resolved` may be imported for type checking only: leave it out.
    bare = SimpleNamespace(__annotations__={name: parameter.annotation for name, parameter in declared.items()})
    hints = get_type_hints(bare, globalns=getattr(command, "__globals__", {}), include_extras=True)
    return [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in declared.items()
    ]


def _joined(value: Any) -> Any:
    """Return a flag's value; what a list's flag gave, each time that it was given, as one text."""
    if not isinstance(value, list):
        return value
    return ",".join(value) if value else None


def _setting_parameters(entries: Iterable[Reference], helps: Mapping[str, str]) -> list[inspect.Parameter]:
    return [_parameter(_parameter_name(entry.key), option(entry.key, helps.get(entry.key))) for entry in entries]


def _asked(origins: Mapping[str, str], config: str | None) -> frozenset[str]:
    """Return the keys that flags, ``--set`` or the file of ``--config`` gave."""
    return frozenset(
        key for key, origin in origins.items() if origin.startswith("--") or (config is not None and origin == config)
    )


def _layer_parameters() -> list[inspect.Parameter]:
    """Return ``--preset``, ``--config`` and ``--set``."""
    from gkiller.settings import preset_names

    presets = preset_names()
    preset = typer.Option(
        "--preset",
        metavar="|".join(presets),
        help="Start from a named set of values. None chooses an encoder or data: "
        "'gkiller config show --preset NAME' tells what one is for.",
        rich_help_panel=PANEL,
        autocompletion=_completion(presets),
    )
    config = typer.Option(
        "--config",
        metavar="FILE",
        help="Read this settings file instead of gkiller.toml in the current directory.",
        rich_help_panel=PANEL,
    )
    override = typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any setting by its dotted key, such as train.lr=3e-5; repeatable, and stronger than "
        "flags, GKILLER_* variables and files. 'gkiller config keys' lists the keys.",
        rich_help_panel=PANEL,
    )
    return [
        _parameter("preset", Annotated[str | None, preset]),
        _parameter("config", Annotated[str | None, config]),
        _parameter("set_", Annotated[list[str] | None, override]),
    ]


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parameter_name(key: str) -> str:
    return key.replace(".", "__")


def _redeclare(wrapper: Any, parameters: list[inspect.Parameter]) -> None:
    """Make typer see ``parameters`` instead of the wrapped command's own."""
    del wrapper.__wrapped__
    wrapper.__signature__ = inspect.Signature(parameters)
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _completion(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a shell completion over ``words``."""
    valid = list(words)

    def complete(incomplete: str) -> list[str]:
        return [word for word in valid if word.startswith(incomplete)]

    return complete


def label_names(given: Iterable[str], labels: Sequence[str]) -> list[str]:
    """Return the labels that are named, where a name may hold several with commas between them."""
    parts = [[item] if item in labels else item.split(",") for item in given]
    return [name if name in labels else name.strip() for part in parts for name in part]


def labelled_numbers(given: Iterable[str], flag: str) -> tuple[float | None, dict[str, float]]:
    """Return the number for all labels, or None, and those of single labels.

    Args:
        given: ``X`` or ``LABEL=X``, each; of several for the same the last one counts.

    Raises:
        SettingsError: an X is no number.
    """
    from gkiller.errors import SettingsError

    overall: float | None = None
    single: dict[str, float] = {}
    for item in given:
        label, equals, number = item.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise SettingsError(f"{number!r} is no number", where=flag, remedy="write 0.7 or insult=0.7") from error
        if equals:
            single[label] = value
        else:
            overall = value
    return overall, single
