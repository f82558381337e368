"""What class weights do to a rare class, with the settings of the preset ``seed``.

Trains without and with class weights, at several learning rates and without dendrites, and reports the first
label's figures on the validation split. Finished runs are kept in OUT, so that a stopped benchmark goes on
where it was.

    python experiments/class_weights.py --data natural/ --report docs/class-weights.md

``natural/`` is made by ``gkiller data prepare``; see docs/class-weights.md for the command that was used.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from document import insert

from gkiller.settings import resolve
from gkiller.storage.files import json_text, write_text
from gkiller.training.train import train

WEIGHTS = ("none", "balanced")
Runs = dict[tuple[float, str], list[dict[str, Any]]]
"""(learning rate, class weights) to the finished runs, one for each seed."""


def run_one(lr: float, weights: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one run and keep what the report needs."""
    target = arguments.out / f"{lr:g}-{weights}-{seed}.json"
    if target.is_file():
        return
    overrides = [
        f"data.source={arguments.data}",
        f"data.sample_size={arguments.rows}",
        "model.encoder=fresh",
        "dendrites.enabled=false",
        f"train.lr={lr}",
        f"train.class_weights={weights}",
        f"train.seed={seed}",
        f"train.threads={arguments.threads}",
    ]
    settings = resolve(preset="seed", overrides=overrides, environ={}).settings
    result = train(settings, out=arguments.out)
    report = json.loads((result.run.path / "validation.json").read_text("utf-8"))
    label, figures = next(iter(report["labels"].items()))
    facts = {
        "label": label,
        "lr": lr,
        "class_weights": weights,
        "seed": seed,
        "train_rows": result.manifest["data"]["rows"]["train"],
        "epochs": result.progress.epoch,
        "threads": result.manifest["threads"],
        "figures": figures,
    }
    write_text(target, json_text(facts))
    sys.stderr.write(f"{target.name}: F1 at 0.5 {figures['half']['f1']['value']:.3f}\n")


def load_results(out: Path) -> Runs:
    """Return the finished runs, by learning rate, without weights first."""
    found: Runs = {}
    for path in sorted(out.glob("*.json")):
        facts = json.loads(path.read_text("utf-8"))
        found.setdefault((facts["lr"], facts["class_weights"]), []).append(facts)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], WEIGHTS.index(item[0][1]))))


def report(results: Runs) -> str:
    """Return the table in Markdown."""
    first = next(iter(results.values()))[0]
    figures = first["figures"]
    lines = [
        f"{first['train_rows']:,} training rows; validation on {figures['n']:,} rows, of which "
        f"{figures['prior']:.1%} positive by weight; label `{first['label']}`; {first['threads']} thread(s).",
        "In brackets 95 % bootstrap intervals over rows.",
        "",
        "| learning rate | class weights | seed | epochs | F1 at 0.5 | recall at 0.5 | tuned F1 | AP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (lr, weights), runs in results.items():
        for run in runs:
            own = run["figures"]
            shown = (own["half"]["f1"], own["half"]["recall"], own["stored"]["f1"], own["ap"])
            cells = [f"{lr:g}", weights, str(run["seed"]), str(run["epochs"]), *map(cell, shown)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(figure: dict[str, Any]) -> str:
    """Return a figure with its interval."""
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def main() -> None:
    """Run what is asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="directory written by 'gkiller data prepare'")
    parser.add_argument("--rows", type=int, default=5_000, help="training rows")
    parser.add_argument("--rates", default="2e-5,1e-4,3e-4,1e-3", help="learning rates, comma-separated")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/class-weights"))
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table into FILE at the end")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in map(int, arguments.seeds.split(",")):
        for lr in map(float, arguments.rates.split(",")):
            for weights in WEIGHTS:
                run_one(lr, weights, seed, arguments)
    if arguments.report:
        insert(arguments.report, report(load_results(arguments.out)))


if __name__ == "__main__":
    main()
