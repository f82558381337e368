"""``gkiller predict`` from end to end, real kills included."""

import contextlib
import gzip
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import write_csv, write_parquet
from toy import comment

from gkiller.inference import load

TEXTS = [comment(i, i % 4 == 0) for i in range(40)]
COMMAND = [sys.executable, "-m", "gkiller", "predict"]


@pytest.fixture
def predict(call: Any, onnx_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command; ``stdin`` is what it reads."""

    def run(*arguments: Any, stdin: Any = b"") -> Any:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return call("predict", "--model", onnx_model, "--threads", 1, *arguments)

    return run


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_arguments_and_standard_input_give_json_lines(predict: Callable[..., Any], onnx_model: Path) -> None:
    code, out, err = predict("you idiot", "thank you")
    assert (code, err) == (0, "")
    found = objects(out)
    expected = load(onnx_model).predict(["you idiot", "thank you"])
    assert [line["row"] for line in found] == [1, 2]
    assert [line["scores"]["toxicity"] for line in found] == [round(p["toxicity"], 6) for p in expected]
    assert predict(stdin=b"you idiot\nthank you\n") == (0, out, "")
    code, again, err = predict(stdin=b'{"text": "you idiot"}\n{"text": "thank you"}\n')
    assert (code, again) == (0, out)
    assert "JSON Lines" in err
    assert predict(stdin=b"") == (0, "", "")


def test_json_is_one_object(predict: Callable[..., Any]) -> None:
    code, out, err = predict("you idiot", "thank you", "--json", "--explain", "--only-flagged", "-t", "0.9")
    assert (code, err, out.count("\n")) == (0, "", 1)
    answer = json.loads(out)
    assert [p["row"] for p in answer["predictions"]] == [1]
    assert [word["text"] for word in answer["predictions"][0]["explanation"]] == ["you", "idiot"]
    code, out, _ = predict("--json", stdin=b"a")
    assert (code, json.loads(out)["error"]) == (2, "SettingsError")
    code, out, _ = predict("a", "--json", "--format", "csv")
    assert (code, json.loads(out)["where"]) == (2, "--json")


def test_files_in_and_out(predict: Callable[..., Any], tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", enumerate(TEXTS), header=("id", "text"))
    code, out, err = predict("--input", source, "--output", "out.csv.gz", "--json", "--batch-size", 7)
    assert code == 0
    answer = json.loads(out)
    assert [answer[key] for key in ("rows", "scored", "skipped", "output")] == [40, 40, 0, "out.csv.gz"]
    assert "'text' is taken as the comment column" in err
    assert "40 comments scored in out.csv.gz" in err
    lines = gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode().splitlines()
    assert lines[0] == "row,id,flagged,flags,windows,truncated,toxicity,insult"
    assert [line.split(",")[1] for line in lines[1:]] == [str(i) for i in range(40)]
    parquet = write_parquet(tmp_path / "in.parquet", body=TEXTS)
    code, out, _ = predict("-i", parquet, "--format", "csv", "--with-text", "--text-column", "body")
    assert code == 0
    assert [line.split(",")[1] for line in out.splitlines()] == ["text", *TEXTS]
    assert predict("-i", parquet, "-o", "a.parquet")[0] == 0
    assert predict("-i", parquet, "-o", "a.parquet")[0] == 19
    assert predict("-i", parquet, "-o", "a.parquet", "--force")[0] == 0


def test_thresholds(predict: Callable[..., Any]) -> None:
    def flags(*arguments: Any) -> Any:
        code, out, _ = predict("you idiot", *arguments)
        assert code == 0
        return objects(out)[0]["flags"]

    assert flags("--threshold", "0") == ["toxicity", "insult"]
    assert flags("-t", "1", "-t", "insult=0") == ["insult"]
    assert flags("-t", "insult=0", "-t", "1") == ["insult"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a", "--threshold", "x"], 2, "no number"),
        (["a", "--threshold", "insul=0.5"], 2, "did you mean 'insult'"),
        (["a", "--threshold", "2"], 52, "0..1"),
        (["a", "--input", "a.txt"], 2, "not both"),
        (["--input", "no.txt"], 10, "no such file"),
        (["--input", ".", "--input-format", "txt"], 10, "folder"),
        (["a", "--format", "parquet"], 2, "--output"),
        (["a", "--output", "a.tsv"], 2, "no format is written to .tsv"),
        (["a", "--output", "a.tsv.gz"], 2, "--format"),
        (["a", "--text-column", "text"], 2, "--input"),
        (["a", "--input-format", "csv"], 2, "--input"),
        (["a", "--format", "xml"], 2, "xml"),
        (["--format", "csv", "--resume"], 2, "--output"),
        (["--output", "a", "--resume", "--force"], 2, "contradict"),
        (["a", "--format", "csv", "--explain"], 2, "jsonl"),
        (["a", "--precision", "fp16"], 20, "--storage fp16"),
    ],
)
def test_what_does_not_go_together(predict: Callable[..., Any], arguments: list[str], code: int, message: str) -> None:
    found = predict(*arguments)
    assert (found[0], found[1]) == (code, "")
    assert message in found[2]


def test_without_a_model_it_says_how_to_make_one(call: Callable[..., Any]) -> None:
    code, _, err = call("predict", "a", "--model", "runs/nothing")
    assert code == 20
    assert "gkiller train" in err


def test_bad_rows(predict: Callable[..., Any]) -> None:
    content = b"fine\ncaf\xe9\nfine\n"
    code, out, err = predict(stdin=content)
    assert (code, out) == (13, "")
    assert "(standard input), row 2" in err
    code, _, err = predict("--batch-size", "1", "--output", "out.csv", stdin=b"fine\n" + content)
    assert (code, err.splitlines()[0]) == (13, "2 rows done: go on with the same command and --resume")
    code, out, err = predict("--on-error", "skip", stdin=content)
    assert (code, [line["row"] for line in objects(out)]) == (0, [1, 3])
    assert "warning: 1 bad row left out" in err
    assert "(standard input), row 2: byte 0xE9" in err


def test_long_texts_are_told(predict: Callable[..., Any]) -> None:
    code, out, err = predict("page " * 40)
    assert (code, objects(out)[0]["windows"] > 1) == (0, True)
    assert "1 comment of more than 16 tokens read in windows" in err
    code, out, err = predict("page " * 40, "--long-text", "truncate")
    assert (code, objects(out)[0]["truncated"]) == (0, True)
    assert "1 comment of more than 16 tokens read without the end" in err


def at_a_terminal(*arguments: Any, stdin: Any = None) -> tuple[int, str]:
    """Run the command with stdout at a terminal; return its exit code and what it shows."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=follower if stdin is None else subprocess.PIPE,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    )
    os.close(follower)
    if stdin is not None:
        process.stdin.write(stdin)
        process.stdin.close()
    shown = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    return process.wait(timeout=60), shown.decode()


@pytest.mark.skipif(os.name == "nt", reason="no terminals to open there")
def test_at_a_terminal(onnx_model: Path) -> None:
    code, shown = at_a_terminal("you [b]idiot", "--model", onnx_model, "--explain")
    assert code == 0
    assert "you [b]idiot" in shown
    assert "threshold" in shown
    assert "log-odds" in shown
    assert "{" not in shown
    code, shown = at_a_terminal("you idiot", "thank you", "--model", onnx_model)
    assert (code, "highest score" in shown, "thank you" in shown) == (0, True, True)
    code, shown = at_a_terminal("a", "b", "--model", onnx_model, "--only-flagged", "-t", "1")
    assert (code, shown.strip()) == (0, "no comment is flagged")
    code, shown = at_a_terminal("--model", onnx_model, stdin=b"you idiot\n")
    assert (code, json.loads(shown.splitlines()[0])["row"]) == (0, 1)
    code, shown = at_a_terminal("--model", onnx_model)
    assert code == 2
    assert "nothing to score" in shown


def kill_after(arguments: list[str], content: bytes, out: Path, grown: Path, append: bool = False) -> None:
    """Feed the command some input, wait until it has written, and kill it."""
    stdout = out.open("ab") if append else subprocess.DEVNULL
    process = subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=stdout)
    process.stdin.write(content)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not (grown.exists() and grown.stat().st_size > 0):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdin.close()
    if append:
        stdout.close()  # type: ignore[union-attr]


