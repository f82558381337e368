"""How far one training's figures move with threads, processes and the processor's instructions.

    python experiments/tolerance.py --data prepared --report docs/crash-safety.md

Trains the same thing several times, each in a process of its own, and prints losses and validation figures
beside those of the first. The same set-up twice must give the same bytes: it ends with 1 when it does not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from document import insert

from gkiller.training.run import RunDirectory

SHORT = ("model.encoder=fresh", "train.epochs=1", "dendrites.epochs=1", "dendrites.joint_epochs=1")
CALM = ("model.dropout=0", "train.token_dropout=0")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@dataclass(frozen=True)
class SetUp:
    """One way to run the same training.

    Attributes:
        name: for the table.
        base: the set-up that it is compared with, or an empty string for none.
        threads: of each process.
        launcher: what comes between the interpreter and "-m gkiller".
        settings: dotted overrides.
        environment: variables.
    """

    name: str
    base: str = ""
    threads: int = 1
    launcher: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
SET_UPS = (
    SetUp("one thread"),
    SetUp("the same again", "one thread"),
    SetUp("two threads", "one thread", threads=2),
    SetUp("AVX2 instructions only", "one thread", environment=AVX2),
    SetUp("two processes", "one thread", launcher=TORCHRUN),
    SetUp("another seed", "one thread", settings=("train.seed=1",)),
    SetUp("no dropout, one process", settings=CALM),
    SetUp("no dropout, two processes", "no dropout, one process", launcher=TORCHRUN, settings=CALM),
)
FIGURES = ("train_loss", "valid_loss", "valid_ap", "valid_f1")


def main() -> int:
    """Train each set-up; print a table."""
    parser = argparse.ArgumentParser(description="Compare one training over set-ups.")
    parser.add_argument("--data", required=True, help="a prepared directory")
    parser.add_argument("--rows", type=int, default=8000, help="training rows")
    parser.add_argument("--report", type=Path, help="Markdown file whose table to renew")
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="gkiller-tolerance-") as out:
        for number, set_up in enumerate(SET_UPS):
            run = _train(set_up, Path(out) / f"run-{number}", arguments.data, arguments.rows)
            rows = RunDirectory(run).read_metrics()
            found[set_up.name] = {key: rows[-1][key] for key in FIGURES}
            weights = (run / "model" / "model.safetensors").read_bytes()
            digests[set_up.name] = hashlib.sha256(weights).hexdigest()
            sys.stderr.write(f"{set_up.name}: {found[set_up.name]} {digests[set_up.name][:12]}\n")
    text = _table(found, digests, arguments.rows)
    sys.stdout.write(text)
    if arguments.report:
        insert(arguments.report, text, "tolerance")
    return int(digests["one thread"] != digests["the same again"])


def _train(set_up: SetUp, run: Path, data: str, rows: int) -> Path:
    fixed = (f"data.sample_size={rows}", f"train.threads={set_up.threads}", *SHORT)
    overrides = (*fixed, *set_up.settings)
    flags = [part for override in overrides for part in ("--set", override)]
    place = ["--data", data, "--out", str(run.parent), "--name", run.name]
    command = [sys.executable, *set_up.launcher, "-m", "gkiller", "train", *place, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": str(set_up.threads), **set_up.environment}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return run


def _table(found: dict[str, dict[str, float]], digests: dict[str, str], rows: int) -> str:
    lines = [
        f"{rows:,} training rows, an epoch a phase; figures of the last, F1 at 0.5; in brackets differences.",
        "",
        "| set-up | training loss | validation loss | AP | F1 | bytes |",
        "|---|---|---|---|---|---|",
    ]
    for set_up in SET_UPS:
        own = found[set_up.name]
        if set_up.base:
            base = found[set_up.base]
            cells = [f"{own[key]:.5f} ({own[key] - base[key]:+.1e})" for key in FIGURES]
            same = "the same" if digests[set_up.name] == digests[set_up.base] else "others"
        else:
            cells, same = [f"{own[key]:.5f}" for key in FIGURES], ""
        lines.append(f"| {set_up.name} | {' | '.join(cells)} | {same} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
