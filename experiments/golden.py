"""Whether a change of the code changed what gkiller writes: the same commands with two installations.

    python experiments/golden.py OLD/bin/python NEW/bin/python [--inputs DIR]

Runs a fixed list of commands with each interpreter on this machine and compares, by SHA-256, what they
write and print, without times, rates, paths and versions. ``--inputs`` adds the files of a directory: each is
prepared and scored. Trained weights and the last digits of scores differ between processors, so no digest is
kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMES = re.compile(
    r"seconds|rows_per_second|rate|speed|created|started|ended|finished|versions?|python|load|memory|latency|"
    r"throughput|environment|machine|processor|cpu|commit|source_revision|timing|cold|digest|sha256|when|host|path|out$"
)
TRAIN = "train --sample-size 200 --epochs 2 --seed 7 --out runs --name one"
SMALL = "--layers 1 --hidden 64 --heads 2 --ffn 128 --encoder fresh"
ON_ROWS = "--data rows.csv --resamples 50 --json"
COMMANDS = {
    "train": f"{TRAIN} {SMALL} --json",
    "evaluate": "evaluate runs/one --resamples 50 --json",
    "evaluate default": f"evaluate default {ON_ROWS}",
    "threshold": "threshold default --data rows.csv --out tuned --json",
    "compare": f"compare default runs/one {ON_ROWS}",
    "identity": f"suite identity default runs/one {ON_ROWS}",
    "robustness": f"suite robustness default runs/one {ON_ROWS}",
    "export": "export runs/one --out exported --json",
    "quantize": "quantize exported --out small --json",
    "wheel": "export exported --format wheel --out wheels --json",
    "augment": "data augment rows.csv --out augmented --json",
    "inspect": "data inspect rows.csv --json",
    "bench": f"bench default --linear --rounds 1 --processes 1 {ON_ROWS}",
    "predict jsonl": "predict --input texts.txt --output scores.jsonl",
    "predict csv": "predict --input rows.csv --output scores.csv --keep-columns",
    "predict parquet": "predict --input texts.txt --output scores.parquet --explain",
    "explain": "predict --explain --json --input texts.txt",
    "config": "config show --json",
}
WRITTEN = (".safetensors", ".onnx", ".parquet", ".csv", ".jsonl", ".whl")
KIND = (
    "thank you for the {}",
    "what a lovely {}",
    "I am gay and I like the {}",
    "the {} starts at noon, bring water",
)
RUDE = (
    "you are an idiot, leave the {}",
    "shut up about the {}, fool",
    "nobody likes your stupid {}",
    "get lost, you {} clown",
)
NOUNS = ["garden", "match", "recipe", "bridge", "library", "train", "song", "market", "river", "parade"]


def main() -> int:
    """Compare two installations; exit code 1 when anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--inputs", type=Path, help="a directory of files to prepare and score")
    given = parser.parse_args()
    found = []
    for python in (given.old, given.new):
        with tempfile.TemporaryDirectory(prefix="gkiller-golden-") as name:
            found.append(dict(outcomes(python.absolute(), Path(name).resolve(), given.inputs)))
    old, new = found
    different = 0
    for key in sorted({*old, *new}):
        same = old.get(key) == new.get(key)
        different += not same
        shown = f" {new.get(key)}" if key.endswith("exit code") else ""
        sys.stdout.write(f"{'same' if same else 'DIFFERS'}  {key}{shown}\n")
        if not same:
            sys.stdout.write(f"    before {old.get(key)}\n    after  {new.get(key)}\n")
    sys.stdout.write(f"{len(old)} outcomes before, {len(new)} after, {different} differ\n")
    return 1 if different else 0


def outcomes(python: Path, folder: Path, inputs: Path | None) -> Iterator[tuple[str, str]]:
    """Yield a digest of everything that the commands print and write."""
    rows = [(form.format(noun), int(form in RUDE)) for noun in NOUNS for form in (*KIND, *RUDE)]
    lines = [f'"{text} {number}",{label}' for number, (text, label) in enumerate(rows * 2)]
    (folder / "rows.csv").write_text("\n".join(["text,toxicity", *lines]) + "\n")
    texts = [text for text, _ in rows]
    (folder / "texts.txt").write_text(
        "\n".join([*texts, " ".join(texts), "na\u00efve caf\u00e9 \u2615"]) + "\n"
    )
    for name, arguments in COMMANDS.items():
        yield from _run(python, folder, name, arguments.split())
    for file in sorted(inputs.absolute().iterdir()) if inputs is not None else ():
        prepare = ["data", "prepare", str(file), "--out", f"prepared-{file.name}", "--json"]
        yield from _run(python, folder, f"prepare {file.name}", prepare)
        yield from _run(python, folder, f"skip {file.name}", [*prepare, "--on-error", "skip", "--force"])
        yield from _run(python, folder, f"predict {file.name}", ["predict", "--input", str(file)])
    for file in sorted(folder.rglob("*")):
        passing = "checkpoints" in file.parts or file.name == "metrics.jsonl"
        if file.suffix in WRITTEN and file.is_file() and not passing:
            yield f"file {file.relative_to(folder)}", _digest(file.read_bytes())


def _run(python: Path, folder: Path, name: str, arguments: list[str]) -> Iterator[tuple[str, str]]:
    command = [str(python), "-m", "gkiller", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=600, stdin=subprocess.DEVNULL)
    yield f"{name}: exit code", str(done.returncode)
    text = done.stdout.decode()
    if "--json" in arguments and text.lstrip().startswith("{"):
        text = json.dumps(_stable(json.loads(text)), sort_keys=True)
    yield f"{name}: output", _digest(text.encode())


def _stable(value: Any) -> Any:
    """Leave out what differs from run to run."""
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if not TIMES.search(key)}
    return [_stable(item) for item in value] if isinstance(value, list) else value


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    raise SystemExit(main())
