"""Prepare the public corpora with six labels.

    python recipes/corpora.py --data $DATA --out prepared [--with-own [--with-more]]

``$DATA`` holds ``train/jigsaw.parquet``, ``train/civil.parquet``, ``valid/jigsaw.parquet`` and
``test/jigsaw.parquet``. A label that a corpus does not have is unknown there. Other corpora mean other things
by their labels (a tweet's "offensive" is not Wikipedia's "toxic"), so their labels are not read.
``--with-own`` adds comments that were written for gkiller: the train rows of its sample, and those about
groups of people (``identity.toml``); ``--with-more`` more of the latter.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from commands import gkiller
from identity import Use, identity_comments

LABELS = {
    "toxicity": "label",
    "severe_toxicity": "severe_toxic",
    "obscene": "obscene",
    "threat": "threat",
    "insult": "insult",
    "identity_attack": "identity_hate",
}
"""Of the model, with the corpora's names for them."""
LABELLED = ("jigsaw", "civil")


def six_labels(source: Path, target: Path) -> Path:
    """Write a corpus with all six labels, unknown where it does not have them; return the file."""
    table = pq.read_table(source)
    columns = {"text": table["text"]}
    for label, name in LABELS.items():
        known = table[name].cast(pa.int8()) if name in table.column_names else pa.nulls(len(table), pa.int8())
        columns[label] = known
    if "weight" in table.column_names:
        columns["weight"] = table["weight"]
    pq.write_table(pa.table(columns), target)
    return target


def own_comments(folder: Path, *uses: Use) -> Path:
    """Write the comments that were written for gkiller; return the file."""
    gkiller("data", "prepare", "sample", "--out", folder / "sample", "--force")
    columns = ["text", *LABELS]
    sample = pq.read_table(folder / "sample" / "train.parquet", columns=columns)
    tables = [sample, *(identity_comments(list(LABELS), use=use).select(columns) for use in uses)]
    target = folder / ("own-more.parquet" if "more" in uses else "own.parquet")
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), target)
    return target


def main() -> None:
    """Prepare the corpora."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument(
        "--out", type=Path, required=True, help="directory to write; the corpora's files go to six/ beside it"
    )
    parser.add_argument("--with-own", action="store_true", help="train on gkiller's own comments too")
    parser.add_argument("--with-more", action="store_true", help="with --with-own: more about groups")
    arguments = parser.parse_args()
    if arguments.with_more and not arguments.with_own:
        parser.error("--with-more needs --with-own")
    data, out = arguments.data, arguments.out
    folder = out.parent / "six"
    folder.mkdir(parents=True, exist_ok=True)
    train = [six_labels(data / "train" / f"{name}.parquet", folder / f"{name}.parquet") for name in LABELLED]
    if arguments.with_own:
        more: list[Literal["more"]] = ["more"] if arguments.with_more else []
        train.append(own_comments(folder, "train", *more))
    valid, test = (six_labels(data / name / "jigsaw.parquet", folder / f"{name}.parquet") for name in ("valid", "test"))
    columns = ("--label-columns", ",".join(LABELS), "--weight-column", "weight")
    gkiller("data", "prepare", *train, "--valid", valid, "--test", test, *columns, "--out", out)


if __name__ == "__main__":
    main()