def finish(arguments: list[str], content: bytes, out: Path = Path(os.devnull)) -> None:
    with out.open("ab") as stdout:
        done = subprocess.run([*COMMAND, *arguments], input=content, stdout=stdout, check=False, timeout=120)
    assert done.returncode == 0


CONTENT = "".join(f"{text}\n" for text in TEXTS * 300).encode()  # over a pipe's and a reader's buffers


def test_a_pipe_cannot_be_gone_on_with(onnx_model: Path) -> None:
    arguments = [*COMMAND, "--model", str(onnx_model), "--resume"]
    done = subprocess.run(arguments, input=b"a\n", capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (41, b"")
    assert b">>" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_killed_stream_goes_on(onnx_model: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(onnx_model), "--threads", "2", "--batch-size", "1000"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    finish(arguments, CONTENT, whole)
    arguments.append("--resume")
    kill_after(arguments, CONTENT[:-1000], out, out, append=True)
    assert out.stat().st_size < whole.stat().st_size
    with out.open("ab") as stream:
        stream.write(b'{"row": 999')
    finish(arguments, CONTENT, out)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_killed_file_goes_on(onnx_model: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(onnx_model), "--batch-size", "1000", "--output"]
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    finish([*arguments, str(whole)], CONTENT)
    kill_after([*arguments, str(out)], CONTENT[:-1000], out, tmp_path / "out.csv.partial")
    assert not out.exists()
    finish([*arguments, str(out), "--resume"], CONTENT)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "whole.csv"]


def test_the_command_imports_neither_torch_nor_pyarrow(onnx_model: Path) -> None:
    heavy = ("torch", "transformers", "pyarrow", "sklearn", "onnx", "safetensors")
    code = (
        "import sys; from gkiller.cli.main import main; status = main(sys.argv[1:])\n"
        f"sys.stderr.write(' '.join(m for m in {heavy!r} if m in sys.modules)); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", "a", "--model", str(onnx_model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="pipes differ there")
def test_a_reader_that_leaves_ends_it_quietly(onnx_model: Path) -> None:
    arguments = [*COMMAND, "--model", str(onnx_model), "--batch-size", "100"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(CONTENT)
        assert process.stderr.read() == b""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        assert process.wait(timeout=60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device there")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_full_standard_output_is_named(onnx_model: Path, flags: list[Any]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "a", "--model", onnx_model, *flags], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 19
    assert done.stderr.startswith(b"error: the output cannot be written: No space left")
    assert done.stderr.count(b"\n") == 2


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM there")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_terminated_job_goes_on_where_it_was(onnx_model: Path, tmp_path: Path, number: Any, status: int) -> None:
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    arguments = [*COMMAND, "--model", str(onnx_model), "--batch-size", "1000", "--output", str(out)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(CONTENT[:-1000])
        process.stdin.flush()
        while not (partial.exists() and partial.stat().st_size > 0):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        process.stdin.close()
        assert process.wait(timeout=60) == status
        said = process.stderr.read().decode()
    journal = json.loads((tmp_path / "out.jsonl.progress.json").read_text())
    assert f"{journal['mark']['rows']:,} rows done: go on with the same command and --resume" in said
    assert journal["bytes"] == partial.stat().st_size > 0
    done = subprocess.run([*arguments, "--resume", "--json"], input=CONTENT, capture_output=True, check=True)
    assert json.loads(done.stdout)["resumed_at"] == journal["mark"]["rows"] > 0
    assert out.read_bytes().count(b"\n") == len(TEXTS) * 300
