"""Changed copies of a prepared directory's comments, without comments that are there twice.

A first pass over all splits keeps 8 bytes per row to find duplicates by; a second one writes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller import __version__
from gkiller.data.augment import Variant, is_drawn, resolve_kinds, variants
from gkiller.data.augment.seq2seq import PARAPHRASE, Paraphraser
from gkiller.data.dataset import (
    MANIFEST_NAME,
    SPLIT_NAMES,
    DataManifest,
    RowWriter,
    SplitEntry,
    check_output,
    read_manifest,
    read_row_groups,
    split_file,
    table_codes,
    write_manifest,
)
from gkiller.data.load import check_settings
from gkiller.data.prepare import TRAIN, class_weights, label_counts, prepare
from gkiller.data.rows import exact_hash, folded_hash
from gkiller.errors import SettingsError, SourceNotFoundError
from gkiller.settings import AugmentSettings, DataSettings
from gkiller.storage.files import atomic_directory, refuse_source_within, sha256_file
from gkiller.wording import Progress, did_you_mean, staged

Digests = npt.NDArray[np.uint64]


_SLICE_ROWS = 512  # rows whose copies are in memory together
_TRAIN = SPLIT_NAMES[TRAIN]


def augment_source(
    source: str,
    out: Path,
    data: DataSettings,
    settings: AugmentSettings,
    *,
    split: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DataManifest:
    """Write changed copies of a source's comments to a prepared directory; return its manifest.

    Without ``split`` the directory has the source's splits, and in the train split each comment's copies behind it. The
    other splits are the source's, byte for byte. With ``split`` the directory has that split alone, with a comment's
    copies in its place; one without copies stays as it is, so that at one copy the rows are the source's.

    A copy's id is ``id#kind.number``; its labels and its weight are its comment's. A copy is dropped whose
    text another copy has, or that is, but for case and white space, another comment of any split. The last
    of the manifest's ``augmentations`` counts what was done.

    Args:
        source: a prepared directory, or anything that ``prepare`` reads, which is prepared first.
        split: "train", "valid" or "test", for a suite to measure robustness on.
        overwrite: replace ``out`` when it is a prepared directory.
        progress: stages are those of ``prepare``, then ``comparing`` and ``augmenting``, in rows.

    Raises:
        SettingsError: there is no such kind or split, or the data settings do not fit prepared data.
        DataError: as ``prepare`` raises; there is no such split; a prepared file has changed; ``out``
            must not be replaced, or is the source.
        ModelError: a seq2seq model is not there or cannot be read.
    """
    if split is not None and split not in SPLIT_NAMES:
        raise SettingsError(f"unknown split {split!r}", where="--split", remedy=did_you_mean(split, SPLIT_NAMES))
    work = _Work(settings)  # refuses unknown kinds before anything is read
    check_output(out, overwrite=overwrite)
    path = Path(source).expanduser()
    refuse_source_within(out, [path])
    if (path / MANIFEST_NAME).is_file():
        _check_prepared(path, data, source)
        return _augment_prepared(path, out, work, split, overwrite, progress)
    with TemporaryDirectory(prefix="gkiller-data-") as folder:
        prepared = Path(folder) / "prepared"
        prepare(data, prepared, sources=[source], progress=progress)
        return _augment_prepared(prepared, out, work, split, overwrite, progress)


def _check_prepared(path: Path, data: DataSettings, source: str) -> None:
    """Refuse data settings that were not those of the prepared data."""
    check_settings(data.model_copy(update={"source": source}), read_manifest(path))
    if data.label_columns:
        raise SettingsError(
            "prepared data are augmented with all their labels",
            where="data.label_columns",
            remedy="leave it out here, and choose labels with gkiller train --label-columns",
        )


@dataclass
class _Work:
    """What is to be done to each comment, and what has been done."""

    settings: AugmentSettings
    kinds: tuple[str, ...] = ()
    paraphraser: Paraphraser | None = None
    made: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    duplicates: int = 0

    def __post_init__(self) -> None:
        names = [name for name in self.settings.kinds if name != PARAPHRASE]
        if not self.settings.seq2seq and len(names) < len(self.settings.kinds):
            raise SettingsError(
                f"{PARAPHRASE!r} needs a model", where="augment.kinds", remedy="name its directory with --seq2seq"
            )
        self.kinds = resolve_kinds(names) if names or not self.settings.kinds else ()
        if self.settings.seq2seq:
            self.paraphraser = Paraphraser(self.settings)

    def copies(self, texts: Sequence[str]) -> list[list[Variant]]:
        given = self.settings
        made = [
            variants(text, self.kinds, given.rate, given.seed, intensity=given.intensity, copies=given.copies)
            for text in texts
        ]
        if self.paraphraser is not None:
            drawn = [at for at, text in enumerate(texts) if is_drawn(text, given.rate, given.seed)]
            answers = self.paraphraser.paraphrase([texts[at] for at in drawn])
            for at, answer in zip(drawn, answers, strict=True):
                if answer is not None:
                    made[at].append(Variant(PARAPHRASE, 1, answer))
        return made

    def report(self, split: str, rows: int, digest: str) -> dict[str, Any]:
        """Return the manifest's entry."""
        entry = {
            "split": split,
            "source_digest": digest,
            "rows": rows,
            "changed": self.changed,
            "unchanged": rows - self.changed,
            "duplicates": self.duplicates,
            "kinds": {kind: self.made[kind] for kind in (*self.kinds, PARAPHRASE) if kind in self.made},
            "settings": self.settings.model_dump(mode="json"),
            "numpy": np.__version__,
        }
        if self.paraphraser is not None:
            entry["seq2seq_sha256"] = self.paraphraser.digests
        return entry


