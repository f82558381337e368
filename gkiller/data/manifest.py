"""Prepared files: canonical Parquet, row fingerprints, manifests, and which folders may be replaced."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller import __version__
from gkiller.data.columns import ColumnPlan
from gkiller.data.dataset import SPLIT_NAMES
from gkiller.data.labels import UNKNOWN
from gkiller.data.rows import Tally
from gkiller.data.sources import Plan, known_of
from gkiller.data.splits import TRAIN, Duplicates
from gkiller.errors import EmptyDataError, OutputError, SingleClassError
from gkiller.settings import DataSettings
from gkiller.storage.files import json_text, sha256_file

MANIFEST_NAME = "manifest.json"
FORMAT = "gkiller-data"
FORMAT_VERSION = 1
ROW_GROUP_ROWS = 8192
ROW_GROUP_BYTES = 32 << 20
_FINGERPRINT_HEAD = b"gkiller-rows-1\0"


def rows_table(
    labels: Sequence[str],
    ids: Sequence[str],
    texts: Sequence[str],
    codes: npt.NDArray[np.int8],
    weights: npt.NDArray[np.float64] | None,
) -> Any:
    """Return canonical rows as a pyarrow table.

    Args:
        codes: int8 of shape (n, L), -1 where unknown; becomes null.
        weights: float64 of shape (n,), or None for no weight column.
    """
    import pyarrow as pa

    columns = {"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())}
    for position, label in enumerate(labels):
        column = np.ascontiguousarray(codes[:, position])
        columns[label] = pa.array(column, pa.int8(), mask=column == UNKNOWN)
    if weights is not None:
        columns["weight"] = pa.array(weights, pa.float64())
    return pa.table(columns)


def table_codes(table: Any, labels: Sequence[str]) -> npt.NDArray[np.int8]:
    """Return a table's labels as int8 of shape (n, L), -1 where null."""
    codes = np.empty((table.num_rows, len(labels)), dtype=np.int8)
    for position, label in enumerate(labels):
        codes[:, position] = table.column(label).fill_null(UNKNOWN).to_numpy()
    return codes


class Fingerprint:
    """SHA-256 over canonical rows, in order: it depends on their content alone, not on how a file is packed.

    Hashed are a tag, the label names as JSON, and per row: the lengths of id and text in UTF-8 (two
    little-endian 32-bit numbers), id, text, one signed byte per label (-1 where unknown), and the weight
    (little-endian double, 1.0 where there is none).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._digest = hashlib.sha256(_FINGERPRINT_HEAD + json.dumps(list(labels)).encode())

    def update(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        codes: npt.NDArray[np.int8],
        weights: npt.NDArray[np.float64],
    ) -> None:
        """Add rows; arguments as in :func:`rows_table`."""
        packed = codes.astype(np.int8).tobytes()
        width = codes.shape[1]
        numbers = weights.astype("<f8").tobytes()
        for i, (identifier, text) in enumerate(zip(ids, texts, strict=True)):
            head, body = identifier.encode(), text.encode()
            self._digest.update(
                struct.pack("<II", len(head), len(body))
                + head
                + body
                + packed[i * width : (i + 1) * width]
                + numbers[i * 8 : (i + 1) * 8]
            )

    def hexdigest(self) -> str:
        """Return the fingerprint as 64 hexadecimal digits."""
        return self._digest.hexdigest()


class RowWriter:
    """Writes canonical rows to one Parquet file (zstd), in row groups of one size.

    Args:
        fingerprint: whether to compute one on the way.
    """

    def __init__(self, path: Path, labels: Sequence[str], *, fingerprint: bool = True) -> None:
        self.path = path
        self.labels = tuple(labels)
        self.rows = 0
        self._fingerprint = Fingerprint(labels) if fingerprint else None
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._waiting_rows = 0

    def add(self, table: Any) -> None:
        """Add a table of canonical rows."""
        if not table.num_rows:
            return
        if self._fingerprint is not None:
            weighted = "weight" in table.column_names
            weights = table.column("weight").to_numpy() if weighted else np.ones(table.num_rows)
            ids, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
            self._fingerprint.update(ids, texts, table_codes(table, self.labels), weights)
        self.rows += table.num_rows
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        size = sum(part.nbytes for part in self._waiting)
        if self._waiting_rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            self._flush(everything=size >= ROW_GROUP_BYTES)

    def _flush(self, *, everything: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting_rows:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        stop = table.num_rows if everything else table.num_rows - table.num_rows % ROW_GROUP_ROWS
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table.slice(0, stop), row_group_size=ROW_GROUP_ROWS)
        rest = table.slice(stop)
        self._waiting = [pa.concat_tables([rest]).combine_chunks()] if rest.num_rows else []
        self._waiting_rows = rest.num_rows

    def close(self) -> None:
        """Write what is waiting; without rows there is no file."""
        self._flush(everything=True)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def fingerprint(self) -> str:
        """Return the fingerprint of the rows added so far, or an empty string when none was wanted."""
        return self._fingerprint.hexdigest() if self._fingerprint is not None else ""


def read_row_groups(path: Path) -> Iterator[Any]:
    """Yield a file's row groups as pyarrow tables, one at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, its own ``digest`` left out."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json``, with its digest."""
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST_NAME).write_text(json_text(manifest), encoding="utf-8", newline="\n")


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder looks like a prepared one: it has a manifest of our format."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that is not ours to replace.

    Raises:
        OutputError: it is a file, holds other things, or is a prepared folder and ``overwrite`` is off.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError("there is a file of that name", where=str(out), remedy="choose another --out")
    if not any(out.iterdir()):
        return
    if not is_prepared(out):
        raise OutputError(
            "the folder is not empty and was not written by gkiller",
            where=str(out),
            remedy="choose another --out; it is not replaced even with --force",
        )
    if not overwrite:
        raise OutputError(
            "the folder already holds prepared data",
            where=str(out),
            remedy="choose another --out, or replace it with --force",
        )


