"""Prepared files: canonical Parquet, row fingerprints, manifests, and which folders may be replaced."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller.data.labels import UNKNOWN
from gkiller.errors import OutputError
from gkiller.files import json_text

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
        labels: L label names.
        ids: n identifiers.
        texts: n comments.
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
        path: the file.
        labels: label names.
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
