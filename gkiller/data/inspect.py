"""A look at data before training: label rates, lengths, duplicates, label conflicts and overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller.data.clean import Progress, clean_rows, exact_hash, folded_hash, new_tally
from gkiller.data.columns import plan_columns
from gkiller.data.dataset import SPLIT_NAMES, Dataset
from gkiller.data.duplicates import find_duplicates
from gkiller.data.labels import UNKNOWN
from gkiller.data.load import read_prepared
from gkiller.data.manifest import class_warnings, label_counts
from gkiller.data.rows import BATCH_ROWS
from gkiller.data.sources import resolve_sources
from gkiller.data.store import MANIFEST_NAME
from gkiller.errors import EmptyDataError
from gkiller.settings import DataSettings

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
HISTOGRAM_BINS = 32
"""Bins of the length histogram, from 0 to twice the cut; longer comments are in the last one."""

Lengths = Callable[[list[str]], list[int]]


@dataclass
class _Measures:
    """What is kept of the rows of one split, batch by batch."""

    lengths: list[npt.NDArray[np.int32]] = field(default_factory=list)
    characters: list[npt.NDArray[np.int32]] = field(default_factory=list)
    codes: list[npt.NDArray[np.int8]] = field(default_factory=list)
    weights: list[npt.NDArray[np.float64]] = field(default_factory=list)
    folded: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    exact: list[npt.NDArray[np.uint64]] = field(default_factory=list)


@dataclass(frozen=True)
class _Rows:
    """A batch of rows of one split, with digests as in ``CleanBatch``."""

    split: str
    texts: list[str]
    codes: npt.NDArray[np.int8]
    weights: npt.NDArray[np.float64]
    folded: npt.NDArray[np.uint64]
    exact: npt.NDArray[np.uint64]


def inspect(
    source: str | Path | Dataset,
    tokenizer_path: Path | None = None,
    max_length: int = 128,
    *,
    settings: DataSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a data set, a prepared directory, or anything that ``prepare`` reads; nothing is written.

    Sources are measured as they are, before duplicates are dropped; bad rows are counted and left out.

    Args:
        source: what to look at.
        tokenizer_path: a ``tokenizer.json`` to count tokens with, [CLS] and [SEP] included; None counts
            words between white space instead, and the result says so.
        max_length: longest comment the model reads, in the same unit.
        settings: columns and cutoff, where the source is not prepared.
        progress: called as ``progress("reading", rows, total)``.

    Returns:
        Plain values: ``source``, ``labels``, ``unit``, ``max_length``, ``bad_rows``, ``notes``, ``warnings``
        of labels that lack a class; ``splits`` with per split ``rows``, ``labels``, ``lengths``,
        ``characters``, ``duplicates`` and ``histogram``; ``overlap`` with, for each ordered pair of splits,
        the rows of the one whose folded text stands in the other; and ``conflicting_texts``, folded texts
        that bear both values of a label.

    Raises:
        DataError: the source cannot be read, or there are no rows.
        ModelError: the tokenizer cannot be read, or is not one that the model could use.

    """
    settings = settings or DataSettings()
    lengths = _length_counter(tokenizer_path, max_length)
    facts: dict[str, Any] = {"notes": [], "bad_rows": {}}
    measures: dict[str, _Measures] = {}
    for rows in _rows_of(source, settings, facts, progress):
        kept = measures.setdefault(rows.split, _Measures())
        kept.lengths.append(np.array(lengths(rows.texts), dtype=np.int32))
        kept.characters.append(np.array([len(text) for text in rows.texts], dtype=np.int32))
        kept.codes.append(rows.codes)
        kept.weights.append(rows.weights)
        kept.folded.append(rows.folded)
        kept.exact.append(rows.exact)
    if not measures:
        raise EmptyDataError("there are no good rows", where=str(facts["source"]), remedy="see the bad rows")
    labels = facts["labels"]
    overlap, conflicts = _across(measures)
    splits = {name: _summary(measures[name], labels, max_length) for name in SPLIT_NAMES if name in measures}
    return {
        "source": facts["source"],
        "labels": list(labels),
        "unit": "tokens" if tokenizer_path is not None else "words",
        "tokenizer": str(tokenizer_path) if tokenizer_path is not None else None,
        "max_length": max_length,
        "notes": facts["notes"],
        "bad_rows": dict(facts["bad_rows"]),
        "warnings": [
            line for name, split in splits.items() for line in class_warnings(name, split["labels"])
        ],
        "splits": splits,
        "overlap": overlap,
        "conflicting_texts": conflicts,
    }


