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

from gkiller.data.columns import ColumnPlan, plan_columns
from gkiller.data.dataset import SPLIT_NAMES
from gkiller.data.manifest import (
    RowWriter,
    build_manifest,
    check_classes,
    check_output,
    read_row_groups,
    rows_table,
    write_manifest,
)
from gkiller.data.rows import Tally, clean_rows, new_tally
from gkiller.data.sources import Plan, check_files, resolve_sources
from gkiller.data.splits import TRAIN, Duplicates, Shares, find_duplicates, split_rows
from gkiller.errors import EmptyDataError, counted
from gkiller.settings import DataSettings
from gkiller.storage.files import atomic_directory, refuse_source_within
from gkiller.wording import Progress

DROPPED = -1


def prepare(
    settings: DataSettings,
    out: Path,
    *,
    sources: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Validate, deduplicate and split sources into ``out``.

    Written are ``train.parquet``, ``valid.parquet`` and ``test.parquet`` (those that have rows) and
    ``manifest.json``, all at once: ``out`` is whole or not there. Splits that the sources have, or that
    ``valid`` and ``test`` give, are kept; missing ones are split off the train rows.

    Args:
        settings: columns, cutoff, shares, seed, and what to do with bad rows.
        sources: files, folders, hub data sets or ``sample``; ``settings.source`` when None.
        overwrite: replace ``out`` when it is a prepared directory.
        progress: stages are ``reading`` and ``writing``, in rows.

    Returns:
        The manifest, as written.

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
    tally = new_tally(plan.parts, columns, settings)
    with atomic_directory(out) as folder:
        spill = folder / "spill.parquet"
        keys = _spill(plan, columns, settings, tally, spill, progress)
        duplicates, assigned = _decide(plan, keys, settings)
        _check_given(plan, keys, duplicates)
        where = plan.parts[0].reader.name + (" and others" if len(plan.parts) > 1 else "")
        check_classes(columns.labels, keys.codes[assigned == TRAIN], where)
        writers = _write_splits(spill, folder, columns, assigned, progress)
        spill.unlink()
        manifest = build_manifest(plan, columns, settings, tally, duplicates, assigned, keys.codes, writers)
        repeated = _repeated_ids(keys.ids[assigned != DROPPED])
        if repeated:
            share = "shares its" if repeated == 1 else "share their"
            manifest["warnings"].append(f"{counted(repeated, 'row')} {share} id with another row")
        write_manifest(folder, manifest)
        check_output(out, overwrite=overwrite)  # something may have come there meanwhile
    return manifest


@dataclass(frozen=True)
class _Keys:
    """What is kept of each of n rows in memory: its part, digests, and labels of shape (n, L)."""

    parts: npt.NDArray[np.int16]
    folded: npt.NDArray[np.uint64]
    exact: npt.NDArray[np.uint64]
    codes: npt.NDArray[np.int8]
    ids: npt.NDArray[np.int64]


def _spill(
    plan: Plan,
    columns: ColumnPlan,
    settings: DataSettings,
    tally: Tally,
    path: Path,
    progress: Progress | None,
) -> _Keys:
    """Run the first pass: write all good rows to ``path`` and return their keys."""
    writer = RowWriter(path, columns.labels, fingerprint=False)
    parts, folded, exact, codes, ids = [], [], [], [], []
    for batch in clean_rows(plan.parts, columns, settings, tally, progress):
        weights = batch.weights if columns.weighted else None
        writer.add(rows_table(columns.labels, batch.ids, batch.texts, batch.labels, weights))
        parts.append(np.full(len(batch), batch.part, dtype=np.int16))
        folded.append(batch.folded)
        exact.append(batch.exact)
        codes.append(batch.labels)
        ids.append(np.fromiter(map(hash, batch.ids), dtype=np.int64, count=len(batch)))
    writer.close()
    if not parts:
        raise EmptyDataError(
            f"no row of {sum(tally.read):,} is good: "
            + ", ".join(f"{n:,} {k}" for k, n in tally.bad.items()),
            where=plan.parts[0].reader.name,
            remedy="run with --on-error refuse to see the first one",
        )
    return _Keys(
        parts=np.concatenate(parts),
        folded=np.concatenate(folded),
        exact=np.concatenate(exact),
        codes=np.concatenate(codes),
        ids=np.concatenate(ids),
    )


def _decide(plan: Plan, keys: _Keys, settings: DataSettings) -> tuple[Duplicates, npt.NDArray[np.int8]]:
    """Return the duplicates, and each row's split (``DROPPED`` where it goes)."""
    of_part = np.array([SPLIT_NAMES.index(part.split) for part in plan.parts], dtype=np.int8)
    given = of_part[keys.parts]
    duplicates = find_duplicates(keys.folded, keys.exact, given, keys.codes)
    assigned = np.where(duplicates.keep, given, np.int8(DROPPED))
    splits = {part.split for part in plan.parts}
    shares = Shares(
        valid=0.0 if "valid" in splits else settings.valid_share,
        test=0.0 if "test" in splits else settings.test_share,
    )
    train = np.flatnonzero(assigned == TRAIN)
    if len(train):
        assigned[train] = split_rows(keys.folded[train], keys.codes[train], shares, settings.split_seed)
    return duplicates, assigned


def _check_given(plan: Plan, keys: _Keys, duplicates: Duplicates) -> None:
    """Refuse a split whose rows all stand in other splits.

    Raises:
        EmptyDataError: there is one; nothing would be left of it.
    """
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
    spill: Path,
    folder: Path,
    columns: ColumnPlan,
    assigned: npt.NDArray[np.int8],
    progress: Progress | None,
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


def _repeated_ids(ids: npt.NDArray[np.int64]) -> int:
    """Count the rows whose id stood before."""
    return len(ids) - len(np.unique(ids))
