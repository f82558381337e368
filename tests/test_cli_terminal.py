"""What reaches a terminal: no control code of a comment, a column, a label or a file; colours as asked."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkiller.cli import console
from gkiller.wording import markdown, visible, visible_json

COMMAND = [sys.executable, "-m", "gkiller"]
CODES = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;title\x07",
    "clipboard": "\x1b]52;c;cHduZWQ=\x07",
    "clear": "\x1b[2J\x1b[H",
    "c1": "\x9b2J\x9d0;t\x9c",
    "override": "\u202eevil\u202c\u2066x\u2069",
    "mark": "a\u200eb\u200fc\u061c",
    "delete": "a\x7f\x08",
    "return": "good\rbad",
}
OURS = re.compile(r"\r*\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AK])\r*")  # what rich writes


def at_terminal(*arguments: Any, cwd: Any, **variables: Any) -> tuple[int, str]:
    """Run a command at a terminal; return its status and what the terminal got, without what rich writes."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        cwd=cwd,
        env=environment,
    )
    os.close(follower)
    parts = []
    try:
        while part := os.read(leader, 65536):
            parts.append(part)
    except OSError:  # the other side was closed
        pass
    os.close(leader)
    return process.wait(60), OURS.sub("", b"".join(parts).decode().replace("\r\n", "\n"))


def assert_safe(text: str) -> None:
    assert visible(text) == text


def test_comments_with_control_codes_at_a_terminal(onnx_model: Path, tmp_path: Path) -> None:
    texts = [text for text in CODES.values() if "\0" not in text]
    formats = [("--with-text", "--format", form) for form in ("jsonl", "csv")]
    for flags in ((), ("--json",), ("--explain",), *formats):
        code, shown = at_terminal("predict", "-m", onnx_model, *flags, "--", *texts, cwd=tmp_path)
        assert code == 0, shown
        assert_safe(shown)
        assert ("u202e" in shown, "1b" in shown) == (True, True)
        if flags == ("--json",):
            assert [one["text"] for one in json.loads(shown)["predictions"]] == texts
        if "jsonl" in flags:
            assert [json.loads(line)["text"] for line in shown.splitlines() if line[:1] == "{"] == texts


NAME = "".join(CODES.values()).replace("/", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "prepare", f"{NAME}.csv", "--out", "out"),
        ("data", "prepare", f"{NAME}.csv", "--label-columns", f"{NAME}1", "--out", "out2"),
        ("data", "prepare", f"missing-{NAME}.csv"),
        ("data", "inspect", f"{NAME}.csv"),
        ("predict", "-i", f"{NAME}.csv", "--text-column", f"no-{NAME}"),
        ("predict", "-i", f"missing-{NAME}.csv"),
        ("evaluate", NAME),
        ("predict", "--model", NAME, "hi"),
        ("predict", f"--{NAME}"),
        (NAME,),
        ("--debug", "predict", "-i", f"missing-{NAME}.csv"),
        ("config", "show", "--set", f"train.name={NAME}"),
    ],
    ids=lambda arguments: visible(" ".join(arguments).replace(NAME, "X")),
)
def test_columns_labels_and_names_with_control_codes_at_a_terminal(tmp_path: Path, arguments: Any) -> None:
    text = f'text,"{NAME}1","{NAME}2"\nhello,0,1\nyou idiot,1,0\n'
    (tmp_path / f"{NAME}.csv").write_text(text, encoding="utf-8", newline="")
    _, shown = at_terminal(*arguments, cwd=tmp_path)
    assert shown
    assert_safe(shown)


def test_names_cannot_forge_lines(call: Callable[..., Any]) -> None:
    _, _, err = call("predict", "-i", "a\nerror: forged")
    assert "\nerror: forged" not in err


def test_warnings_are_shown_safely(tmp_path: Path) -> None:
    program = (
        "import sys, warnings; sys.argv = ['gkiller', '--version']\n"
        "import gkiller.cli.main as entry\n"
        "entry.main(); warnings.warn('\\x1b[2J\\u202e')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert_safe(done.stderr)
    assert r"\x1b[2J\u202e" in done.stderr


def test_lines_of_our_own_survive(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("one\ntwo\tthree")
    console.show(console.results_table("t\x1b", ("a\x1b", "b"), [("x\ny\x1b", 1)], caption="c\nd\x1b"))
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "one"
    assert len(out.splitlines()) > 5
    assert_safe(out + err)


@given(st.text())
def test_visible_text_has_no_control_character(text: Any) -> None:
    shown = visible(text)
    kinds = {unicodedata.category(letter) for letter in shown if letter not in "\n\t"}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(letter) for letter in shown} & directions
    assert visible(shown) == shown
    shown.encode()
    assert "\n" not in visible(text, lines=False)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_visible_json_is_the_same_value(value: Any) -> None:
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert_safe(text)
    assert json.loads(text) == value


@given(st.text())
def test_markdown_has_no_html(text: Any) -> None:
    shown = markdown(text)
    assert not set("<\n") & set(shown)


def test_a_file_keeps_the_bytes(tmp_path: Path, onnx_model: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "predict", "-m", str(onnx_model), "--with-text", "\u202e\x9b"], capture_output=True, cwd=tmp_path
    )
    assert "\u202e\x9b".encode() in done.stdout


