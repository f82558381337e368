"""Every bad input: its exit code, the place, a remedy, and no traceback."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import TINY, write_toy_csv

from gkiller.cli.main import main
from gkiller.errors import SourceNotFoundError

pytestmark = pytest.mark.usefixtures("no_plots", "clean_environment")

GOOD = "".join(f"comment number {i},{int(i % 4 == 0)}\n" for i in range(60))


def content(path: Path, data: bytes | str) -> None:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def csv_file(text: Any) -> Any:
    return lambda folder: content(folder / "c.csv", text)


def row(line: Any, number: Any = 17) -> Any:
    """The good file with one row replaced."""
    lines = GOOD.splitlines(keepends=True)
    lines[number - 1] = line if isinstance(line, str) else "@"
    whole = ("text,label\n" + "".join(lines)).encode()
    return whole if isinstance(line, str) else whole.replace(b"@", line)


TRAIN = ("train", "--data", "c.csv")
BAD = {
    # name: (what makes the file, arguments, exit code, words that stderr must hold)
    "missing file": (
        lambda folder: write_toy_csv(folder / "comments.csv"),
        ("train", "--data", "coments.csv"),
        10,
        ("coments.csv", "did you mean", "comments.csv"),
    ),
    "empty file": (csv_file(""), TRAIN, 11, ("c.csv",)),
    "header only": (csv_file("text,label\n"), TRAIN, 11, ("c.csv",)),
    "no such column": (
        csv_file("comment_text,toxic\n" + GOOD),
        (*TRAIN, "--text-column", "coment_text"),
        12,
        ("coment_text", "'comment_text'", "c.csv"),
    ),
    "no such label column": (
        csv_file("text,toxic\n" + GOOD),
        (*TRAIN, "--label-columns", "toxix"),
        12,
        ("toxix", "'toxic'"),
    ),
    "one class only": (
        csv_file("text,label\n" + "".join(f"comment {i},0\n" for i in range(60))),
        TRAIN,
        16,
        ("class",),
    ),
    "label outside 0/1": (csv_file(row("comment,2\n")), TRAIN, 15, ("row 17", "label", "'2'")),
    "score outside 0..1": (csv_file(row("comment,1.5\n")), TRAIN, 15, ("row 17", "1.5")),
    "label that is a word": (csv_file(row("comment,maybe\n")), TRAIN, 15, ("row 17", "maybe")),
    "invalid UTF-8": (csv_file(row(b"caf\xe9 au lait,0\n")), TRAIN, 13, ("row 17", "UTF-8")),
    "NUL byte": (csv_file(row(b"a\0b,0\n")), TRAIN, 13, ("row 17", "NUL")),
    "10 MB field": (csv_file(row("x" * 10_000_000 + ",0\n")), TRAIN, 14, ("row 17",)),
    "missing text": (csv_file(row(",0\n")), TRAIN, 14, ("row 17",)),
    "ragged row": (csv_file(row("a,0,1,2\n")), TRAIN, 14, ("row 17",)),
    "unknown format": (
        lambda folder: content(folder / "c.xlsx", b"PK"),
        ("train", "--data", "c.xlsx"),
        17,
        ("c.xlsx", ".csv"),
    ),
    "unreachable hub, data": (
        lambda folder: None,
        ("train", "--data", "nobody/no-such-data"),
        18,
        ("nobody/no-such-data", "HF_HUB_OFFLINE"),
    ),
    "unreachable hub, encoder": (
        csv_file("text,label\n" + GOOD),
        (*TRAIN, "--encoder", "nobody/no-such-encoder"),
        18,
        ("nobody/no-such-encoder", "model.encoder=fresh"),
    ),
    "no such encoder": (
        csv_file("text,label\n" + GOOD),
        (*TRAIN, "--encoder", "./nowhere"),
        20,
        ("./nowhere", "config.json"),
    ),
    "no such tokenizer": (
        csv_file("text,label\n" + GOOD),
        (*TRAIN, "--tokenizer", "nowhere.json"),
        20,
        ("nowhere.json",),
    ),
    "misspelt flag": (lambda folder: None, ("train", "--epoch", "3"), 2, ("--epoch", "--epochs")),
    "misspelt key": (lambda folder: None, ("train", "--set", "train.lrr=1e-3"), 2, ("train.lrr", "train.lr")),
    "misspelt key in a file": (
        lambda folder: content(folder / "gkiller.toml", "[train]\nepoch = 3\n"),
        ("train",),
        2,
        ("epoch", "epochs", "gkiller.toml"),
    ),
    "value out of range": (lambda folder: None, ("train", "--lr", "-1"), 2, ("train.lr", "--lr")),
    "misspelt preset": (lambda folder: None, ("train", "--preset", "sead"), 2, ("sead", "seed")),
    "misspelt split": (lambda folder: None, ("evaluate", "nowhere", "--split", "tset"), 20, ("nowhere",)),
    "bad run name": (csv_file("text,label\n" + GOOD), (*TRAIN, "--name", "../up"), 2, ("--name", "../up")),
    "no device": (csv_file("text,label\n" + GOOD), (*TRAIN, "--device", "mps"), 2, ("mps", "train.device")),
    "no model": (lambda folder: None, ("threshold", "nowhere"), 20, ("nowhere", "gkiller train")),
}


@pytest.fixture
def no_hub_no_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("no_hub_no_mps")
@pytest.mark.parametrize("name", list(BAD))
def test_bad_input(call: Callable[..., Any], tmp_path: Path, name: str) -> None:
    make, arguments, expected, words = BAD[name]
    make(tmp_path)
    code, out, err = call(*arguments)
    assert code == expected, err
    assert out == ""
    for word in words:
        assert word in err
    assert err.startswith("error: ")
    assert "remedy: " in err
    assert "Traceback" not in err
    assert len(err) < 2000
    assert not list(tmp_path.glob("runs/train-*"))  # a refused run leaves nothing in the way


@pytest.mark.parametrize("name", ["NUL byte", "no such column", "misspelt key"])
def test_the_same_as_json(call: Callable[..., Any], tmp_path: Path, name: str) -> None:
    make, arguments, expected, _ = BAD[name]
    make(tmp_path)
    code, out, err = call(*arguments, "--json")
    found = json.loads(out)
    assert code == found["exit_code"] == expected
    assert found["what"]
    assert found["where"]
    assert found["remedy"]
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbftext,label\n" + GOOD.encode(),
        ("text,label\n" + GOOD).replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + ("text,label\n" + GOOD).replace("\n", "\r\n").encode(),
    ],
    ids=["BOM", "CRLF", "both"],
)
def test_byte_order_marks_and_windows_lines_are_accepted(
    call: Callable[..., Any], tmp_path: Path, tokenizer_file: Path, data: bytes
) -> None:
    content(tmp_path / "c.csv", data)
    flags = [part for override in (*TINY, f"model.tokenizer={tokenizer_file}") for part in ("--set", override)]
    code, out, err = call(*TRAIN, *flags, "--set", "train.epochs=1", "--no-dendrites", "--json")
    assert code == 0, err
    assert json.loads(out)["labels"] == ["toxicity"]


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    make, _, expected, words = BAD["invalid UTF-8"]
    make(tmp_path)
    command = [sys.executable, "-m", "gkiller", "data", "prepare", "c.csv", "--out", "prepared"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (expected, "")
    assert all(word in done.stderr for word in words)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("command", [("data", "prepare"), ("data", "inspect"), ("evaluate", "default", "--data")])
def test_a_path_that_the_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ("--out", "p") if command[-1] == "prepare" else ()
    long = "a" * 300 + ".csv"
    assert main([*command, long, *out]) == SourceNotFoundError.exit_code
    assert "a" * 300 in capsys.readouterr().err.replace("\n", "")


def test_a_folder_that_may_not_be_entered_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "closed/c.csv")

    monkeypatch.setattr("pathlib.Path.is_dir", refuse)
    assert main(["data", "inspect", "closed/c.csv"]) == SourceNotFoundError.exit_code
    shown = capsys.readouterr().err
    assert "closed/c.csv" in shown
    assert "permissions" in shown