def _rows_of(
    source: str | Path | Dataset, settings: DataSettings, facts: dict[str, Any], progress: Progress | None
) -> Iterator[_Rows]:
    """Yield the rows of any kind of source; ``facts`` receives its name, labels, notes and bad rows."""
    if not isinstance(source, Dataset) and (Path(source).expanduser() / MANIFEST_NAME).is_file():
        facts["source"] = str(source)
        source = read_prepared(Path(source).expanduser())
    if isinstance(source, Dataset):
        facts.setdefault("source", str(source.manifest.get("source", "data set")))
        facts["labels"] = source.labels
        yield from _dataset_rows(source)
        return
    plan = resolve_sources([str(source)], revision=settings.revision)
    skipping = settings.model_copy(update={"on_error": "skip"})
    columns = plan_columns(plan.parts, skipping)
    tally = new_tally(plan.parts, columns, skipping)
    notes = [*plan.notes, *columns.notes, *columns.guesses]
    facts.update(source=str(source), labels=columns.labels, bad_rows=tally.bad, notes=notes)
    for batch in clean_rows(plan.parts, columns, skipping, tally, progress):
        split = plan.parts[batch.part].split
        yield _Rows(split, batch.texts, batch.labels, batch.weights, batch.folded, batch.exact)
    notes += [note for part in plan.parts for note in part.reader.notes]


def _dataset_rows(dataset: Dataset) -> Iterator[_Rows]:
    for name, split in dataset.splits.items():
        codes = np.where(np.isnan(split.labels), UNKNOWN, split.labels).astype(np.int8)
        for start in range(0, len(split), BATCH_ROWS):
            texts = split.texts[start : start + BATCH_ROWS]
            stop = start + len(texts)
            yield _Rows(
                split=name,
                texts=texts,
                codes=codes[start:stop],
                weights=split.weights[start:stop],
                folded=np.frombuffer(b"".join(map(folded_hash, texts)), dtype="<u8").reshape(-1, 2),
                exact=np.frombuffer(b"".join(map(exact_hash, texts)), dtype="<u8"),
            )


def _length_counter(path: Path | None, max_length: int) -> Lengths:
    """Return a function from comments to their lengths, in tokens or, without a tokenizer, in words."""
    if path is None:
        return lambda texts: [len(text.split()) for text in texts]
    from gkiller.data.batches import tokenize
    from gkiller.model.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(Path(path), max_length)
    tokenizer.no_truncation()
    return lambda texts: tokenize(tokenizer, texts).lengths.tolist()


def _summary(measures: _Measures, labels: tuple[str, ...], max_length: int) -> dict[str, Any]:
    """Return the plain values of one split."""
    codes = np.concatenate(measures.codes)
    weights = np.concatenate(measures.weights)
    lengths = np.concatenate(measures.lengths)
    folded, exact = np.concatenate(measures.folded), np.concatenate(measures.exact)
    duplicates = find_duplicates(folded, exact, np.zeros(len(exact), dtype=np.int8), codes)
    counts = label_counts(labels, codes)
    if not (weights == 1.0).all():
        for position, label in enumerate(labels):
            known = codes[:, position] != UNKNOWN
            total = float(weights[known].sum())
            positive = float(weights[codes[:, position] == 1].sum())
            counts[label]["weighted_rate"] = positive / total if total else None
    edges = np.linspace(0, 2 * max_length, HISTOGRAM_BINS + 1)
    histogram, _ = np.histogram(np.minimum(lengths, 2 * max_length), bins=edges)
    return {
        "rows": len(codes),
        "labels": counts,
        "lengths": {**_quantiles(lengths), "truncated_share": float(np.mean(lengths > max_length))},
        "characters": _quantiles(np.concatenate(measures.characters)),
        "duplicates": {
            "exact": duplicates.exact,
            "folded": duplicates.folded,
            "conflicting_texts": duplicates.conflicting_groups,
        },
        "histogram": {"edges": edges.tolist(), "counts": histogram.tolist()},
    }


def _quantiles(values: npt.NDArray[np.int32]) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    named = {f"p{round(100 * q)}": float(value) for q, value in zip(QUANTILES, found, strict=True)}
    return {"mean": float(values.mean()), **named, "max": float(values.max())}


def _across(measures: dict[str, _Measures]) -> tuple[dict[str, int], int]:
    """Return the overlap of each ordered pair of splits, and the texts whose labels conflict anywhere."""
    names = [name for name in SPLIT_NAMES if name in measures]
    folded = np.concatenate([digest for name in names for digest in measures[name].folded])
    exact = np.concatenate([digest for name in names for digest in measures[name].exact])
    codes = np.concatenate([part for name in names for part in measures[name].codes])
    everything = find_duplicates(folded, exact, np.zeros(len(exact), dtype=np.int8), codes)
    _, texts = np.unique(folded, axis=0, return_inverse=True)
    texts = texts.reshape(-1)
    sizes = [sum(map(len, measures[name].exact)) for name in names]
    by_split = dict(zip(names, np.split(texts, np.cumsum(sizes)[:-1]), strict=True))
    overlap = {
        f"{one} in {other}": int(np.count_nonzero(np.isin(by_split[one], by_split[other])))
        for one, other in permutations(names, 2)
    }
    return overlap, everything.conflicting_groups
