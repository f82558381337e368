r"""Refine a model: short trainings from its encoder that learn from a giant's scores, and their mean.

    python recipes/refine.py --data $DATA --work default --model default/runs/default/model \
        --teacher recipes/scores/mpnet-public.parquet

``--model`` is what ``recipes/default.py`` made, or another with a graph, such as ``default``, the one that is
shipped. Everything is seeded, each command is printed before it runs, and what is there already is not made
again:

1. The public comments, and all of gkiller's own (``recipes/corpora.py``).
2. What the model, or the one of ``--remember``, says of gkiller's own comments. The teachers have not scored
   these, and what it has learnt of them must not be forgotten (Li and Hoiem 2016, arXiv:1606.09282). With
   ``--remember labels`` their labels are learnt as a teacher's scores too, for a model that takes the names
   of groups for insults.
3. For each of ``--seeds`` a training from the model's encoder, which learns from the labels, the teachers and
   itself, with ``--transfer-rows`` also on the comments of the other corpora and on mixtures; a share of the
   comments is changed. They are short: more epochs only learn the public comments by heart. ``--set
   model.head=kept`` goes on from the whole model.
4. The mean of their weights (Wortsman et al. 2022, arXiv:2203.05482): trainings from one start end so near
   to each other that it scores like their ensemble, for the price of one. Its thresholds are those of the
   best expected F1 on validation.
5. Its graphs, fp32 and int8, the latter of 7-bit weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import torch
from commands import export, gkiller, settings, train
from default import MIXTURES, own_comments, prepare, taught_by, transfer, write_labels

from gkiller.data.load import Labelled, load_dataset
from gkiller.evaluation.evaluate import evaluate
from gkiller.evaluation.report import evaluation_text
from gkiller.evaluation.source import tuned_on
from gkiller.evaluation.thresholds import stored_entries, tune_thresholds
from gkiller.model.directory import LoadedModel, load_model, save_model, stored_files
from gkiller.model.layout import TOKENIZER
from gkiller.model.network import parameter_count
from gkiller.scoring.models import score_texts
from gkiller.training.report import CardFacts, model_card
from gkiller.training.run import run_settings

SHORT = (
    "train.epochs=1",
    "train.lr=5e-4",
    "train.class_weights=none",
    "train.augment=0.3",
    "train.metric_labels=toxicity",
    "model.dropout=0",
    "dendrites.enabled=false",
    "evaluation.threshold_rule=expected",
)
"""Settings of each training."""
LABELS = "labels"
"""The word for the comments' own labels, in the place of a model."""


def remembered(data: Path, model: str, folder: Path) -> Path:
    """Write what a model, or ``LABELS``, says of gkiller's own training comments; return the file."""
    comments, out = folder / "own-comments.parquet", folder / "own-scores.parquet"
    if out.is_file():
        return out
    folder.mkdir(parents=True, exist_ok=True)
    if model == LABELS:
        write_labels(data, out)
    else:
        pq.write_table(own_comments(data).select(["id", "text"]), comments)
        how = ("--id-column", "id", "--long-text", "truncate")
        gkiller("predict", "--model", model, "--input", comments, "--output", out, *how)
    return out


def averaged(runs: Sequence[Path]) -> LoadedModel:
    """Return the first run's model with the mean of all runs' weights."""
    models = [load_model(run) for run in runs]
    each = [dict(one.model.named_parameters()) for one in models]
    with torch.no_grad():
        for name, mean in each[0].items():
            mean.copy_(torch.stack([parameters[name] for parameters in each]).mean(dim=0))
    return models[0]


def save_average(runs: Sequence[Path], seeds: Sequence[int], out: Path) -> None:
    """Write the mean of runs as a model directory, with thresholds and a card of its own."""
    names = ", ".join(map(str, seeds))
    found = averaged(runs)
    text = stored_files(found, (TOKENIZER,))[TOKENIZER].decode("utf-8")
    save_tuned(found, text, runs[0], out, f"{names}: the mean of the weights of a training with each")


def save_tuned(found: LoadedModel, tokenizer: str, run: Path, out: Path, seed: object) -> None:
    """Write a network that came of a run as a model directory, with thresholds and a card of its own.

    Args:
        found: the network, with its tokenizer.
        tokenizer: the same one's JSON.
        run: whose data and settings are used.
        out: the directory; the model is in its folder "model".
        seed: for the card.
    """
    own = run_settings(run)
    dataset = load_dataset(own.data, cache=out / "cache")
    valid = dataset.split("valid")
    how = own.evaluation
    scores = score_texts(found, valid.texts, how.batch_size, long_text=how.long_text)
    measured = (found.labels, valid.labels, scores, valid.weights)
    before = found.metadata.get("thresholds", {})
    tuned = tune_thresholds(*measured, stored=found.thresholds, **how.tuning())
    thresholds = stored_entries(tuned, before, tuned_on(Labelled(dataset, valid, "valid"), how.long_text))
    cuts = {label: one["value"] for label, one in thresholds.items()}
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    card = model_card(
        CardFacts(
            labels=found.labels,
            parameters=parameter_count(found.model),
            dendrites={},
            max_length=found.max_length,
            manifest={**manifest, "seed": seed},
            thresholds=thresholds,
            evaluation=evaluation_text(evaluate(*measured, cuts, own.evaluation)),
            confidence=own.evaluation.confidence,
        )
    )
    save_model(
        out / "model",
        found.model,
        tokenizer,
        labels=found.labels,
        thresholds=thresholds,
        max_length=found.max_length,
        card=card,
        training=found.metadata["training"],
    )


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--work", type=Path, default=Path("default"), help="where everything is made")
    parser.add_argument("--model", required=True, help="to start from, with a graph")
    parser.add_argument("--teacher", type=Path, action="append", required=True, metavar="DIR|FILE")
    parser.add_argument(
        "--remember",
        metavar="MODEL",
        help="whose scores of the own comments are learnt, or 'labels'; the model's if not set",
    )
    parser.add_argument(
        "--transfer-rows",
        type=int,
        default=0,
        metavar="N",
        help="learn from N of the transfer comments too; a --teacher must have scored them",
    )
    parser.add_argument("--mixtures", type=int, default=MIXTURES, help="among the transfer comments")
    parser.add_argument("--name", default="refined", help="of the model; of its runs with -SEED after it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the trainings")
    arguments = parser.parse_args()
    data = prepare(arguments.data, arguments.work, more=True)
    out: Path = arguments.work / arguments.name
    teachers = [*arguments.teacher, remembered(data, arguments.remember or arguments.model, out)]
    how = ["--data", data, "--encoder", arguments.model, *taught_by(teachers)]
    how += ["--threads", arguments.threads, *settings((*SHORT, *arguments.set))]
    if arguments.transfer_rows:
        comments = transfer(arguments.data, arguments.work, arguments.mixtures)
        how += ["--transfer", comments, *settings([f"distill.transfer_rows={arguments.transfer_rows}"])]
    folder = arguments.work / "runs"
    runs = [train(folder, f"{arguments.name}-{seed}", *how, "--seed", seed) for seed in arguments.seeds]
    if not (out / "model").is_dir():
        save_average(runs, arguments.seeds, out)
    export(out, "--data", data, int8=("--portable",))


if __name__ == "__main__":
    main()
