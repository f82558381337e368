"""Comments without labels, which a student learns from its teachers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gkiller.data.clean import fold_text
from gkiller.data.dataset import Dataset, Split
from gkiller.errors import ColumnError, EmptyDataError, FormatError
from gkiller.inference.bulk.reading import from_file
from gkiller.inference.encoding import clean

if TYPE_CHECKING:
    from gkiller.settings.definition import Settings


PREFIX = "transfer-"
"""What the id of a transfer comment begins with; its row follows."""


def transfer_texts(settings: Settings, dataset: Dataset) -> dict[int, str]:
    """Return the comments of the transfer file that are new, by their row, counted from 1; {} without a file.

    Blank comments are left out, and those of any split of the data set, in whatever case and spacing: a
    validation or test comment must not be learnt, not even from a teacher.

    Args:
        settings: of the run; ``data.on_error`` says what becomes of bad rows, and ``data.split_seed`` draws
            where ``distill.transfer_rows`` is less than there is.
        dataset: with all its splits.

    Raises:
        DataError: the file cannot be read, or has no new comment.
    """
    own = settings.distill
    if own.transfer is None:
        return {}
    try:
        source = from_file(Path(own.transfer).expanduser(), own.transfer, text_column=own.transfer_column)
    except ColumnError as error:
        remedy = "name the comments' column: --set distill.transfer_column=NAME"
        raise ColumnError(
            error.what.replace(" (--text-column)", ""), where=error.where, remedy=remedy
        ) from error
    except FormatError as error:
        remedy = error.remedy.replace("; else name the format with --input-format", "")
        raise FormatError(error.what, where=error.where, remedy=remedy) from error
    seen = {fold_text(text) for split in dataset.splits.values() for text in split.texts} | {""}
    found: dict[int, str] = {}
    for row in filter(None, source.rows()):
        if row.fault is not None:
            if settings.data.on_error == "refuse":
                raise row.fault
            continue
        text = clean(row.text)
        folded = fold_text(text)
        if folded not in seen:
            seen.add(folded)
            found[row.number] = text
    if not found:
        raise EmptyDataError(
            "no comment there that the data do not have",
            where=own.transfer,
            remedy="name other comments, or leave --transfer out",
        )
    if own.transfer_rows is None or own.transfer_rows >= len(found):
        return found
    chosen = np.random.default_rng(settings.data.split_seed).permutation(len(found))[: own.transfer_rows]
    rows = list(found)
    return {rows[place]: found[rows[place]] for place in np.sort(chosen)}


def with_transfer(dataset: Dataset, texts: Mapping[int, str]) -> Dataset:
    """Return the data set with more training comments, whose labels are unknown.

    Args:
        dataset: with a train split.
        texts: the comments by their row, counted from 1: row 7 has the id "transfer-7", whatever else is
            taken, so that a file of scores can name it.
    """
    train, count = dataset.split("train"), len(texts)
    if not count:
        return dataset
    unknown = np.full((count, len(dataset.labels)), np.nan, np.float32)
    joined = Split(
        ids=[*train.ids, *(f"{PREFIX}{row}" for row in texts)],
        texts=[*train.texts, *texts.values()],
        labels=np.concatenate([train.labels, unknown]),
        weights=np.concatenate([train.weights, np.ones(count)]),
    )
    return Dataset(dataset.labels, {**dataset.splits, "train": joined}, dataset.manifest)