UNSTATED_LICENCE = "not stated: see where the file came from"


def label_counts(labels: Sequence[str], codes: npt.NDArray[np.int8]) -> dict[str, dict[str, Any]]:
    """Return per label the positive, negative and unknown rows, and the rate of positives among the known.

    Args:
        codes: int8 of shape (n, L), -1 where unknown.
    """
    counts = {}
    for position, label in enumerate(labels):
        column = codes[:, position]
        positive = int(np.count_nonzero(column == 1))
        negative = int(np.count_nonzero(column == 0))
        known = positive + negative
        counts[label] = {
            "positive": positive,
            "negative": negative,
            "unknown": int(np.count_nonzero(column == UNKNOWN)),
            "rate": positive / known if known else None,
        }
    return counts


def class_weights(counts: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return scikit-learn's ``balanced`` weights, n / (2 n_c) over known rows; None for an absent class."""
    weights: dict[str, dict[str, float | None]] = {}
    for label, count in counts.items():
        known = count["positive"] + count["negative"]
        weights[label] = {
            "0": known / (2 * count["negative"]) if count["negative"] else None,
            "1": known / (2 * count["positive"]) if count["positive"] else None,
        }
    return weights


def check_classes(labels: Sequence[str], codes: npt.NDArray[np.int8], where: str) -> None:
    """Refuse train rows from which no label can be learnt.

    Args:
        codes: the train rows' labels, int8 of shape (n, L).

    Raises:
        EmptyDataError: there are no rows.
        SingleClassError: no label has both classes.
    """
    if not len(codes):
        raise EmptyDataError(
            "no rows are left to train on", where=where, remedy="give more rows; see the bad and dropped ones"
        )
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


def split_warnings(labels: Sequence[str], splits: dict[str, npt.NDArray[np.int8]]) -> list[str]:
    """Return what is wrong with the splits but can be lived with.

    Args:
        splits: labels of the rows of each split, int8 of shape (n, L).
    """
    warnings = []
    for name in SPLIT_NAMES:
        codes = splits.get(name)
        if codes is None or not len(codes):
            warnings.append(f"there is no {name} split")
            continue
        warnings += class_warnings(name, label_counts(labels, codes))
    return warnings


def class_warnings(split: str, counts: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each label of a split that lacks a class; ``counts`` as of `label_counts`."""
    missing = {
        label: [kind for kind in ("positive", "negative") if not count[kind]]
        for label, count in counts.items()
    }
    return [
        f"{split}: no {' and no '.join(kinds)} row of {label!r}" for label, kinds in missing.items() if kinds
    ]


def _unmet(settings: DataSettings, tally: Tally) -> list[str]:
    """Return a warning for each positive class that no row has: its name may be misspelt."""
    readers = tally.readers.values()
    names = [name for name in settings.positive_values if not any(reader.met(name) for reader in readers)]
    return [f"no row has the class {name!r} (--positive-values)" for name in names]


def build_manifest(
    plan: Plan,
    columns: ColumnPlan,
    settings: DataSettings,
    tally: Tally,
    duplicates: Duplicates,
    assigned: npt.NDArray[np.int8],
    codes: npt.NDArray[np.int8],
    writers: dict[str, RowWriter],
) -> dict[str, Any]:
    """Return the manifest; plain values only, and no time of day: the same input gives the same bytes.

    Args:
        assigned: int8 of shape (n,): each row's split, -1 where dropped.
        codes: int8 of shape (n, L): labels of all rows.
    """
    labels = columns.labels
    by_split = {name: codes[assigned == index] for index, name in enumerate(SPLIT_NAMES)}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "gkiller_version": __version__,
        "source": " + ".join(part.reader.name for part in plan.parts),
        "sources": _source_entries(plan, columns, tally),
        "synthetic": any(part.info.get("synthetic", False) for part in plan.parts),
        "licence": [f"{known.name}: {known.licence}" for known in known_of(plan.parts)] or [UNSTATED_LICENCE],
        "labels": list(labels),
        "label_kinds": {label: reader.kind for label, reader in tally.readers.items()},
        "class_names": {
            name: code
            for reader in tally.readers.values()
            for name, code in sorted(reader.class_names.items())
        },
        "cutoff": settings.cutoff,
        "weighted": columns.weighted,
        "renames": columns.renames,
        "guesses": columns.guesses,
        "notes": [*plan.notes, *columns.notes, *(note for part in plan.parts for note in part.reader.notes)],
        "warnings": [*split_warnings(labels, by_split), *_unmet(settings, tally)],
        "rows_read": sum(tally.read),
        "rows_kept": int(np.count_nonzero(assigned >= 0)),
        "dropped": {
            "bad": dict(sorted(tally.bad.items())),
            "exact_duplicates": duplicates.exact,
            "folded_duplicates": duplicates.folded,
            "overlap": duplicates.overlap,
        },
        "bad_row_examples": tally.examples,
        "conflicts": duplicates.conflicts,
        "splits": _split_entries(plan, labels, by_split, writers),
        "class_weights": class_weights(label_counts(labels, by_split[SPLIT_NAMES[TRAIN]])),
        "settings": settings.model_dump(mode="json", exclude={"sample_size", "source"}),
    }


def _split_entries(
    plan: Plan,
    labels: Sequence[str],
    by_split: dict[str, npt.NDArray[np.int8]],
    writers: dict[str, RowWriter],
) -> dict[str, Any]:
    given = {part.split for part in plan.parts}
    return {
        name: {
            "file": writer.path.name,
            "rows": writer.rows,
            "origin": _origin(name, given),
            "labels": label_counts(labels, by_split[name]),
            "fingerprint": writer.fingerprint(),
            "sha256": sha256_file(writer.path),
        }
        for name, writer in writers.items()
    }


def _origin(name: str, given: set[str]) -> str:
    """Say whether a split is as the sources have it."""
    if name not in given:
        return "split off train"
    whole = name != "train" or given >= set(SPLIT_NAMES)
    return "given" if whole else "given, less what was split off"


def _source_entries(plan: Plan, columns: ColumnPlan, tally: Tally) -> list[dict[str, Any]]:
    entries = []
    for part, chosen, rows in zip(plan.parts, columns.parts, tally.read, strict=True):
        entry: dict[str, Any] = {"name": part.reader.name, "split": part.split, **part.info, "rows": rows}
        entry["columns"] = {
            "text": chosen.text,
            "labels": chosen.labels,
            "id": chosen.id,
            "weight": chosen.weight,
        }
        if part.path is not None:
            entry["bytes"] = part.path.stat().st_size
            entry["sha256"] = sha256_file(part.path)
        entries.append(entry)
    return entries
