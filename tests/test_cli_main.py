"""The command line's frame: help, versions, errors, signals and exit codes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import gkiller
from gkiller.cli import lazy
from gkiller.cli.main import _Unexpected, main
from gkiller.errors import ColumnError

HEAVY = ("pydantic", "pydantic_settings", "torch", "transformers", "datasets", "numpy", "sklearn", "rich.markdown")


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("GKILLER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a function in the place of every command."""

    def replace(function: Any) -> None:
        app = typer.Typer()
        app.command("doctor")(function)
        monkeypatch.setattr(lazy, "load_command", lambda name: typer.main.get_command(app))

    return replace


def run(*arguments: Any, **options: Any) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "gkiller", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gkiller.cli.main import main; status = main(['--help']);"
        f"sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules)); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name, known in lazy.COMMANDS.items():
        assert any(line.split() == [name, *known.summary.split()] for line in done.stdout.splitlines())


def test_import_gkiller_imports_nothing() -> None:
    code = "import sys, gkiller; print(sorted(m for m in sys.modules if m.startswith('gkiller')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['gkiller']"


@pytest.mark.parametrize("name", list(lazy.COMMANDS))
def test_one_line_help_is_the_first_line_of_the_command_s_docstring(name: str) -> None:
    if find_spec(lazy.COMMANDS[name].module) is None:
        pytest.skip("not written yet")
    assert lazy.load_command(name).help.splitlines()[0] == lazy.COMMANDS[name].summary


def test_help_of_a_command_joins_wrapped_lines() -> None:
    paragraphs = lazy.load_command("doctor").help.split("\n\n")
    assert len(paragraphs) == 2
    assert "\n" not in paragraphs[1]


def test_config_show_knows_the_origin_of_a_flag(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["config", "show", "--lr", "0.01", "--no-dendrites", "--data", "a.csv", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)["settings"]
    assert (found["train.lr"]["value"], found["train.lr"]["origin"]) == (0.01, "--lr")
    assert found["dendrites.enabled"]["origin"] == "--no-dendrites"
    assert found["data.source"]["origin"] == "--data"
    assert found["train.epochs"]["origin"] == "default"


def test_config_show_tells_what_a_preset_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "train", "--preset", "seed"]) == 0
    out, err = capsys.readouterr()
    assert "--encoder google/" not in out
    assert "preset seed: " in err
    assert "--encoder google/bert_uncased_L-2_H-128_A-2" in err


