"""The options that commands share; those of settings are built from the one settings definition.

A command that depends on settings is written so::

    @with_settings("data", "train", "evaluation.resamples", without=("data.source",))
    def command(resolved: Resolved, path: Annotated[Path, typer.Argument()], json: JsonFlag = False) -> None: ...

and gets a flag for each setting named that has one, plus ``--preset``, ``--config`` and ``--set``. A parameter
``asked: frozenset[str]`` takes the dotted keys that the command line itself set, and not ``gkiller.toml`` or variables.
"""

from __future__ import annotations

import inspect
from functools import partial, wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gkiller.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gkiller.settings import Reference

DATA_HELP = (
    "Labelled comments, instead of those of the model's own run: 'sample', a prepared directory, a file or "
    "folder, or a hub data set."
)
NOT_TUNED = (
    "data.sample_size",
    *(f"evaluation.{name}" for name in ("min_precision", "min_recall", "threshold_rule", "f1_slack")),
)
"""Settings without use for a command that measures and tunes no threshold."""
_METAVARS = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT", "list": "A,B,...", "numbers": "N,N,..."}


def escaped(text: str) -> str:
    """Return help without markup: typer reads it as rich's."""
    return text.replace("[", "\\[")


def out_place(parameter: typer.CallbackParam, value: Any) -> Any:
    """Refuse "-" as the place of an output that does not go to standard output, before any work is done."""
    if value is not None and str(value) == "-":
        what = "'-' stands for standard output, where this cannot go"
        raise SettingsError(what, where=parameter.opts[0], remedy="name a place, such as ./out")
    return value


def refuse_any(*refusals: tuple[object, str, str, str]) -> None:
    """Refuse the first of these that applies: whether it does, what is wrong, where, and the remedy."""
    for applies, what, where, remedy in refusals:
        if applies:
            raise SettingsError(what, where=where, remedy=remedy)


def place(text: str, flag: str = "--out", metavar: str = "DIR") -> Any:
    """Return an option of a place that is written to."""
    return typer.Option(flag, callback=out_place, metavar=metavar, help=escaped(text))


def _split(default: str) -> Any:
    text = f"train, valid, test or all. [default: {default}; all for a single file named with --data]"
    return typer.Option("--split", metavar="SPLIT", help=escaped(text))


_JSON = "Print one JSON object on stdout; everything else goes to stderr."
JsonFlag = Annotated[bool, typer.Option("--json", help=_JSON)]
_MODEL = "A model directory, or a run that has one"
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=f"{_MODEL}.")]
AnyModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=f"{_MODEL}; 'default' for the shipped one.")]
SplitOption = Annotated[str | None, _split("test")]
ValidSplitOption = Annotated[str | None, _split("valid")]


def option(key: str, text: str | None = None) -> Any:
    """Return the annotation of an option that sets ``key``; the value stays text, for the settings to check."""
    from gkiller.settings import settings_by_key

    entry = settings_by_key()[key]
    flag = entry.flag or entry.plain_flag
    common: dict[str, Any] = {
        "help": option_help(entry) if text is None else escaped(text),
        "rich_help_panel": entry.section.capitalize(),
        "show_default": False,
    }
    if entry.kind == "bool":
        return Annotated[bool | None, typer.Option(flag, **common)]
    if entry.kind == "choice":
        common |= {"metavar": "|".join(entry.choices), "autocompletion": _completion(entry.choices)}
        return Annotated[str | None, typer.Option(flag, **common)]
    chosen = typer.Option(*filter(None, (flag, entry.alias)), metavar=_METAVARS[entry.kind], **common)
    return Annotated[list[str] | None, chosen] if entry.kind == "list" else Annotated[str | None, chosen]


def option_help(entry: Reference) -> str:
    """Return a setting's help: its description, then unit, range and default in brackets."""
    facts = [entry.unit, entry.range_text, f"default: {entry.default_text or 'empty'}"]
    return escaped(f"{entry.description} [{'; '.join(filter(None, facts))}]")


