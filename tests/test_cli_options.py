"""Flags built from the settings definition, and the config commands."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from gkiller.cli.main import main
from gkiller.cli.options import JsonFlag, option_help, with_settings
from gkiller.errors import SettingsError
from gkiller.settings import Resolved, resolve, settings_by_key, settings_reference


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(function: Callable[..., Any], *arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})


def captured(*names: Any, without: Any = ()) -> tuple[Callable[..., Any], list[Any]]:
    """Return a command that records what it was called with."""
    calls = []

    @with_settings(*names, without=without)
    def command(
        resolved: Resolved,
        path: Annotated[str, typer.Argument()],
        name: Annotated[str | None, typer.Option("--name")] = None,
        json: JsonFlag = False,
    ) -> None:
        """Do it."""
        calls.append((resolved, path, name, json))

    return command, calls


def test_command_gets_its_own_parameters_and_the_resolution() -> None:
    command, calls = captured("train", "dendrites", "data")
    result = invoke(
        command,
        *("here", "--name", "x", "--json", "--lr", "3e-4", "--no-dendrites", "--label-columns", "a,b"),
        *("--sample-size", "none", "--preset", "fast", "--set", "train.seed=3", "--set", "train.epochs=9"),
    )
    assert result.exit_code == 0, result.output
    [(resolved, path, name, as_json)] = calls
    assert (path, name, as_json) == ("here", "x", True)
    assert resolved.settings.train.lr == 3e-4
    assert resolved.settings.dendrites.enabled is False
    assert resolved.settings.data.label_columns == ("a", "b")
    assert resolved.settings.data.sample_size is None
    assert (resolved.settings.train.seed, resolved.settings.train.epochs) == (3, 9)
    assert resolved.origins["dendrites.enabled"] == "--no-dendrites"
    assert resolved.origins["data.sample_size"] == "--sample-size"
    assert resolved.preset == "fast"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--teacher", "a", "--teacher", "b,c"], ("a", "b", "c")),
        (["--teacher", '["a,b", "c"]'], ("a,b", "c")),
        (["--teacher", ""], ()),
        ([], ()),
    ],
)
def test_the_flag_of_a_list_may_be_given_again(arguments: list[Any], expected: tuple[Any, ...]) -> None:
    command, calls = captured("distill")
    result = invoke(command, "here", *arguments)
    assert result.exit_code == 0, result.output
    assert calls[0][0].settings.distill.teachers == expected
    assert calls[0][0].origins["distill.teachers"] == ("--teacher" if arguments else "default")


def test_flags_not_given_change_nothing() -> None:
    command, calls = captured("train", "dendrites", "data", "model", "evaluation")
    invoke(command, "here")
    assert calls[0][0] == resolve(environ={})


def test_config_flag_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nepochs = 21\n", encoding="utf-8")
    command, calls = captured("train")
    invoke(command, "here", "--config", "mine.toml")
    assert calls[0][0].origins["train.epochs"] == "mine.toml"


def test_only_the_named_settings_become_flags() -> None:
    command, _ = captured("train", "model.dropout", without=("train.seed",))
    text = invoke(command, "--help").output
    for flag in ("--lr", "--epochs", "--dropout", "--preset", "--config", "--set", "--name"):
        assert flag in text
    for flag in ("--seed", "--encoder", "--data"):
        assert f"{flag} " not in text


def test_unknown_name_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        with_settings("trian")
    with pytest.raises(KeyError):
        with_settings("train", without=("train.lrr",))


def test_bad_values_are_refused_by_the_settings() -> None:
    command, calls = captured("train")
    with pytest.raises(SettingsError) as caught:
        invoke(command, "here", "--lr", "abc", "--epochs", "0")
    assert "--lr: train.lr" in caught.value.what
    assert "--epochs: train.epochs" in caught.value.what
    assert calls == []


def test_help_states_unit_range_and_default() -> None:
    entry = settings_by_key()["model.max_length"]
    assert option_help(entry).endswith(" \\[tokens; >= 8, <= 512; default: 128]")


def test_every_flag_of_the_definition_works() -> None:
    sections = {entry.section for entry in settings_reference()}
    command, calls = captured(*sections)
    arguments = []
    for entry in settings_reference():
        if not entry.flag or entry.optional:
            continue
        if entry.kind == "bool":
            arguments.append(entry.flag.partition("/")[0])
        else:
            arguments += [entry.flag, entry.default_text]
    result = invoke(command, "here", *arguments)
    assert result.exit_code == 0, result.output
    resolved = calls[0][0]
    assert resolved.settings == resolve(environ={}).settings
    assert all(resolved.origins[e.key] != "default" for e in settings_reference() if e.flag and not e.optional)


def test_config_show_tells_value_and_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GKILLER_TRAIN__SEED", "5")
    assert main(["config", "show", "train", "--preset", "seed", "--set", "train.lr=0.25"]) == 0
    streams = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in streams.out.splitlines() if line.strip()}
    assert rows["train.lr"] == ["0.25", "--set"]
    assert rows["train.seed"] == ["5", "GKILLER_TRAIN__SEED"]
    assert rows["train.epochs"] == ["10", "epochs", "preset", "seed"]
    assert "data.source" not in rows
    assert streams.err.startswith("preset seed: ")


def test_config_show_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json", "--set", "train.lr=0.25"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["preset"] == "default"
    assert shown["settings"]["train.lr"] == {"value": 0.25, "unit": "", "origin": "--set"}
    assert shown["settings"]["data.sample_size"]["value"] is None
    assert set(shown["settings"]) == {entry.key for entry in settings_reference()}


def test_config_show_toml_repeats_the_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "show", "--toml", "--preset", "seed"]) == 0
    text = capsys.readouterr().out
    assert set(tomllib.loads(text)) == {entry.section for entry in settings_reference()}
    (tmp_path / "again.toml").write_text(text, encoding="utf-8")
    assert resolve(environ={}, config="again.toml").settings == resolve(environ={}, preset="seed").settings


def test_config_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "keys", "train.lr", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert set(shown) == {"train.lr"}
    assert shown["train.lr"]["variable"] == "GKILLER_TRAIN__LR"
    assert main(["config", "keys", "train"]) == 0
    assert "train.batch_size" in capsys.readouterr().out
