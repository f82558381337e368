r"""What each step of the default recipe is worth on the validation split, over several seeds.

    python recipes/ablation.py --data $DATA --work default --teacher minilm=path/to/all-MiniLM-L6-v2 \
        --report docs/ablation.md -- --precision bf16

Each arm is ``recipes/default.py`` with a step more than another arm; encoder and teachers are those of
``--work``, the seeds are the model's. What stands after ``--`` goes to the recipe. What is there already is
not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from commands import answer, command, gkiller, settings
from gains import GAINS, figure, gained

from gkiller.deployment.deploy import copy_deployed
from gkiller.model.directory import load_model
from gkiller.model.layout import GRAPHS
from gkiller.training.run import run_settings

sys.path.append(str(Path(__file__).parents[1] / "experiments"))

from document import insert


class Arm(NamedTuple):
    """A model: what it has more than another arm, and the steps of the recipe that it leaves out."""

    name: str
    more: str
    than: str
    without: tuple[str, ...]


ARMS = (
    Arm("labels", "labels alone, from random weights", "", ("vectors", "teachers", "augmentation", "dendrites")),
    Arm("vectors", "word vectors", "labels", ("contextual", "pretraining", "teachers", "augmentation", "dendrites")),
    Arm(
        "contextual",
        "words in context, with --contextual-epochs",
        "vectors",
        ("pretraining", "teachers", "augmentation", "dendrites"),
    ),
    Arm("masked", "masked-language pretraining", "contextual", ("teachers", "augmentation", "dendrites")),
    Arm("taught", "a teacher's logits", "masked", ("transfer", "augmentation", "dendrites")),
    Arm("transfer", "transfer comments and mixtures", "taught", ("augmentation", "dendrites")),
    Arm("augmented", "augmentation", "transfer", ("dendrites",)),
    Arm("dendrites", "dendrites, kept whatever they gain", "augmented", ()),
)
STEPS = {"contextual": "contextual", "masked": "pretraining", "transfer": "transfer", "augmented": "augmentation"}
"""Steps of the recipe by the arm that brings them, of those that can be left out."""
INT8 = Arm("int8", "int8 weights", "augmented", ())
DISGUISE = "recall lost to disguise"
LEGEND = " Recall lost to disguise: the mean over ten kinds of change, at equal FPR; less is better."
FIGURES = {
    "AP": ("labels", "toxicity", "ap"),
    "F1": ("labels", "toxicity", "stored", "f1"),
    "ROC-AUC": ("labels", "toxicity", "roc_auc"),
    "AP, mean of the labels": ("macro", "ap"),
    DISGUISE: ("disguised", "lost_at_equal_fpr"),
}
Reports = dict[str, list[dict[str, Any]]]
"""By arm one validation report for each seed."""


def measured(arguments: argparse.Namespace, more: list[str]) -> Reports:
    """Train what is missing; return the reports."""
    recipe = Path(__file__).with_name("default.py")
    where = ("--data", arguments.data, "--work", arguments.work, "--teacher", arguments.teacher)
    short = settings([f"train.epochs={arguments.epochs}", "dendrites.min_gain=-1"])
    short += settings([f"distill.transfer_rows={arguments.transfer_rows}"])
    found: Reports = {}
    for seed in arguments.seeds:
        for arm in chosen(arguments.arms):
            left_out = sorted({*arm.without, *unchosen(arguments.arms)})
            how = [word for step in left_out for word in ("--without", step)]
            how += [] if arm.name == INT8.than else ["--no-graphs"]
            run = arguments.work / "runs" / f"ablation-{arm.name}-{seed}"
            command(recipe, *where, "--name", run.name, "--seed", seed, *how, *short, *more)
            report = json.loads((run / "validation.json").read_text("utf-8"))
            if arguments.robustness:
                report |= disguised(run, arguments.data, run)
            found.setdefault(arm.name, []).append(report)
            if arm.name == INT8.than:
                found.setdefault(INT8.name, []).append(of_int8(run, arguments))
    return found


def chosen(names: Sequence[str]) -> list[Arm]:
    """Return the arms of these names, in their order, each more than the one that is left before it."""
    than = {arm.name: arm.than for arm in ARMS}
    found = []
    for arm in ARMS:
        if arm.name in names:
            before = arm.than
            while before and before not in names:
                before = than[before]
            found.append(arm._replace(than=before))
    return found


def unchosen(names: Sequence[str]) -> set[str]:
    """Return the steps of the recipe that no arm has, as the arm that brings them is not among these."""
    return {STEPS[arm.name] for arm in ARMS if arm.name in STEPS and arm.name not in names}


def disguised(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Return what disguised comments cost, the mean over the kinds; measured where ``out`` has no report."""
    report = out / "robustness.json"
    if not report.is_file():
        comments = ("--data", data / "valid/jigsaw.parquet", "--label-columns", "label")
        gkiller("suite", "robustness", model, *comments, "--out", out)
    return {"disguised": json.loads(report.read_text("utf-8"))["models"][0]["kinds"]["mean"]}


def of_int8(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `gkiller evaluate` says of a run's int8 graph on its validation split, and `disguised`."""
    own = run_settings(run).data.source
    with tempfile.TemporaryDirectory(prefix="gkiller-ablation-") as folder:
        copy = Path(folder) / "model"
        copy_deployed(load_model(run), GRAPHS["int8"], copy)
        found = answer("evaluate", copy, "--data", own, "--split", "valid")
        return found | (disguised(copy, arguments.data, Path(folder)) if arguments.robustness else {})


def table(found: Reports, arguments: argparse.Namespace) -> str:
    """Return the table in Markdown."""
    seeds = ", ".join(map(str, arguments.seeds))
    transferred = f", transfer comments: {arguments.transfer_rows:,}" if "transfer" in arguments.arms else ""
    figures = {name: path for name, path in FIGURES.items() if name != DISGUISE or arguments.robustness}
    lines = [
        f"Mean over the seeds {seeds}; epochs of the neuron phase: {arguments.epochs}{transferred}. "
        f"In brackets the gain: {GAINS}.{LEGEND if arguments.robustness else ''}",
        "",
        f"| more | than | {' | '.join(figures)} |",
        f"|---|---|{'---|' * len(figures)}",
    ]
    names = {arm.name: arm.more for arm in ARMS}
    arms = chosen(arguments.arms)
    arms += [INT8] if INT8.name in found else []
    for arm in arms:
        cells = []
        for path in figures.values():
            values = [figure(report, path) for report in found[arm.name]]
            before = [figure(report, path) for report in found[arm.than]] if arm.than else None
            cells.append(gained(values, before))
        lines.append(f"| {arm.more} | {names.get(arm.than, '')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--work", type=Path, default=Path("default"), help="where everything is made")
    parser.add_argument("--teacher", required=True, metavar="NAME=DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    names = [arm.name for arm in ARMS]
    usual = [name for name in names if name != "contextual"]
    parser.add_argument("--arms", nargs="+", choices=names, default=usual, help="by default all but contextual")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--transfer-rows", type=int, default=30_000)
    parser.add_argument(
        "--no-robustness", dest="robustness", action="store_false", help="do not measure what disguise costs"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table into FILE")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, more = parser.parse_args(words[:end]), words[end + 1 :]
    text = table(measured(arguments, more), arguments)
    sys.stdout.write(text)
    if arguments.report:
        insert(arguments.report, text, "ablation")


if __name__ == "__main__":
    main()