def with_settings(
    *names: str, without: Iterable[str] = (), helps: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a typer command the flags of settings and sections, and the command their resolution.

    Args:
        helps: by dotted key, the help of a flag that this command takes in another sense than the setting's.
    """
    flags = {entry.key.replace(".", "__"): entry for entry in _chosen(names, frozenset(without))}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = _own_parameters(command)
        wants_asked = "asked" in inspect.signature(command).parameters

        @wraps(command)
        def wrapper(**given: Any) -> None:
            from gkiller.settings import resolve

            values = {entry.key: _joined(given.pop(name)) for name, entry in flags.items()}
            config = given.pop("config")
            resolved = resolve(
                preset=given.pop("preset"),
                config=config,
                flags={key: value for key, value in values.items() if value is not None},
                overrides=given.pop("set_") or (),
            )
            if wants_asked:
                origins = resolved.origins.items()
                given["asked"] = frozenset(key for key, by in origins if by.startswith("--") or by == config)
            command(resolved=resolved, **given)

        options = {name: option(entry.key, (helps or {}).get(entry.key)) for name, entry in flags.items()}
        parameters = [
            *own,
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
                for name, annotation in {**options, **_layer_options()}.items()
            ),
        ]
        # typer is to see these instead of the command's own
        shown: Any = wrapper
        del shown.__wrapped__
        shown.__signature__ = inspect.Signature(parameters)
        shown.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _chosen(names: Sequence[str], without: frozenset[str]) -> list[Reference]:
    """Return the settings that ``names`` ask for, in the order of the definition."""
    from gkiller.settings import section_titles, settings_by_key, settings_reference

    for name in [*names, *without]:
        if name not in section_titles() and name not in settings_by_key():
            raise KeyError(name)
    return [
        entry
        for entry in settings_reference()
        if entry.key not in without and (entry.key in names or (entry.section in names and entry.flag))
    ]


def _own_parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    """Return the command's own parameters for typer, with their annotations evaluated."""
    declared = dict(inspect.signature(command).parameters)
    for name in ("resolved", "asked"):  # `Resolved` may be imported for type checking only
        declared.pop(name, None)
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


def _layer_options() -> dict[str, Any]:
    """Return ``--preset``, ``--config`` and ``--set``."""
    from gkiller.settings import preset_names

    presets = preset_names()
    preset = (
        "Start from a named set of values. None chooses an encoder or data: "
        "'gkiller config show --preset NAME' tells what one is for."
    )
    config = "Read this settings file instead of gkiller.toml in the current directory."
    override = (
        "Set any setting by its dotted key, such as train.lr=3e-5; repeatable, and stronger than "
        "flags, GKILLER_* variables and files. 'gkiller config keys' lists the keys."
    )
    names, words = "|".join(presets), _completion(presets)
    layer = partial(typer.Option, rich_help_panel="Settings")
    return {
        "preset": Annotated[str | None, layer("--preset", metavar=names, help=preset, autocompletion=words)],
        "config": Annotated[str | None, layer("--config", metavar="FILE", help=config)],
        "set_": Annotated[list[str] | None, layer("--set", metavar="KEY=VALUE", help=override)],
    }


def _completion(words: Sequence[str]) -> Callable[[str], list[str]]:
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def label_names(given: Iterable[str], labels: Sequence[str]) -> list[str]:
    """Return the labels that are named, where a name may hold several with commas between them."""
    parts = [[item] if item in labels else item.split(",") for item in given]
    return [name if name in labels else name.strip() for part in parts for name in part]


def labelled_numbers(given: Iterable[str] | None, flag: str) -> tuple[float | None, dict[str, float]]:
    """Return the number for all labels, or None, and those of single labels, from ``X`` or ``LABEL=X`` each."""
    overall: float | None = None
    single: dict[str, float] = {}
    for item in given or ():
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
