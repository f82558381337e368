r"""What other corpora's labels are worth, read as toxicity: one corpus more at a time, from random weights.

    python recipes/sources.py --data $DATA --work sources --report docs/label-sources.md

The recipe takes labels from Wikipedia and Civil Comments alone, and from other corpora only comments, for its
teachers to score: a tweet's "offensive" is not Wikipedia's "toxic". Here a network without teachers is
trained on the labels of the two, on those and one corpus more, and on all; each is measured on the validation
comments of Wikipedia and of Civil Comments, at thresholds tuned on the former. What is there already is not
trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands import answer, gkiller, settings, train
from corpora import LABELLED
from gains import GAINS, figure, gained

sys.path.append(str(Path(__file__).parents[1] / "experiments"))

from document import insert

SETTINGS = ("model.encoder=fresh", "dendrites.enabled=false", "train.epochs=1")
FIGURES = {"AP": ("ap",), "F1": ("stored", "f1"), "ROC-AUC": ("roc_auc",)}


def prepare(data: Path, names: Sequence[str], out: Path) -> None:
    """Prepare corpora with the one label that all of them have."""
    if not (out / "manifest.json").is_file():
        files = [data / "train" / f"{name}.parquet" for name in names]
        ends = ("--valid", data / "valid" / "jigsaw.parquet", "--test", data / "test" / "jigsaw.parquet")
        columns = ("--label-columns", "label", "--weight-column", "weight")
        gkiller("data", "prepare", *files, *ends, *columns, "--out", out)


def measured(run: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Return a run's figures on the validation comments of both domains."""
    civil = answer("evaluate", run, "--data", data / "valid" / "civil.parquet", "--label-columns", "label")
    own = json.loads((run / "validation.json").read_text("utf-8"))
    return {name: one["labels"]["toxicity"] for name, one in (("Wikipedia", own), ("Civil Comments", civil))}


def table(found: dict[str, list[dict[str, dict[str, Any]]]], rows: dict[str, int], seeds: list[int]) -> str:
    """Return the table in Markdown; the first arm is the one that the others are compared with."""
    base = next(iter(found.values()))
    head = [f"{name}, {one}" for one in base[0] for name in FIGURES]
    lines = [
        f"Mean over the seeds {', '.join(map(str, seeds))}. In brackets the gain over the first row: {GAINS}.",
        "",
        f"| labels of | train rows | {' | '.join(head)} |",
        f"|---|---|{'---|' * len(head)}",
    ]
    for name, reports in found.items():
        cells = []
        for one in base[0]:
            for path in FIGURES.values():
                values, before = ([figure(each[one], path) for each in arm] for arm in (reports, base))
                cells.append(gained(values, None if reports is base else before))
        lines.append(f"| {name} | {rows[name]:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--work", type=Path, default=Path("sources"), help="where everything is made")
    parser.add_argument(
        "--corpora", nargs="+", metavar="NAME", help="only these, and not all together; else every other one"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table into FILE")
    arguments = parser.parse_args()
    data, work = arguments.data, arguments.work
    others = [one.stem for one in sorted((data / "train").glob("*.parquet")) if one.stem not in LABELLED]
    arms: dict[str, tuple[str, ...]] = {" + ".join(LABELLED): ()}
    arms |= {f"the same + {name}": (name,) for name in arguments.corpora or others}
    if not arguments.corpora:
        arms["all"] = tuple(others)
    found, rows = {}, {}
    for name, more in arms.items():
        key = "-".join(("base", *more)) if name != "all" else name
        prepared = work / "prepared" / key
        prepare(data, (*LABELLED, *more), prepared)
        rows[name] = json.loads((prepared / "manifest.json").read_text("utf-8"))["splits"]["train"]["rows"]
        where = ("--data", prepared, "--threads", arguments.threads, *settings(SETTINGS))
        runs = [train(work / "runs", f"{key}-{seed}", *where, "--seed", seed) for seed in arguments.seeds]
        found[name] = [measured(run, data) for run in runs]
    text = table(found, rows, arguments.seeds)
    sys.stdout.write(text)
    if arguments.report:
        insert(arguments.report, text, "sources")


if __name__ == "__main__":
    main()