@pytest.mark.parametrize("arguments", [[], ["data"], ["config"]])
def test_without_a_command_help_is_shown_and_nothing_done(
    capsys: pytest.CaptureFixture[str], arguments: list[Any]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert "Commands" in out
    assert not err
    assert main([*arguments, "--help"]) == 0
    assert "Commands" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gkiller {gkiller.__version__}\n"


def test_public_names_are_lazy_and_complete() -> None:
    assert gkiller.GkillerError.exit_code == 1
    assert {"load", "GkillerError", "__version__"} <= set(dir(gkiller))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = gkiller.nonsense


@pytest.mark.parametrize(
    ("arguments", "where", "advice"),
    [
        (["trian"], "gkiller", "'train'"),
        (["config", "shw"], "gkiller config", "did you mean 'show'?"),
        (["config", "show", "--jsn"], "gkiller config show", "--json"),
        (["config", "show", "--lrr=3"], "gkiller config show", "did you mean --lr?"),
        (["data", "inspect", "--lrr=3"], "gkiller data inspect", "--set train.lr=..."),
        (["config", "show", "--train.lr", "3"], "gkiller config show", "--set train.lr=..."),
        (["config", "show", "--train.lrr", "3"], "gkiller config show", "--set train.lr=..."),
        (["config", "show", "--dropout", "3"], "gkiller config show", "--set model.dropout=..."),
        (["config", "show", "--debug"], "gkiller config show", "gkiller --debug ..."),
        (["config", "show", "--zzzzzz"], "gkiller config show", "gkiller config show --help"),
        (["--vresion"], "gkiller", "--version"),
        (["config", "show", "trian"], "gkiller config", "'train'"),
        (["config", "show", "--set", "train.lrr=3"], "--set train.lrr", "'train.lr'"),
        (["config", "show", "--preset"], "gkiller config", "--help"),
    ],
)
def test_misspelt_words_answer_with_the_nearest(
    capsys: pytest.CaptureFixture[str], arguments: list[str], where: str, advice: str
) -> None:
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: ")
    assert f"  where: {where}\n" in streams.err
    assert advice in streams.err.partition("where:")[2]


def test_errors_have_their_exit_code_and_no_traceback(
    capsys: pytest.CaptureFixture[str], command: Callable[..., Any]
) -> None:
    def fail() -> None:
        raise ColumnError("no column 'txt' [sic]", where="a.csv", remedy="did you mean 'text'?")

    command(fail)
    assert main(["doctor"]) == 12
    streams = capsys.readouterr()
    expected = "error: no column 'txt' [sic]\n  where: a.csv\n  remedy: did you mean 'text'?\n"
    assert (streams.out, streams.err) == ("", expected)


def test_debug_lets_the_error_through(command: Callable[..., Any]) -> None:
    def fail() -> None:
        raise ColumnError("no column")

    command(fail)
    with pytest.raises(ColumnError):
        main(["--debug", "doctor"])


def test_json_errors_are_one_object_on_stdout() -> None:
    done = run("config", "show", "--json", "--set", "train.lr=5")
    assert done.returncode == 2
    error = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (error["error"], error["exit_code"], error["where"]) == ("SettingsError", 2, "--set train.lr")
    assert "train.lr must be" in error["what"]
    assert "train.lr must be" in done.stderr


def test_misspelt_flag_through_the_process() -> None:
    done = run("config", "show", "--json", "--prset", "fast")
    assert done.returncode == 2
    assert json.loads(done.stdout)["remedy"].startswith("did you mean --preset")
    assert "Traceback" not in done.stderr


def test_unexpected_errors_end_with_1_and_tell_how_to_report() -> None:
    code = (
        "import sys; from gkiller.cli import lazy; from gkiller.cli.main import main\n"
        "def boom(name): raise ValueError('boom')\n"
        "lazy.load_command = boom\n"
        "sys.argv = ['gkiller', 'doctor', '--json']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "GkillerError"
    assert "ValueError: boom" in done.stderr
    assert "gkiller --debug" in done.stderr
    assert "Traceback" not in done.stderr


def test_unexpected_hook_keeps_stdout_clean_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    _Unexpected(as_json=False)(ValueError, ValueError("boom"), None)
    assert capsys.readouterr().out == ""


def test_interrupt_ends_with_130(capsys: pytest.CaptureFixture[str], command: Callable[..., Any]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    command(interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_termination_ends_with_143_after_cleaning_up(command: Callable[..., Any]) -> None:
    cleaned = []

    def terminate() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    command(terminate)
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_was_swallowed_still_ends_the_process(
    command: Callable[..., Any], number: Any, code: int
) -> None:
    def import_something() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except (SystemExit, KeyboardInterrupt):
            raise AttributeError("partially initialized module") from None

    command(import_something)
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == code
    assert isinstance(caught.value.__cause__, AttributeError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_fault_without_termination_stays_one(command: Callable[..., Any]) -> None:
    def fail() -> None:
        raise AttributeError("typo")

    command(fail)
    with pytest.raises(AttributeError, match="typo"):
        main(["doctor"])


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gkiller", "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), complaint) == (141, "")


def test_exit_by_a_command_keeps_its_code(command: Callable[..., Any]) -> None:
    def leave() -> None:
        raise typer.Exit(7)

    command(leave)
    assert main(["doctor"]) == 7
