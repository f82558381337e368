"""What is written stays what it was: digests that do not depend on the processor.

`experiments/golden.py` compares the rest (weights, scores, reports) between two installations on one machine.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gkiller.cli.main import main
from gkiller.data.prepare import prepare
from gkiller.settings import DataSettings

ROWS = [
    (f"row {i}: the {'silly fool' if i % 3 == 0 else 'kind neighbour'} came at {i % 12} o'clock", i % 3 == 0)
    for i in range(60)
]
TABLE = [*ROWS, ('a comma, a "quote"\nand a second line', True), ("  spaces é ñ 日本 😀  ", False), ("=1+1", False)]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def delimited(mark: str) -> bytes:
    lines = [
        f"id{mark}text{mark}label",
        *(f"r{i}{mark}{quoted(text)}{mark}{int(toxic)}" for i, (text, toxic) in enumerate(TABLE)),
    ]
    return ("\n".join(lines) + "\n").encode()


def objects() -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": text, "label": int(toxic)} for i, (text, toxic) in enumerate(TABLE)]


INPUTS: dict[str, Callable[[], bytes]] = {
    "comma.csv": lambda: delimited(","),
    "semicolon.csv": lambda: b"sep=;\n" + delimited(";"),
    "bom.csv": lambda: "\ufeff".encode() + delimited(","),
    "tab.tsv": lambda: delimited("\t"),
    "packed.csv.gz": lambda: gzip.compress(delimited(","), mtime=0),
    "lines.jsonl": lambda: "".join(json.dumps(one) + "\n" for one in objects()).encode(),
    "array.json": lambda: json.dumps(objects(), indent=1, ensure_ascii=False).encode(),
    "repeated.csv": lambda: delimited(",") + delimited(","),
}
ROWS_WRITTEN = {"train": "f57f93720a240f72", "valid": "be5c9e6add23b2ce", "test": "769821ef3a228724"}


@pytest.mark.parametrize("name", INPUTS)
def test_prepared_rows_are_those_of_every_version_and_format(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(INPUTS[name]())
    manifest = prepare(DataSettings(), tmp_path / "out", sources=[str(tmp_path / name)])
    assert {split: one["fingerprint"][:16] for split, one in manifest["splits"].items()} == ROWS_WRITTEN


def test_scores_are_those_of_every_format(
    onnx_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = set()
    for name, content in INPUTS.items():
        if name != "repeated.csv":  # predict scores repeated rows, too
            Path(name).write_bytes(content())
            assert main(["predict", "--model", str(onnx_model), "--input", name, "--with-text"]) == 0
            answers.add(capfd.readouterr().out)
    [answer] = answers
    assert [json.loads(line)["text"] for line in answer.splitlines()] == [text for text, _ in TABLE]
