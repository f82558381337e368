"""Which files and functions a comment, a row and a batch pass through.

    python experiments/paths.py [--functions]

Counts the calls of gkiller's own functions in three commands, once with few rows and once with twice as many, in
one process: `predict` for a comment, `data prepare` for a row, `train` for a batch. A function whose calls grow
with the rows is on the path; one that is called once for a whole job is not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import gkiller
from gkiller.cli.main import main as command

PACKAGE = Path(gkiller.__file__).parent
SMALL = "--encoder fresh --threads 1 --set model.layers=1 --set model.hidden=32 --set model.ffn=64 --no-dendrites"
COMMANDS = {
    "a comment through predict": (5_000, "predict --input rows{n}.csv --output scores{n}.jsonl --threads 1"),
    "a row through data prepare": (12_000, "data prepare rows{n}.csv --out prepared{n}"),
    "a batch through train": (1_000, f"train --data rows{{n}}.csv --epochs 1 --name run{{n}} {SMALL}"),
}


def calls(line: str) -> Counter[tuple[str, str]]:
    """Return how often each of gkiller's functions is called while a command runs."""
    found = Counter[tuple[str, str]]()

    def seen(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)) and not code.co_name.startswith("<"):
            file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            found[file, code.co_qualname] += 1

    with contextlib.redirect_stdout(sys.stderr):
        threading.setprofile(seen)
        sys.setprofile(seen)
        try:
            status = command(line.split())
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    if status:
        raise SystemExit(f"gkiller {line} ended with {status}")
    return found


def write_rows(path: Path, count: int) -> None:
    """Write comments of two classes."""
    kinds = ("you silly fool, leave the garden", "thank you for the garden")
    lines = [f"{kinds[row % 2]} number {row},{1 - row % 2}" for row in range(count)]
    path.write_text(
        "text,label\n" + "\n".join(f'"{one.rpartition(",")[0]}",{one[-1]}' for one in lines) + "\n", "utf-8"
    )


def main() -> None:
    """Run each command twice and print what grew."""
    parser = argparse.ArgumentParser(description="Files and functions on the path of a comment, a row and a batch.")
    parser.add_argument("--functions", action="store_true", help="name the functions too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gkiller-paths-") as folder:
        os.chdir(folder)
        for what, (count, line) in COMMANDS.items():
            for n in (1, 2):
                write_rows(Path(f"rows{n}.csv"), n * count)
            once, twice = (calls(line.format(n=n)) for n in (1, 2))
            grown = sorted(key for key in twice if twice[key] > once[key])
            files: dict[str, list[str]] = {}
            for file, name in grown:
                files.setdefault(file, []).append(name)
            sys.stdout.write(f"\n{what}: {len(files)} files, {len(grown)} functions\n")
            for file, names in files.items():
                sys.stdout.write(
                    f"  {file}" + (f": {', '.join(names)}" if given.functions else f" ({len(names)})") + "\n"
                )
        os.chdir("/")


if __name__ == "__main__":
    main()
