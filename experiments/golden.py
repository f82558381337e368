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
from functools import cache
from pathlib import Path
from typing import Any

TIMES = re.compile(
    r"seconds|per_second|modules|rate|speed|created|started|ended|finished|versions?|python|load|memory|latency|"
    r"throughput|environment|machine|ratios|warnings|criteria|processor|cpu|commit|source_revision|timing|cold|digest|sha256|when|host|path|out$"
)
TRAIN = "train --sample-size 200 --epochs 2 --seed 7 --out runs --name one"
SMALL = "--encoder fresh --threads 1 --set model.layers=1 --set model.hidden=64 --set model.ffn=128"
ON_ROWS = "--data rows.csv --resamples 50 --json"
COMMANDS = {
    "train": f"{TRAIN} {SMALL} --json",
    "evaluate": "evaluate runs/one --resamples 50 --json",
    "evaluate default": f"evaluate default {ON_ROWS}",
    "threshold": "threshold default --data rows.csv --out tuned --json",
    "compare": f"compare default runs/one {ON_ROWS}",
    "identity": f"suite identity default runs/one --least 1 {ON_ROWS}",
    "robustness": f"suite robustness default runs/one {ON_ROWS}",
    "export": "export runs/one --out exported --json",
    "quantize": "quantize runs/one --out small --json",
    "wheel": "export exported --format wheel --out wheels --json",
    "augment": "data augment rows.csv --out augmented --json",
    "inspect": "data inspect rows.csv --json",
    "bench": f"bench default --linear --rows 40 --rounds 2 --timing-processes 1 --processes 1 {ON_ROWS}",
    "predict jsonl": "predict --input texts.txt --output scores.jsonl",
    "predict csv": "predict --input rows.csv --output scores.csv --keep-columns",
    "predict parquet": "predict --input texts.txt --output scores.parquet",
    "explain": "predict --explain --input texts.txt",
    "config": "config show --json",
}
WRITTEN = (".safetensors", ".onnx", ".parquet", ".csv", ".jsonl")
KIND = ("thank you for the {}", "what a lovely {}", "I am gay and I like the {}", "the {} starts at noon, bring water")
RUDE = (
    "you are an idiot, leave the {}",
    "shut up about the {}, fool",
    "nobody likes your stupid {}",
    "stop telling gay people what to do, you {} clown",
)
NOUNS = ["garden", "match", "recipe", "bridge", "library", "train", "song", "market", "river", "parade"]


def main() -> int:
    """Compare two installations; exit code 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        failed = key.removesuffix(": exit code") in COMMANDS and new.get(key) != "0"
        same = old.get(key) == new.get(key) and not failed
        different += not same
        sys.stdout.write(f"{'same' if same else 'DIFFERS'}  {key}: {old.get(key)} -> {new.get(key)}\n")
    sys.stdout.write(f"{len(old)} outcomes before, {len(new)} after, {different} differ or failed\n")
    return 1 if different else 0


def outcomes(python: Path, folder: Path, inputs: Path | None) -> Iterator[tuple[str, str]]:
    """Yield a digest of everything that the commands print and write."""
    rows = [(form.format(noun), int(form in RUDE)) for noun in NOUNS for form in (*KIND, *RUDE)]
    lines = [f'"{text} {number}",{label}' for number, (text, label) in enumerate(rows * 2)]
    (folder / "rows.csv").write_text("\n".join(["text,toxicity", *lines]) + "\n")
    texts = [text for text, _ in rows]
    (folder / "texts.txt").write_text("\n".join([*texts, " ".join(texts), "na\u00efve caf\u00e9 \u2615"]) + "\n")
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
    text = done.stdout.decode().replace(_package(python), "PACKAGE").replace(str(folder), "FOLDER")
    if "--json" in arguments and text.lstrip().startswith("{"):
        text = json.dumps(_stable(json.loads(text)), sort_keys=True)
    yield f"{name}: output", _digest(text.encode())


@cache
def _package(python: Path) -> str:
    where = [str(python), "-c", "import gkiller; print(gkiller.__path__[0])"]
    return subprocess.run(where, cwd="/", capture_output=True, text=True, check=True).stdout.strip()


def _stable(value: Any) -> Any:
    """Leave out what differs from run to run."""
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if not TIMES.search(key)}
    return [_stable(item) for item in value] if isinstance(value, list) else value


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    raise SystemExit(main())