def _augment_prepared(
    source: Path, out: Path, work: _Work, split: str | None, overwrite: bool, progress: Progress | None
) -> DataManifest:
    manifest = read_manifest(source)
    old = manifest["splits"]
    files = {name: split_file(source, entry) for name, entry in old.items()}
    name = split or _TRAIN
    if name not in files:
        raise SourceNotFoundError(
            f"there is no split {name!r}",
            where=str(manifest["source"]),
            remedy=f"choose one of the splits there are: {', '.join(files) or 'none'}",
        )
    originals, done = DigestSet(), 0
    for path in files.values():
        for table in read_row_groups(path):
            originals.add(_folded(table.column("text").to_pylist()))
            done += table.num_rows
            if progress is not None:
                progress(done, sum(int(entry["rows"]) for entry in old.values()), "comparing")
    rows = old[name]["rows"]
    with atomic_directory(out) as folder:
        writer = RowWriter(folder / old[name]["file"], manifest["labels"])
        advance = staged(progress, "augmenting")
        counts = label_counts(writer.labels, _write(files[name], writer, work, originals, rows, split is None, advance))
        written: SplitEntry = {
            **old[name],
            "rows": writer.rows,
            "labels": counts,
            "fingerprint": writer.fingerprint(),
            "sha256": sha256_file(writer.path),
        }
        changed = manifest.copy()
        changed["gkiller_version"] = __version__
        if split is None:
            for other in files.keys() - {name}:
                shutil.copyfile(files[other], folder / files[other].name)
            changed["splits"] = old | {name: written}
            changed["class_weights"] = class_weights(counts)
        else:
            changed["splits"] = {name: written}
            changed["warnings"] = [line for line in manifest["warnings"] if line.startswith(f"{name}: ")]
            changed["settings"] = manifest["settings"] | {"valid_share": None, "test_share": None}
        changed["rows_kept"] = sum(int(entry["rows"]) for entry in changed["splits"].values())
        report = work.report(name, rows, manifest["digest"])
        changed["augmentations"] = [*manifest.get("augmentations", []), report]
        write_manifest(folder, changed)
        check_output(out, overwrite=overwrite)  # something may have come there meanwhile
    return changed


def _write(
    path: Path, writer: RowWriter, work: _Work, originals: DigestSet, total: int, keep: bool, progress: Progress
) -> npt.NDArray[np.int8]:
    """Write a split's rows and their copies; return their labels, of shape (n, L).

    Args:
        keep: whether a comment stands before its copies; else only where it has none.
    """
    import pyarrow as pa

    copied, codes, done = DigestSet(), [], 0
    for group in read_row_groups(path):
        for start in range(0, group.num_rows, _SLICE_ROWS):
            table = group.slice(start, _SLICE_ROWS)
            ids, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
            made = _without_duplicates(texts, work.copies(texts), originals, copied)
            rows, new_ids, new_texts = [], [], []
            for row, copies in enumerate(made):
                if keep or not any(copies):
                    rows.append(row)
                    new_ids.append(ids[row])
                    new_texts.append(texts[row])
                for copy in filter(None, copies):
                    rows.append(row)
                    new_ids.append(f"{ids[row]}#{copy.kind}.{copy.number}")
                    new_texts.append(copy.text)
                    work.made[copy.kind] += 1
                work.changed += any(copies)
                work.duplicates += copies.count(None)
            part = table.take(pa.array(rows, pa.int64()))
            for name, values in (("id", new_ids), ("text", new_texts)):
                part = part.set_column(part.column_names.index(name), name, pa.array(values, pa.string()))
            writer.add(part)
            codes.append(table_codes(part, writer.labels))
            done += table.num_rows
            progress(done, total)
    writer.close()
    return np.concatenate(codes)


class DigestSet:
    """Sorted runs, each longer than the next; a run is merged into the one before once it is as long."""

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def contains(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """Mark the digests, of shape (n,), that are in the set."""
        found = np.zeros(len(digests), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, digests), len(run) - 1)
            found |= run[at] == digests
        return found

    def add(self, digests: Digests) -> None:
        """Put digests, of shape (n,), into the set."""
        run = np.unique(digests)
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.union1d(self._runs.pop(), run)
        if len(run):
            self._runs.append(run)


def _without_duplicates(
    texts: Sequence[str], made: Sequence[Sequence[Variant]], originals: DigestSet, copied: DigestSet
) -> list[list[Variant | None]]:
    """Return the copies with None for each that is another comment, or an earlier copy, and note the rest."""
    flat = [copy.text for copies in made for copy in copies]
    sources = np.repeat(np.arange(len(texts)), [len(copies) for copies in made])
    folded, exact = _folded(flat), _exact(flat)
    elsewhere = originals.contains(folded) & (folded != _folded(texts)[sources])
    first = np.zeros(len(flat), dtype=bool)
    first[np.unique(exact, return_index=True)[1]] = True
    fresh = first & ~elsewhere & ~copied.contains(exact)
    copied.add(exact[fresh])
    marks = iter(fresh.tolist())
    return [[copy if next(marks) else None for copy in copies] for copies in made]


def _folded(texts: Sequence[str]) -> Digests:
    return np.frombuffer(b"".join(folded_hash(text)[:8] for text in texts), dtype="<u8").astype(np.uint64)


def _exact(texts: Sequence[str]) -> Digests:
    return np.frombuffer(b"".join(exact_hash(text) for text in texts), dtype="<u8").astype(np.uint64)
