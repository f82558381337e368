"""Do dendrites help? Equal budgets, several seeds, paired intervals, ablations.

Trains every arm of `ARMS` on the same rows and seeds, selects epochs on the validation split alone, and
measures on the test split. Each run's scores are kept in OUT, so that a stopped benchmark goes on where it
was, and several processes can share the work (--arms). ``--report`` only writes the table.

    python experiments/dendrites.py --data prepared/ --seeds 0,1,2
    python experiments/dendrites.py --data prepared/ --report docs/dendrites.md

``prepared/`` is made by ``gkiller data prepare``; see docs/dendrites.md for the command that was used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from document import insert

from gkiller.data.load import read_prepared
from gkiller.evaluation.metrics import HALF, RANK_FIGURES, interval, plan, rank, resample
from gkiller.model.directory import load_model
from gkiller.settings import resolve
from gkiller.storage.files import json_text, write_text
from gkiller.training.phases import ablated_scores, top_weight_mean
from gkiller.training.train import train

NEURON, DENDRITE, JOINT = 3, 3, 1
_SAME = [f"dendrites.joint_epochs={JOINT}", "dendrites.min_gain=-1", "train.patience=100"]
_GROWN = [*_SAME, f"train.epochs={NEURON}", f"dendrites.epochs={DENDRITE}"]
_PLAIN = [*_SAME, "dendrites.enabled=false", f"train.epochs={NEURON + DENDRITE + JOINT}"]
_FFN = '["*.intermediate.dense", "encoder.layer.?.output.dense"]'
_STRONG = ["dendrites.init_std=0.05", "dendrites.activation=tanh"]

ARMS: dict[str, tuple[str, list[str]]] = {
    "none": ("no dendrites, same total epochs", _PLAIN),
    "short": (
        "no dendrites, the neuron phase alone (3 epochs)",
        [*_SAME, "dendrites.enabled=false", f"train.epochs={NEURON}"],
    ),
    "plain-4": ("no dendrites, 4 epochs", [*_SAME, "dendrites.enabled=false", "train.epochs=4"]),
    "restart-4": (
        "no dendrites, 1 epoch, then a new schedule (and head) for 3",
        [*_SAME, "dendrites.enabled=false", "train.epochs=3"],
    ),
    "wide-4": (
        "no dendrites, 4 epochs, FFN 1286",
        [*_SAME, "dendrites.enabled=false", "train.epochs=4", "model.ffn=1286"],
    ),
    "wide": ("no dendrites, FFN 1286: the parameters of one dendrite", [*_PLAIN, "model.ffn=1286"]),
    "gradient": ("dendrites by gradient", _GROWN),
    "correlation": ("dendrites by correlation", [*_GROWN, "dendrites.objective=correlation"]),
    "gradient-strong": ("dendrites by gradient, tanh, initial std 0.05", [*_GROWN, *_STRONG]),
    "correlation-strong": (
        "dendrites by correlation, tanh, initial std 0.05",
        [*_GROWN, *_STRONG, "dendrites.objective=correlation"],
    ),
    "gradient-ffn": (
        "dendrites by gradient on the FFN's first Linears only",
        [*_GROWN, 'dendrites.patterns=["*.intermediate.dense"]'],
    ),
    "gradient-slow": ("dendrites by gradient, learning rate 1e-3", [*_GROWN, "dendrites.lr=1e-3"]),
    "gradient-early": (
        "dendrites by gradient, after 1 neuron epoch, for 5 epochs",
        [*_GROWN, "train.epochs=1", "dendrites.epochs=5"],
    ),
    "correlation-early": (
        "dendrites by correlation, after 1 neuron epoch, for 5 epochs",
        [*_GROWN, "dendrites.objective=correlation", "train.epochs=1", "dendrites.epochs=5"],
    ),
    "gradient-joint": (
        "1 frozen epoch, then neurons and dendrites together for 3 at 1e-3",
        [*_GROWN, "dendrites.epochs=1", "dendrites.joint_epochs=3", "dendrites.joint_lr=1e-3"],
    ),
    "gradient-early-joint": (
        "1 neuron epoch, 1 frozen, then neurons and dendrites together for 2 at 1e-3",
        [*_GROWN, "train.epochs=1", "dendrites.epochs=1", "dendrites.joint_epochs=2", "dendrites.joint_lr=1e-3"],
    ),
    "narrow": ("no dendrites, FFN 256, same total epochs", [*_PLAIN, "model.ffn=256"]),
    "narrow-ffn": (
        "FFN 256 with one dendrite on its two Linears (inference cost of FFN 512)",
        [*_GROWN, "model.ffn=256", f"dendrites.patterns={_FFN}"],
    ),
}
RESTARTED = {"restart-4": ["train.epochs=1"]}
"""Arms that go on from the encoder of an earlier training: what that training has of its own."""

PAIRS = (
    ("gradient", "short"),
    ("gradient", "wide"),
    ("correlation", "short"),
    ("gradient-early", "none"),
    ("gradient-early-joint", "plain-4"),
    ("gradient-early-joint", "restart-4"),
    ("gradient-early-joint", "wide-4"),
    ("narrow-ffn", "narrow"),
    ("narrow-ffn", "none"),
)
"""Arms with dendrites, and what to compare them with."""

CORE = ("none", "short", "wide", "gradient", "correlation")


def settings_of(arm: str, arguments: argparse.Namespace, seed: int) -> list[str]:
    """Return the overrides of one run."""
    return [
        *ARMS[arm][1],
        f"data.source={arguments.data}",
        f"data.sample_size={arguments.rows}",
        f"train.seed={seed}",
        f"train.threads={arguments.threads}",
        "model.encoder=fresh",
        f"model.max_length={arguments.max_length}",
        "evaluation.resamples=10",
    ]


def run_one(arm: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train and score one arm with one seed, and keep what the report needs."""
    target = arguments.out / f"{arm}-{seed}.json"
    if target.is_file():
        return
    overrides = settings_of(arm, arguments, seed)
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        if arm in RESTARTED:
            overrides += [f"model.encoder={first_encoder([*overrides, *RESTARTED[arm]], Path(folder))}"]
        settings = resolve(overrides=overrides, environ={}).settings
        result = train(settings, out=Path(folder), name="run")
        loaded = load_model(result.run.path)
        test = read_prepared(Path(arguments.data)).split("test")
        variants = ablated_scores(loaded, test.texts)
        facts = {
            "arm": arm,
            "seed": seed,
            "rows": result.manifest["data"]["rows"]["train"],
            "parameters": result.finished.parameters,
            "seconds": result.progress.seconds,
            "epochs": result.progress.epoch,
            "valid_ap": {str(count): best for count, best in result.progress.best.items()},
            "max_length": settings.model.max_length,
            "threshold": result.finished.thresholds[loaded.labels[0]].value,
            "top_weight_mean": top_weight_mean(loaded),
            "metrics": result.run.read_metrics(),
            "environment": result.manifest["environment"],
            "threads": result.manifest["threads"],
        }
        shutil.rmtree(result.run.path)
    columns: dict[str, Any] = {k: v[:, 0] for k, v in variants.items()}
    np.savez_compressed(target.with_suffix(".npz"), **columns)
    write_text(target, json_text(facts))
    sys.stderr.write(f"{target.name}: valid AP {facts['valid_ap']}, {facts['seconds']:.0f} s\n")


