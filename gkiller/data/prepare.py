"""From sources to a prepared directory, in two passes and in bounded memory.

The first pass validates, writes canonical rows to a temporary file, and keeps of each row only digests and
labels (about 50 bytes). Duplicates and splits are decided on those; the second pass copies the rows into
the files of their splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gkiller import __version__
from gkiller.data.columns import ColumnPlan
from gkiller.data.dataset import (
    FORMAT,
    FORMAT_VERSION,
    LEAST_OF_A_KIND,
    SPLIT_NAMES,
    DataManifest,
    LabelCount,
    RowWriter,
    SplitEntry,
    check_output,
    read_row_groups,
    rows_table,
    write_manifest,
)
from gkiller.data.labels import UNKNOWN
from gkiller.data.rows import Reading
from gkiller.data.sources import Plan, check_files, known_of, resolve_sources
from gkiller.errors import EmptyDataError, SingleClassError
from gkiller.settings import DataSettings
from gkiller.storage.files import atomic_directory, refuse_source_within, sha256_file
from gkiller.wording import Progress, counted

TRAIN, VALID, TEST = range(len(SPLIT_NAMES))


class Shares(NamedTuple):
    """Shares of the rows to split off; 0 where the split is given or not wanted."""

    valid: float
    test: float


def split_rows(folded: NDArray[np.uint64], labels: NDArray[np.int8], shares: Shares, seed: int) -> NDArray[np.int8]:
    """Assign rows without duplicates to train, valid and test: stratified and seeded.

    Each row's rank comes from a seeded mix of its text's digest, so the same comments are split the same
    way whatever the batch size or the order of the files. A stratum is a value of the first label (0, 1,
    unknown) with "some label is positive" or not. Each gives its share, to one row, but keeps one for train;
    within it, rows are drawn evenly over the combinations of all labels.

    Args:
        folded: shape (n, 2), digests of the folded texts, all different.
        labels: shape (n, L), -1 where unknown.

    Returns:
        Positions in ``SPLIT_NAMES``, of shape (n,).
    """
    splits = np.full(len(folded), TRAIN, dtype=np.int8)
    priority = _mix(folded[:, 0] ^ _mix(folded[:, 1] + np.uint64(seed & 0xFFFFFFFFFFFFFFFF)))
    _, combination = np.unique(labels, axis=0, return_inverse=True)
    combination = combination.reshape(-1)
    stratum = (labels[:, 0] - UNKNOWN) * 2 + (labels == 1).any(axis=1)
    seen = 0
    for code in np.unique(stratum):
        rows = np.flatnonzero(stratum == code)
        rows = rows[np.lexsort((priority[rows], combination[rows]))]
        tested, rest = _draw(rows, _quota(seen, len(rows), shares.test))
        validated, _ = _draw(rest, _quota(seen, len(rows), shares.valid))
        splits[tested] = TEST
        splits[validated] = VALID
        seen += len(rows)
    return splits


def _quota(seen: int, size: int, share: float) -> int:
    """Return how many of a stratum's rows to draw, so that the strata's sum is the share of all rows."""
    count = int((seen + size) * share + 0.5) - int(seen * share + 0.5)
    return max(count, 1) if share > 0 and size >= LEAST_OF_A_KIND else count


def _draw(rows: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Take ``count`` rows, evenly spaced in ``rows``, but never all; return them and the rest."""
    count = min(count, max(len(rows) - 1, 0))
    chosen = np.zeros(len(rows), dtype=bool)
    if count:
        chosen[(2 * np.arange(count) + 1) * len(rows) // (2 * count)] = True
    return rows[chosen], rows[~chosen]


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers: the output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


@dataclass(frozen=True)
class Duplicates:
    """Which of n rows stay, and why the others go."""

    keep: NDArray[np.bool_]
    exact: int  # rows dropped because the same text, to the letter, stands earlier in their split
    folded: int  # rows dropped because a text that differs in case or white space only does
    # rows dropped because another given split has their text, as train in test and so on
    overlap: dict[str, int]
    conflicts: int  # dropped rows of any of these kinds whose known labels differ from the kept row's
    conflicting_groups: int  # texts for which some label is both 0 and 1


def find_duplicates(
    folded: NDArray[np.uint64], exact: NDArray[np.uint64], splits: NDArray[np.int8], labels: NDArray[np.int8]
) -> Duplicates:
    """Find rows with the same folded text; the first row stays, a test row before a valid and a train row.

    Args:
        folded: shape (n, 2), n over 0: digests of the folded texts; ``exact``, of the texts, has shape (n,).
        splits: shape (n,), positions in ``SPLIT_NAMES``.
        labels: shape (n, L), -1 where unknown.
    """
    n = len(exact)
    order = np.lexsort((np.arange(n), -splits, folded[:, 1], folded[:, 0]))
    starts = _run_starts(folded[order])
    head = order[np.maximum.accumulate(np.where(starts, np.arange(n), 0))]
    keep = np.zeros(n, dtype=bool)
    keep[order[starts]] = True
    dropped, kept = order[~starts], head[~starts]
    here = splits[dropped] == splits[kept]
    repeated = _repeats_exactly(folded, exact, order)
    ours, theirs = labels[dropped], labels[kept]
    conflict = ((ours != theirs) & (ours != UNKNOWN) & (theirs != UNKNOWN)).any(axis=1)
    overlap = {
        f"{SPLIT_NAMES[low]} in {SPLIT_NAMES[high]}": int(
            np.count_nonzero((splits[dropped] == low) & (splits[kept] == high))
        )
        for low, high in combinations(range(len(SPLIT_NAMES)), 2)
    }
    return Duplicates(
        keep=keep,
        exact=int(np.count_nonzero(here & repeated[dropped])),
        folded=int(np.count_nonzero(here & ~repeated[dropped])),
        overlap=overlap,
        conflicts=int(np.count_nonzero(conflict)),
        conflicting_groups=_conflicting_groups(order, starts, labels),
    )


def _run_starts(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark where a run of equal rows starts in a sorted array of shape (n, k)."""
    starts = np.ones(len(keys), dtype=bool)
    starts[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    return starts


def _repeats_exactly(
    folded: NDArray[np.uint64], exact: NDArray[np.uint64], order: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mark the rows before which, in ``order``, the very same text stands."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    finer = np.lexsort((rank, exact, folded[:, 1], folded[:, 0]))
    keys = np.column_stack([folded[finer], exact[finer]])
    repeated = np.empty(len(order), dtype=bool)
    repeated[finer] = ~_run_starts(keys)
    return repeated


def _conflicting_groups(order: NDArray[np.int64], starts: NDArray[np.bool_], labels: NDArray[np.int8]) -> int:
    first, ordered = np.flatnonzero(starts), labels[order]
    positive, negative = (np.logical_or.reduceat(ordered == value, first, axis=0) for value in (1, 0))
    return int(np.count_nonzero((positive & negative).any(axis=1)))


def label_counts(labels: Sequence[str], codes: NDArray[np.int8]) -> dict[str, LabelCount]:
    """Count each label's rows; ``codes`` has shape (n, L), -1 where unknown."""
    counts = {}
    for position, label in enumerate(labels):
        negative, positive = (int(np.count_nonzero(codes[:, position] == value)) for value in (0, 1))
        known = positive + negative
        counts[label] = LabelCount(
            positive=positive, negative=negative, unknown=len(codes) - known, rate=positive / known if known else None
        )
    return counts


def class_weights(counts: dict[str, LabelCount]) -> dict[str, dict[str, float | None]]:
    """Return scikit-learn's ``balanced`` weights, n / (2 n_c) over known rows; None for an absent class."""
    weights: dict[str, dict[str, float | None]] = {}
    for label, count in counts.items():
        classes = {"0": count["negative"], "1": count["positive"]}
        known = sum(classes.values())
        weights[label] = {name: known / (2 * rows) if rows else None for name, rows in classes.items()}
    return weights


def check_classes(labels: Sequence[str], codes: NDArray[np.int8], where: str) -> None:
    """Refuse train rows, with labels of shape (n, L), from which no label can be learnt."""
    if not len(codes):
        remedy = "give more rows; see the bad and dropped ones"
        raise EmptyDataError("no rows are left to train on", where=where, remedy=remedy)
    counts = label_counts(labels, codes)
    if any(count["positive"] and count["negative"] for count in counts.values()):
        return
    found = "; ".join(
        f"{label}: {count['positive']:,} positive, {count['negative']:,} negative"
        for label, count in islice(counts.items(), 10)
    ) + ("; ..." if len(counts) > 10 else "")
    raise SingleClassError(
        f"the train rows have one class only ({found})",
        where=where,
        remedy="add rows of the other class, check the label column, name the positive classes with "
        "--positive-values, or lower --cutoff for scores",
    )


def class_warnings(split: str, counts: dict[str, LabelCount]) -> list[str]:
    """Return a line for each label of a split that lacks a class."""
    lines = []
    for label, count in counts.items():
        classes = {"positive": count["positive"], "negative": count["negative"]}
        if missing := [f"no {name}" for name, rows in classes.items() if not rows]:
            lines.append(f"{split}: {' and '.join(missing)} row of {label!r}")
    return lines


DROPPED = -1

UNSTATED_LICENCE = "not stated: see where the file came from"


def prepare(
    settings: DataSettings,
    out: Path,
    *,
    sources: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DataManifest:
    """Validate, deduplicate and split sources into ``out``; return the manifest.

    Written are ``train.parquet``, ``valid.parquet`` and ``test.parquet`` (those that have rows) and
    ``manifest.json``, all at once: ``out`` is whole or not there. Splits that the sources have, or that
    ``valid`` and ``test`` give, are kept; missing ones are split off the train rows.

    Args:
        sources: files, folders, hub data sets or ``sample``; ``settings.source`` when None.
        overwrite: replace ``out`` when it is a prepared directory.
        progress: stages are ``reading`` and ``writing``, in rows.

    Raises:
        DataError: something is wrong with sources, rows or ``out``.
    """
    out = Path(out)
    check_output(out, overwrite=overwrite)
    named = list(sources) if sources else [settings.source]
    refuse_source_within(out, [Path(name).expanduser() for name in (*named, *valid, *test)])
    plan = resolve_sources(named, valid, test, settings.revision)
    check_files(plan.parts)
    job = Reading(plan, settings)
    columns = job.columns
    with atomic_directory(out) as folder:
        spill = folder / "spill.parquet"
        keys = _spill(job, spill, progress)
        duplicates, assigned = _decide(job, keys)
        _check_given(plan, keys, duplicates)
        where = plan.parts[0].reader.name + (" and others" if len(plan.parts) > 1 else "")
        check_classes(columns.labels, keys.codes[assigned == TRAIN], where)
        writers = _write_splits(spill, folder, columns, assigned, progress)
        spill.unlink()
        manifest = _manifest(job, keys, duplicates, assigned, writers)
        write_manifest(folder, manifest)
        check_output(out, overwrite=overwrite)  # something may have come there meanwhile
    return manifest


@dataclass(frozen=True)
class _Keys:
    """What is kept of each of n rows in memory: its part, digests, and labels of shape (n, L)."""

    parts: NDArray[np.int16]
    folded: NDArray[np.uint64]
    exact: NDArray[np.uint64]
    codes: NDArray[np.int8]
    ids: NDArray[np.int64]


def _spill(job: Reading, path: Path, progress: Progress | None) -> _Keys:
    """Run the first pass: write all good rows to ``path`` and return their keys."""
    columns = job.columns
    writer = RowWriter(path, columns.labels, fingerprint=False)
    kept = []
    for batch in job.rows(progress):
        weights = batch.weights if columns.weighted else None
        writer.add(rows_table(columns.labels, batch.ids, batch.texts, batch.labels, weights))
        parts = np.full(len(batch), batch.part, dtype=np.int16)
        ids = np.fromiter(map(hash, batch.ids), dtype=np.int64, count=len(batch))
        kept.append((parts, batch.folded, batch.exact, batch.labels, ids))
    writer.close()
    if not kept:
        what = f"no row of {sum(job.counts):,} is good: " + ", ".join(f"{n:,} {k}" for k, n in job.bad.items())
        remedy = "run with --on-error refuse to see the first one"
        raise EmptyDataError(what, where=job.plan.parts[0].reader.name, remedy=remedy)
    return _Keys(*map(np.concatenate, zip(*kept, strict=True)))


def _decide(job: Reading, keys: _Keys) -> tuple[Duplicates, NDArray[np.int8]]:
    """Return the duplicates, and each row's split (``DROPPED`` where it goes)."""
    splits = [part.split for part in job.plan.parts]
    given = np.array([SPLIT_NAMES.index(split) for split in splits], dtype=np.int8)[keys.parts]
    duplicates = find_duplicates(keys.folded, keys.exact, given, keys.codes)
    assigned = np.where(duplicates.keep, given, np.int8(DROPPED))
    own = job.settings
    shares = Shares(0.0 if "valid" in splits else own.valid_share, 0.0 if "test" in splits else own.test_share)
    train = np.flatnonzero(assigned == TRAIN)
    if len(train):
        assigned[train] = split_rows(keys.folded[train], keys.codes[train], shares, own.split_seed)
    return duplicates, assigned


def _check_given(plan: Plan, keys: _Keys, duplicates: Duplicates) -> None:
    """Refuse a split of which nothing would be left, as all its rows are in other splits."""
    for index, split in enumerate(SPLIT_NAMES):
        parts = [number for number, part in enumerate(plan.parts) if part.split == split]
        rows = np.isin(keys.parts, parts)
        if not rows.any() or duplicates.keep[rows].any():
            continue
        others = [other for other in SPLIT_NAMES[index + 1 :] if duplicates.overlap[f"{split} in {other}"]]
        count = int(np.count_nonzero(rows))
        raise EmptyDataError(
            f"every row of the {split} split ({count:,}) is also in the {' or the '.join(others)} split, so "
            f"no {split} row would be left",
            where=", ".join(plan.parts[number].reader.name for number in parts),
            remedy=f"give other rows for {split}, or leave the {others[0]} split out",
        )


def _write_splits(
    spill: Path, folder: Path, columns: ColumnPlan, assigned: NDArray[np.int8], progress: Progress | None
) -> dict[str, RowWriter]:
    """Run the second pass; return the closed writers of the splits that have rows."""
    import pyarrow as pa

    writers = {name: RowWriter(folder / f"{name}.parquet", columns.labels) for name in SPLIT_NAMES}
    done = 0
    for table in read_row_groups(spill):
        here = assigned[done : done + table.num_rows]
        for index, writer in enumerate(writers.values()):
            writer.add(table.filter(pa.array(here == index)))
        done += table.num_rows
        if progress is not None:
            progress(done, len(assigned), "writing")
    for writer in writers.values():
        writer.close()
    return {name: writer for name, writer in writers.items() if writer.rows}


def _manifest(
    job: Reading, keys: _Keys, duplicates: Duplicates, assigned: NDArray[np.int8], writers: dict[str, RowWriter]
) -> DataManifest:
    """Return the manifest, without any time of day: the same input gives the same bytes."""
    settings, plan, columns, readers = job.settings, job.plan, job.columns, job.labels
    given = {part.split for part in plan.parts}
    splits = {}
    warnings = []
    for index, name in enumerate(SPLIT_NAMES):
        if name not in writers:
            warnings.append(f"there is no {name} split")
            continue
        writer, counts = writers[name], label_counts(columns.labels, keys.codes[assigned == index])
        warnings += class_warnings(name, counts)
        splits[name] = SplitEntry(
            file=writer.path.name,
            rows=writer.rows,
            origin=_origin(name, given),
            labels=counts,
            fingerprint=writer.fingerprint(),
            sha256=sha256_file(writer.path),
        )
    for name in settings.positive_values:  # it may be misspelt
        if not any(reader.met(name) for reader in readers.values()):
            warnings.append(f"no row has the class {name!r} (--positive-values)")
    ids = keys.ids[assigned != DROPPED]
    if repeated := len(ids) - len(np.unique(ids)):
        share = "shares its" if repeated == 1 else "share their"
        warnings.append(f"{counted(repeated, 'row')} {share} id with another row")
    return DataManifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        gkiller_version=__version__,
        source=" + ".join(part.reader.name for part in plan.parts),
        sources=_source_entries(job),
        synthetic=any(part.info.get("synthetic", False) for part in plan.parts),
        licence=[f"{known.name}: {known.licence}" for known in known_of(plan.parts)] or [UNSTATED_LICENCE],
        labels=list(columns.labels),
        label_kinds={label: reader.kind for label, reader in readers.items()},
        class_names=dict(pair for reader in readers.values() for pair in sorted(reader.class_names.items())),
        cutoff=settings.cutoff,
        weighted=columns.weighted,
        renames=columns.renames,
        guesses=columns.guesses,
        notes=[*plan.notes, *columns.notes, *job.notes()],
        warnings=warnings,
        rows_read=sum(job.counts),
        rows_kept=int(np.count_nonzero(assigned != DROPPED)),
        dropped={
            "bad": dict(sorted(job.bad.items())),
            "exact_duplicates": duplicates.exact,
            "folded_duplicates": duplicates.folded,
            "overlap": duplicates.overlap,
        },
        bad_row_examples=job.examples,
        conflicts=duplicates.conflicts,
        splits=splits,
        class_weights=class_weights(splits[SPLIT_NAMES[TRAIN]]["labels"]),
        settings=settings.model_dump(mode="json", exclude={"sample_size", "source"}),
    )


def _origin(name: str, given: set[str]) -> str:
    """Say whether a split is as the sources have it."""
    whole = name != "train" or given >= set(SPLIT_NAMES)
    return "split off train" if name not in given else "given" if whole else "given, less what was split off"


def _source_entries(job: Reading) -> list[dict[str, Any]]:
    entries = []
    for part, chosen, rows in zip(job.plan.parts, job.columns.parts, job.counts, strict=True):
        entry: dict[str, Any] = {"name": part.reader.name, "split": part.split, **part.info, "rows": rows}
        entry["columns"] = asdict(chosen)
        if part.path is not None:
            entry |= {"bytes": part.path.stat().st_size, "sha256": sha256_file(part.path)}
        entries.append(entry)
    return entries