COLOURS = [
    ({}, False, False),
    ({"GITHUB_ACTIONS": "true"}, False, True),
    ({"GITHUB_ACTIONS": "true", "NO_COLOR": "1"}, False, False),
    ({"FORCE_COLOR": "1"}, True, True),
    ({"FORCE_COLOR": "1", "NO_COLOR": ""}, True, True),
    ({"FORCE_COLOR": "1", "NO_COLOR": "0"}, False, False),
    ({"PY_COLORS": "1", "NO_COLOR": "1"}, False, False),
    ({"FORCE_COLOR": "1", "TERM": "dumb"}, False, False),
]


@pytest.mark.parametrize(("variables", "piped", "terminal"), COLOURS, ids=str)
def test_colours_follow_the_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], piped: bool, terminal: bool
) -> None:
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (console.colours(terminal=False) is not None) == piped
    assert (console.colours(terminal=True) is not None) == (terminal or not variables)


@pytest.mark.parametrize("variables", [v for v, piped, _ in COLOURS if v and not piped], ids=str)
def test_no_escapes_in_a_pipe(variables: dict[str, str], tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")} | variables
    for arguments in (["predict", "--help"], ["data", "prepare", "--help"], ["predict", "--no-such"]):
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, env=environment, cwd=tmp_path)
        assert b"\x1b" not in done.stdout + done.stderr


def test_forced_colours_do_not_make_a_terminal(tmp_path: Path, onnx_model: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "predict", "-m", str(onnx_model), "hi"],
        capture_output=True,
        env={**os.environ, "FORCE_COLOR": "1"},
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(done.stdout)["row"] == 1


ENCODINGS = [
    {"LC_ALL": "C", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii"},
]


@pytest.mark.parametrize("variables", ENCODINGS, ids=lambda v: " ".join(map("=".join, v.items())))
def test_any_characters_in_any_locale(tmp_path: Path, onnx_model: Path, variables: dict[str, str]) -> None:
    text = "Idiöt € 日本 😀"
    (tmp_path / "é日.csv").write_text(f"text,größe\n{text},ö日\n", encoding="utf-8")
    environment = {**os.environ, **variables}

    def run(*arguments: Any, status: Any = 0) -> Any:
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL
        )
        assert done.returncode == status, done.stderr
        return done.stdout.decode(), done.stderr

    model = ("predict", "-m", str(onnx_model))
    assert json.loads(run(*model, text, "b", "--json")[0])["predictions"][0]["text"] == text
    assert json.loads(run(*model, text, "--with-text")[0])["text"] == text
    assert text in run(*model, text, "--with-text", "--format", "csv")[0]
    found = json.loads(run(*model, "-i", "é日.csv", "--keep", "größe")[0])
    assert found["größe"] == "ö日"
    summary = json.loads(run(*model, "-i", "é日.csv", "-o", "ü.csv", "--json")[0])
    assert summary["output"] == "ü.csv"
    assert (tmp_path / "ü.csv").is_file()
    assert json.loads(run(*model, "-i", "ß日.csv", "--json", status=2)[0])["error"] == "SettingsError"
    assert run(*model, "-i", "ß日.csv", status=10)[1]
    assert run("data", "inspect", "é日.csv", "--label-columns", "größe", status=11)[1]


def test_a_name_that_is_not_utf8_is_shown(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "predict", "-i", b"a\xff.csv"], capture_output=True, cwd=tmp_path)
    assert done.returncode == 10
    assert rb"a\udcff.csv" in done.stderr
    done = subprocess.run([*COMMAND, "evaluate", "--json", b"a\xff"], capture_output=True, cwd=tmp_path)
    assert json.loads(done.stdout)["where"] == "a\udcff"


_POSING = "a\nerror: fake\nwarning: fake\nb: 'text' is fake"


@pytest.mark.skipif(os.name == "nt", reason="no such names of files")
@pytest.mark.parametrize(
    "arguments",
    [
        [_POSING],
        ["predict", f"--{_POSING}"],
        ["predict", "hi", "--model", _POSING],
        ["predict", "--input", f"{_POSING}.csv"],
        ["predict", "hi", "--output", f"{_POSING}.{_POSING}"],
        ["train", "--set", f"{_POSING}=1", "--set", f"model.{_POSING}=1"],
        ["data", "inspect", _POSING],
    ],
)
def test_a_line_feed_makes_no_message(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / f"{_POSING}.csv").write_text("text,other\nhello,1\n", encoding="utf-8")
    run = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "fake" in run.stderr
    assert not re.search("^(error: fake|warning: fake|b:)", run.stderr, re.MULTILINE)


def test_a_width_without_bound(tmp_path: Path) -> None:
    wide = {**os.environ, "COLUMNS": "99999999999"}
    assert subprocess.run([*COMMAND, "predict", "--help"], env=wide, capture_output=True).returncode == 0