def first_encoder(overrides: list[str], folder: Path) -> Path:
    """Train with these settings and return a directory with the encoder, as transformers reads it."""
    first = train(resolve(overrides=overrides, environ={}).settings, out=folder, name="first")
    loaded = load_model(first.run.path)
    loaded.model.bert.save_pretrained(folder / "encoder")
    shutil.copy(first.run.model / "tokenizer.json", folder / "encoder")
    return folder / "encoder"


def load_results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the finished runs by arm, in the order of `ARMS`, with their test scores."""
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in ARMS:
        for path in sorted(out.glob(f"{arm}-*.json")):
            if not path.stem.removeprefix(f"{arm}-").isdecimal():
                continue  # of an arm whose name begins like this one
            facts = json.loads(path.read_text("utf-8"))
            with np.load(path.with_suffix(".npz")) as scores:
                facts["scores"] = {name: scores[name] for name in scores.files}
            found.setdefault(arm, []).append(facts)
    return found


Table = dict[tuple[str, str, str], dict[int, tuple[float, Any]]]
"""(arm, variant, figure) to seed to the figure and its bootstrap replicas, (R,)."""


def figures(results: dict[str, list[dict[str, Any]]], data: Path) -> Table:
    """Return AP and F1 of every run and variant: point and bootstrap replicas.

    All arms, seeds and variants see the same resamples of the test rows, so that differences are paired.
    F1 is at the threshold tuned on the validation split.
    """
    test = read_prepared(data).split("test")
    truth = test.labels[:, 0].astype(np.float64)
    keys, plans = [], []
    for arm, runs in results.items():
        for facts in runs:
            for variant, scores in facts["scores"].items():
                keys.append((arm, variant, facts["seed"]))
                plans.append(plan(rank(truth, scores, test.weights), (facts["threshold"], HALF), 15))
    ones = np.stack([one.figures(np.ones((1, len(truth)))) for one in plans])[:, 0]
    replicas = resample(plans, len(truth), 1000, 0)
    table: Table = {}
    for slot, (arm, variant, seed) in enumerate(keys):
        for name, column in (("ap", RANK_FIGURES.index("ap")), ("f1", len(RANK_FIGURES))):
            value = (float(ones[slot, column]), replicas[slot, :, column])
            table.setdefault((arm, variant, name), {})[seed] = value
    return table


def cell(own: dict[int, tuple[float, Any]], base: dict[int, tuple[float, Any]] | None = None) -> str:
    """Return a mean over seeds with its interval, or that of the difference to ``base`` on the same seeds."""
    seeds = [seed for seed in own if base is None or seed in base]
    point = float(np.mean([own[s][0] - (base[s][0] if base else 0.0) for s in seeds]))
    replicas = np.mean([own[s][1] - (base[s][1] if base else 0.0) for s in seeds], axis=0)
    low, high, _ = interval(replicas, 0.95)
    sign = "+" if base else ""
    return f"{point:{sign}.4f} ({low:{sign}.4f} to {high:{sign}.4f})"


def report(results: dict[str, list[dict[str, Any]]], data: Path) -> str:
    """Return the tables in Markdown."""
    table = figures(results, data)
    first = next(iter(results.values()))[0]
    lines = [
        f"{first['rows']:,} training rows of up to {first['max_length']} tokens, {first['threads']} "
        "thread(s) a run; test split, weighted to the natural prior; mean over seeds with 95 % bootstrap "
        "intervals over test rows; differences are paired by row and by seed.",
        "",
        "| arm | parameters | valid AP | test AP | minus none | test F1 | minus none | each seed's test AP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, runs in results.items():
        ap, f1 = table[arm, "whole", "ap"], table[arm, "whole", "f1"]
        seeds = ", ".join(f"{ap[seed][0]:.4f}" for seed in sorted(ap))
        valid = np.mean([max(run["valid_ap"].values()) for run in runs])
        none = arm == "none"
        lines.append(
            f"| {ARMS[arm][0]} | {runs[0]['parameters']:,} | {valid:.4f} | {cell(ap)} | "
            f"{'' if none else cell(ap, table['none', 'whole', 'ap'])} | {cell(f1)} | "
            f"{'' if none else cell(f1, table['none', 'whole', 'f1'])} | {seeds} |"
        )
    lines += [
        "",
        "What the dendrites do. *Neurons* and *best* are validation AP before the dendrite phase and at "
        "the end, mean over seeds, with how many seeds gained; *loss* is the mean training loss of the "
        "last neuron epoch; *top weight* is the mean magnitude; *zeroed* and *at mean* are the change of "
        "test AP when the trained dendrites' output is replaced by 0, or by its mean over the test tokens.",
        "",
        "| arm | loss | valid AP: neurons → best | seeds that gained | mean top weight | zeroed | at mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, runs in results.items():
        if not any("1" in run["valid_ap"] for run in runs):
            continue
        before = [run["valid_ap"]["0"] for run in runs]
        after = [run["valid_ap"]["1"] for run in runs]
        losses = [[m["train_loss"] for m in run["metrics"] if m["phase"] == "neuron"][-1] for run in runs]
        whole = table[arm, "whole", "ap"]
        gained = sum(b > a for a, b in zip(before, after, strict=True))
        lines.append(
            f"| {ARMS[arm][0]} | {np.mean(losses):.2f} | {np.mean(before):.4f} → {np.mean(after):.4f} | "
            f"{gained} of {len(runs)} | {np.mean([run['top_weight_mean'] for run in runs]):.3f} | "
            f"{cell(table[arm, 'zeroed', 'ap'], whole)} | {cell(table[arm, 'mean', 'ap'], whole)} |"
        )
    lines += [
        "",
        "Differences between two arms, paired by test row and by seed; *valid AP* is the mean difference, "
        "and in how many of the seeds the first arm is ahead.",
        "",
        "| arm | minus | valid AP | test AP | test F1 |",
        "|---|---|---|---|---|",
    ]
    for arm, base in PAIRS:
        if arm not in results or base not in results:
            continue
        best = [{run["seed"]: max(run["valid_ap"].values()) for run in results[name]} for name in (arm, base)]
        gains = [best[0][seed] - best[1][seed] for seed in best[0] if seed in best[1]]
        lines.append(
            f"| {ARMS[arm][0]} | {ARMS[base][0]} | {np.mean(gains):+.4f}, {sum(g > 0 for g in gains)} of "
            f"{len(gains)} | {cell(table[arm, 'whole', 'ap'], table[base, 'whole', 'ap'])} | "
            f"{cell(table[arm, 'whole', 'f1'], table[base, 'whole', 'f1'])} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="directory written by 'gkiller data prepare'")
    parser.add_argument("--rows", type=int, default=5_000, help="training rows")
    parser.add_argument("--max-length", type=int, default=64, help="tokens read of a comment")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arms", default=",".join(CORE), help=f"comma-separated, of: {', '.join(ARMS)}")
    parser.add_argument("--out", type=Path, default=Path("runs/dendrites"))
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the tables into FILE and stop")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        insert(arguments.report, report(load_results(arguments.out), Path(arguments.data)))
        return
    for seed in map(int, arguments.seeds.split(",")):
        for arm in arguments.arms.split(","):
            run_one(arm, seed, arguments)


if __name__ == "__main__":
    main()
