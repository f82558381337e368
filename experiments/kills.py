"""Kills a training many times over, at random moments of all kinds, and compares how each run ends.

    python experiments/kills.py --kills 200 --report docs/crash-safety.md

Every kill is a SIGKILL of a real process: before a file operation in the run's directory (so in the midst
of a checkpoint), after a training step, or from outside after a random time. A run is gone on with, often
killed again on the way, and must end with the weights, thresholds and metrics of a run that nobody killed,
byte for byte. It ends with 1 at the first difference.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from document import insert

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from killing import Killer, Trainings, check, outcome  # noqa: E402
from toy import tiny_settings, toy_tokenizer, write_toy_csv  # noqa: E402

from gkiller.data.prepare import prepare  # noqa: E402
from gkiller.settings import DataSettings  # noqa: E402

CONFIGURATIONS = {
    "gradient": ("dendrites.objective=gradient", "train.checkpoint_steps=1"),
    "two dendrites": ("dendrites.count=2", "train.checkpoint_steps=2"),
    "correlation, history": (
        "dendrites.objective=correlation",
        "dendrites.top_epochs=1",
        "dendrites.switch=history",
        "dendrites.switch_patience=1",
        "train.checkpoint_seconds=0",
    ),
    "no dendrites": ("dendrites.enabled=false", "train.epochs=4", "train.checkpoint_steps=1"),
}
MOST_KILLS_OF_A_RUN = 5


def main() -> int:
    """Kill, go on, compare; print a table."""
    parser = argparse.ArgumentParser(description="Kill trainings and compare how they end.")
    parser.add_argument("--kills", type=int, default=200, help="kills that must strike, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--report", type=Path, help="Markdown file whose table to renew")
    arguments = parser.parse_args()
    draw, started = random.Random(arguments.seed), time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory(prefix="gkiller-kills-") as name:
        data = _data(Path(name))
        share = -(-arguments.kills // len(CONFIGURATIONS))
        for configuration, overrides in CONFIGURATIONS.items():
            folder = Path(name) / configuration.replace(", ", "-").replace(" ", "-")
            folder.mkdir()
            settings = tiny_settings(*data, "dendrites.min_gain=-1", *overrides)
            rows.append((configuration, *_torment(Trainings(settings, folder), share, draw)))
            sys.stderr.write(f"{configuration}: {rows[-1]}\n")
    text = _table(rows, arguments.seed, time.monotonic() - started)
    sys.stdout.write(text)
    if arguments.report:
        insert(arguments.report, text, "kills")
    return 0


def _data(folder: Path) -> tuple[str, ...]:
    prepare(DataSettings(), folder / "prepared", sources=[str(write_toy_csv(folder / "toy.csv"))])
    (folder / "tokenizer.json").write_text(toy_tokenizer().to_str(), encoding="utf-8")
    return (f"data.source={folder / 'prepared'}", f"model.tokenizer={folder / 'tokenizer.json'}", "data.sample_size=48")


def _torment(runs: Trainings, kills: int, draw: random.Random) -> tuple[int, Counter[str]]:
    """Kill runs until so many kills have struck; return the runs and the kills by kind."""
    whole = runs.folder / "whole"
    counts = runs.finish(whole, resume=False)
    expected, struck, number = outcome(whole), Counter[str](), 0
    while sum(struck.values()) < kills:
        run = runs.folder / f"run-{number}"
        number += 1
        for _ in range(draw.randrange(1, MOST_KILLS_OF_A_RUN + 1)):
            resume = (run / "settings.toml").is_file()
            if resume and (run / "README.md").is_file():
                break
            kind = draw.choice(["file operation", "file operation", "step", "time"])
            if kind == "file operation":
                code = runs.kill(run, Killer(operation=draw.randint(1, counts["operations"])), resume=resume)
            elif kind == "step":
                code = runs.kill(run, Killer(step=draw.randint(1, counts["steps"])), resume=resume)
            else:
                code = runs.kill_after(run, draw.uniform(0.02, 1.2), resume=resume)
            struck[kind] += code != 0
        runs.go_on(run)
        check(runs, run, expected)
    return number, struck


def _table(rows: list[tuple[str, int, Counter[str]]], seed: int, seconds: float) -> str:
    lines = [
        "| configuration | runs | kills before a file operation | after a step | at a random time | differ |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs, struck in rows:
        counts = [struck[kind] for kind in ("file operation", "step", "time")]
        lines.append(f"| {name} | {runs} | {' | '.join(map(str, counts))} | 0 |")
    total = sum(sum(struck.values()) for _, _, struck in rows)
    lines.append("")
    lines.append(f"{total} kills in all, seed {seed}, {seconds:,.0f} s.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
