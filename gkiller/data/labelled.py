"""Labelled comments to measure a model on, from any source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gkiller.data.clean import Progress, clean_rows, new_tally
from gkiller.data.columns import plan_columns
from gkiller.data.dataset import SPLIT_NAMES, Dataset, Split
from gkiller.data.labels import UNKNOWN
from gkiller.data.load import load_dataset
from gkiller.data.sources import resolve_sources
from gkiller.data.spool import is_pipe
from gkiller.errors import EmptyDataError, SettingsError, did_you_mean
from gkiller.settings import DataSettings

ALL = "all"


@dataclass(frozen=True)
class Labelled:
    """Rows of one split.

    Attributes:
        dataset: names the labels and the source.
        rows: the comments.
        name: "train", "valid", "test" or "all".
    """

    dataset: Dataset
    rows: Split
    name: str


def load_labelled(
    settings: DataSettings,
    split: str | None,
    progress: Progress | None = None,
    *,
    default: str = "test",
    whole_file: bool = True,
) -> Labelled:
    """Return the rows to measure on.

    A single file is taken whole, as it is (duplicates stay), unless a split is named; everything else is
    read as for training.

    Args:
        settings: the source and how to read it.
        split: "train", "valid", "test", "all", or None for ``default`` (for "all" with a single file).
        progress: told of the rows read.
        default: the split taken of a source that has splits.
        whole_file: whether a single file is taken whole; else it is split as for training.

    Raises:
        SettingsError: there is no split of that name.
        DataError: the source cannot be read.
    """
    if split is not None and split not in (*SPLIT_NAMES, ALL):
        names = (*SPLIT_NAMES, ALL)
        raise SettingsError(f"unknown split {split!r}", where="--split", remedy=did_you_mean(split, names))
    file = Path(settings.source).expanduser().is_file() or is_pipe(settings.source)
    single = whole_file and file
    if single and split in (None, ALL):
        dataset, rows = _whole_file(settings, progress)
        return Labelled(dataset, rows, ALL)
    with TemporaryDirectory(prefix="gkiller-data-") as cache:
        whole = settings.model_copy(update={"sample_size": None})
        dataset = load_dataset(whole, cache=Path(cache), progress=progress)
    if split == ALL:
        return Labelled(dataset, _joined(list(dataset.splits.values())), ALL)
    name = split or default
    return Labelled(dataset, dataset.split(name), name)


def _whole_file(settings: DataSettings, progress: Progress | None) -> tuple[Dataset, Split]:
    plan = resolve_sources([settings.source], revision=settings.revision)
    columns = plan_columns(plan.parts, settings)
    tally = new_tally(plan.parts, columns, settings)
    pieces = []
    for batch in clean_rows(plan.parts, columns, settings, tally, progress):
        labels = batch.labels.astype(np.float32)
        labels[batch.labels == UNKNOWN] = np.nan
        weights = np.asarray(batch.weights, dtype=np.float64)
        pieces.append(Split(list(batch.ids), list(batch.texts), labels, weights))
    if not pieces:
        raise EmptyDataError("there are no rows", where=settings.source, remedy="name another file")
    notes = [note for part in plan.parts for note in part.reader.notes]
    return Dataset(columns.labels, {}, {"source": settings.source, "notes": notes}), _joined(pieces)


def _joined(pieces: list[Split]) -> Split:
    return Split(
        ids=[i for piece in pieces for i in piece.ids],
        texts=[text for piece in pieces for text in piece.texts],
        labels=np.concatenate([piece.labels for piece in pieces]),
        weights=np.concatenate([piece.weights for piece in pieces]),
    )
