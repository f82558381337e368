"""What the command line says of comments that look like flags, and of misspelt models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMENTS = ["-you idiot", "-you", "--you idiot", "-i hate you", "-ok then", "-fool", "-terrible", "-hello all"]


@pytest.mark.parametrize("text", COMMENTS)
def test_a_comment_that_begins_with_a_dash_is_told_of_the_two_dashes(call: Callable[..., Any], text: str) -> None:
    code, out, err = call("predict", text)
    assert code, out
    remedy = next(line for line in err.splitlines() if "remedy:" in line)
    quoted = f"'{text}'" if " " in text else text
    assert remedy.count("comes after --") == 1
    assert f"gkiller predict -- {quoted}" in remedy


@pytest.mark.parametrize("text", COMMENTS)
def test_a_comment_after_two_dashes_is_scored(call: Callable[..., Any], onnx_model: Path, text: str) -> None:
    code, out, _ = call("predict", "--model", onnx_model, "--json", "--", text)
    assert code == 0
    assert json.loads(out)["predictions"][0]["text"] == text


def test_a_misspelt_flag_is_still_told_of_its_flag(call: Callable[..., Any]) -> None:
    assert "did you mean --model" in call("predict", "--modle", "x")[2]


def test_a_value_may_begin_with_a_dash(call: Callable[..., Any], tmp_path: Path, onnx_model: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("-t x,id\nhello,1\n")
    code, out, _ = call("predict", "--model", onnx_model, "-i", path, "--text-column", "-t x")
    assert (code, len(out.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "--model", "defalt", "hi"),
        ("evaluate", "defalt"),
        ("compare", "defalt", "default"),
        ("bench", "defalt"),
        ("suite", "identity", "defalt"),
        ("suite", "robustness", "defalt", "--data", "sample"),
        ("export", "Default"),
        ("quantize", "defalt"),
        ("threshold", "defalt", "--out", "tuned"),
        ("doctor", "defalt"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_misspelt_model_is_told_of_the_installed_one(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gkiller.cli.doctor.checks.check_round_trip", list)
    monkeypatch.setattr("gkiller.cli.doctor.checks.check_hub", lambda online: [])
    code, out, err = call(*arguments)
    assert code
    assert "did you mean default?" in " ".join((out + err).split())
