"""From sources to a prepared directory, in two passes and in bounded memory.

The first pass validates, writes canonical rows to a temporary file, and keeps of each row only digests and
labels (about 50 bytes). Duplicates and splits are decided on those; the second pass copies the rows into
the files of their splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller import __version__
from gkiller.data.columns import ColumnPlan, plan_columns
from gkiller.data.dataset import SPLIT_NAMES, DataManifest, SplitEntry
from gkiller.data.manifest import (
    FORMAT,
    FORMAT_VERSION,
    RowWriter,
    check_output,
    read_row_groups,
    rows_table,
    write_manifest,
)
from gkiller.data.rows import Tally, clean_rows, new_tally
from gkiller.data.sources import Plan, check_files, known_of, resolve_sources
from gkiller.data.splits import (
    TRAIN,
    Duplicates,
    Shares,
    check_classes,
    class_warnings,
    class_weights,
    find_duplicates,
    label_counts,
    split_rows,
)
from gkiller.errors import EmptyDataError
from gkiller.settings import DataSettings
from gkiller.storage.files import atomic_directory, refuse_source_within, sha256_file
from gkiller.wording import Progress, counted

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
        DataError: one of its leaves for each thing that can be wrong with sources, rows or ``out``.
    """
    out = Path(out)
    check_output(out, overwrite=overwrite)
    named = list(sources) if sources else [settings.source]
    refuse_source_within(out, [Path(name).expanduser() for name in (*named, *valid, *test)])
    plan = resolve_sources(named, valid, test, settings.revision)
    check_files(plan.parts)
    columns = plan_columns(plan.parts, settings)
    job = _Job(settings, plan, columns, new_tally(plan.parts, columns, settings))
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
class _Job:
    """What is read, and how."""

    settings: DataSettings
    plan: Plan
    columns: ColumnPlan
    tally: Tally


@dataclass(frozen=True)
class _Keys:
    """What is kept of each of n rows in memory: its part, digests, and labels of shape (n, L)."""

    parts: npt.NDArray[np.int16]
    folded: npt.NDArray[np.uint64]
    exact: npt.NDArray[np.uint64]
    codes: npt.NDArray[np.int8]
    ids: npt.NDArray[np.int64]


def _spill(job: _Job, path: Path, progress: Progress | None) -> _Keys:
    """Run the first pass: write all good rows to ``path`` and return their keys."""
    columns, tally = job.columns, job.tally
    writer = RowWriter(path, columns.labels, fingerprint=False)
    kept = []
    for batch in clean_rows(job.plan.parts, columns, job.settings, tally, progress):
        weights = batch.weights if columns.weighted else None
        writer.add(rows_table(columns.labels, batch.ids, batch.texts, batch.labels, weights))
        parts = np.full(len(batch), batch.part, dtype=np.int16)
        ids = np.fromiter(map(hash, batch.ids), dtype=np.int64, count=len(batch))
        kept.append((parts, batch.folded, batch.exact, batch.labels, ids))
    writer.close()
    if not kept:
        raise EmptyDataError(
            f"no row of {sum(tally.read):,} is good: " + ", ".join(f"{n:,} {k}" for k, n in tally.bad.items()),
            where=job.plan.parts[0].reader.name,
            remedy="run with --on-error refuse to see the first one",
        )
    return _Keys(*map(np.concatenate, zip(*kept, strict=True)))


def _decide(job: _Job, keys: _Keys) -> tuple[Duplicates, npt.NDArray[np.int8]]:
    """Return the duplicates, and each row's split (``DROPPED`` where it goes)."""
    splits = [part.split for part in job.plan.parts]
    given = np.array([SPLIT_NAMES.index(split) for split in splits], dtype=np.int8)[keys.parts]
    duplicates = find_duplicates(keys.folded, keys.exact, given, keys.codes)
    assigned = np.where(duplicates.keep, given, np.int8(DROPPED))
    shares = Shares(
        valid=0.0 if "valid" in splits else job.settings.valid_share,
        test=0.0 if "test" in splits else job.settings.test_share,
    )
    train = np.flatnonzero(assigned == TRAIN)
    if len(train):
        seed = job.settings.split_seed
        assigned[train] = split_rows(keys.folded[train], keys.codes[train], shares, seed)
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
    spill: Path, folder: Path, columns: ColumnPlan, assigned: npt.NDArray[np.int8], progress: Progress | None
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
    job: _Job, keys: _Keys, duplicates: Duplicates, assigned: npt.NDArray[np.int8], writers: dict[str, RowWriter]
) -> DataManifest:
    """Return the manifest, without any time of day: the same input gives the same bytes."""
    settings, plan, columns, tally = job.settings, job.plan, job.columns, job.tally
    readers = tally.readers
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
        notes=[*plan.notes, *columns.notes, *(note for part in plan.parts for note in part.reader.notes)],
        warnings=warnings,
        rows_read=sum(tally.read),
        rows_kept=int(np.count_nonzero(assigned != DROPPED)),
        dropped={
            "bad": dict(sorted(tally.bad.items())),
            "exact_duplicates": duplicates.exact,
            "folded_duplicates": duplicates.folded,
            "overlap": duplicates.overlap,
        },
        bad_row_examples=tally.examples,
        conflicts=duplicates.conflicts,
        splits=splits,
        class_weights=class_weights(splits[SPLIT_NAMES[TRAIN]]["labels"]),
        settings=settings.model_dump(mode="json", exclude={"sample_size", "source"}),
    )


def _origin(name: str, given: set[str]) -> str:
    """Say whether a split is as the sources have it."""
    if name not in given:
        return "split off train"
    whole = name != "train" or given >= set(SPLIT_NAMES)
    return "given" if whole else "given, less what was split off"


def _source_entries(job: _Job) -> list[dict[str, Any]]:
    entries = []
    for part, chosen, rows in zip(job.plan.parts, job.columns.parts, job.tally.read, strict=True):
        entry: dict[str, Any] = {"name": part.reader.name, "split": part.split, **part.info, "rows": rows}
        entry["columns"] = {"text": chosen.text, "labels": chosen.labels, "id": chosen.id, "weight": chosen.weight}
        if part.path is not None:
            entry |= {"bytes": part.path.stat().st_size, "sha256": sha256_file(part.path)}
        entries.append(entry)
    return entries
