"""A data set in memory, its manifest, and prepared directories: Parquet files of canonical rows, fingerprinted."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, NotRequired, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from gkiller.data.labels import UNKNOWN
from gkiller.errors import FormatError, OutputError, SourceNotFoundError
from gkiller.storage.files import json_text, sha256_file
from gkiller.wording import counted, nearest

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.intp]

SPLIT_NAMES = ("train", "valid", "test")
LEAST_OF_A_KIND = 3
"""From so many rows of the same labels on, at least one goes to each split that is split off train."""


class LabelCount(TypedDict):
    """A label's rows in one split; ``rate`` is the share of positives among the known, None without any."""

    positive: int
    negative: int
    unknown: int
    rate: float | None
    weighted_rate: NotRequired[float | None]


class SplitEntry(TypedDict):
    """A prepared split: its file, what it holds, and the digests of rows and bytes."""

    file: str
    rows: int
    origin: str
    labels: dict[str, LabelCount]
    fingerprint: str
    sha256: str


class DataManifest(TypedDict, total=False):
    """How data came to be, as ``manifest.json`` holds it; of data that were not prepared some keys only."""

    format: str
    format_version: int
    gkiller_version: str
    source: str
    sources: list[dict[str, Any]]
    synthetic: bool
    licence: list[str]
    labels: list[str]
    label_kinds: dict[str, str]
    class_names: dict[str, int]
    cutoff: float
    weighted: bool
    renames: dict[str, str]
    guesses: list[str]
    notes: list[str]
    warnings: list[str]
    rows_read: int
    rows_kept: int
    dropped: dict[str, Any]
    bad_row_examples: list[str]
    conflicts: int
    splits: dict[str, SplitEntry]
    class_weights: dict[str, dict[str, float | None]]
    settings: dict[str, Any]
    augmentations: list[dict[str, Any]]
    digest: str


@dataclass(frozen=True)
class Split:
    """One split: n comments with L labels."""

    ids: list[str]
    texts: list[str]
    labels: NDArray[np.float32]  # float32 of shape (n, L): 0, 1, or NaN where unknown
    weights: FloatArray  # float64 of shape (n,): sample weights, 1.0 when the source had none

    def __post_init__(self) -> None:
        n = len(self.texts)
        if len(self.ids) != n or self.labels.shape[:1] != (n,) or self.weights.shape != (n,):
            raise ValueError(
                f"a split's columns differ in length: {len(self.ids)} ids, {n} texts, "
                f"labels {self.labels.shape}, weights {self.weights.shape}"
            )
        if self.labels.ndim != 2:
            raise ValueError(f"labels must have shape (rows, labels), not {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def any_positive(self) -> NDArray[np.bool_]:
        """Shape (n,): whether any known label of the row is positive."""
        positive: NDArray[np.bool_] = (self.labels == 1.0).any(axis=1)
        return positive

    def take(self, indices: Iterable[int]) -> Split:
        """Return the rows at these positions, in the order given."""
        chosen = np.fromiter(indices, dtype=np.int64)
        return Split(
            ids=[self.ids[i] for i in chosen],
            texts=[self.texts[i] for i in chosen],
            labels=self.labels[chosen],
            weights=self.weights[chosen],
        )

    def sample(self, size: int, seed: int) -> Split:
        """At most ``size`` rows, stratified on "any label positive"; the order is kept.

        The share of positives stays, rounded, but with at least one row of each kind where possible.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if size >= len(self):
            return self
        rng = np.random.default_rng(seed)
        positive = np.flatnonzero(self.any_positive)
        negative = np.flatnonzero(~self.any_positive)
        wanted = round(size * len(positive) / len(self))
        if size >= 2 and len(positive) and len(negative):
            wanted = min(max(wanted, 1), size - 1)
        wanted = max(min(wanted, len(positive)), size - len(negative))
        drawn = [rng.choice(positive, wanted, replace=False), rng.choice(negative, size - wanted, replace=False)]
        return self.take(np.sort(np.concatenate(drawn)))


@dataclass(frozen=True)
class Dataset:
    """Splits that share their labels."""

    labels: tuple[str, ...]
    splits: dict[str, Split]  # by name, among train, valid and test
    manifest: DataManifest = field(default_factory=DataManifest)

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be named, each once: {self.labels!r}")
        for name, split in self.splits.items():
            if name not in SPLIT_NAMES:
                raise ValueError(f"a split is named one of {', '.join(SPLIT_NAMES)}, not {name!r}")
            if split.labels.shape[1] != len(self.labels):
                raise ValueError(f"split {name!r} has {split.labels.shape[1]} label columns, not {len(self.labels)}")

    def split(self, name: str) -> Split:
        """Return the split of that name, or raise a `SourceNotFoundError`."""
        if name in self.splits:
            return self.splits[name]
        there = ", ".join(s for s in SPLIT_NAMES if s in self.splits) or "none"
        source = self.manifest.get("source") or "this data set"
        what, remedy = f"there is no split {name!r}", f"choose one of the splits there are: {there}"
        if self.manifest.get("settings", {}).get(f"{name}_share"):  # it was to be split off
            rows = counted(len(self.splits.get("train", ())), "train row")
            what = f"there are too few rows to split off a split {name!r}: {rows}"
            remedy = f"give at least {LEAST_OF_A_KIND} different comments with {self.labels[0]!r} and "
            remedy += f"{LEAST_OF_A_KIND} without any label, or rows of its own with "
            remedy += f"'gkiller data prepare ... --{name} FILE'"
        raise SourceNotFoundError(what, where=source, remedy=remedy)


MANIFEST_NAME = "manifest.json"
FORMAT = "gkiller-data"
FORMAT_VERSION = 1
ROW_GROUP_ROWS = 8192
ROW_GROUP_BYTES = 32 << 20
PREPARE_AGAIN = "run 'gkiller data prepare' again, with --force to replace it"


def rows_table(
    labels: Sequence[str],
    ids: Sequence[str],
    texts: Sequence[str],
    codes: npt.NDArray[np.int8],
    weights: FloatArray | None,
) -> Any:
    """Return n rows as a pyarrow table; labels ``codes`` of shape (n, L) become null where -1."""
    import pyarrow as pa

    columns = {"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())}
    for label, column in zip(labels, np.ascontiguousarray(codes.T), strict=True):
        columns[label] = pa.array(column, pa.int8(), mask=column == UNKNOWN)
    if weights is not None:
        columns["weight"] = pa.array(weights, pa.float64())
    return pa.table(columns)


def table_codes(table: Any, labels: Sequence[str]) -> npt.NDArray[np.int8]:
    """Return a table's labels, of shape (n, L), -1 where null."""
    codes = np.empty((table.num_rows, len(labels)), dtype=np.int8)
    for position, label in enumerate(labels):
        codes[:, position] = table.column(label).fill_null(UNKNOWN).to_numpy()
    return codes


def table_weights(table: Any) -> FloatArray:
    """Return a table's weights, of shape (n,); 1 where it has none."""
    if "weight" not in table.column_names:
        return np.ones(table.num_rows)
    return np.array(table.column("weight").to_numpy(), dtype=np.float64)


class Fingerprint:
    """SHA-256 over canonical rows, in order; how a file is packed does not matter.

    Hashed are a tag, the label names as JSON, and per row: the lengths of id and text in UTF-8 (two
    little-endian 32-bit numbers), id, text, one signed byte per label (-1 where unknown), and the weight
    (little-endian double, 1.0 where there is none).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._digest = hashlib.sha256(b"gkiller-rows-1\0" + json.dumps(list(labels)).encode())

    def update(
        self, ids: Sequence[str], texts: Sequence[str], codes: npt.NDArray[np.int8], weights: FloatArray
    ) -> None:
        """Add n rows, with labels of shape (n, L)."""
        packed, numbers = codes.astype(np.int8).tobytes(), weights.astype("<f8").tobytes()
        width = codes.shape[1]
        for i, (identifier, text) in enumerate(zip(ids, texts, strict=True)):
            head, body = identifier.encode(), text.encode()
            row = struct.pack("<II", len(head), len(body)) + head + body + packed[i * width : (i + 1) * width]
            self._digest.update(row + numbers[i * 8 : (i + 1) * 8])

    def hexdigest(self) -> str:
        """Return the fingerprint of the rows added so far."""
        return self._digest.hexdigest()


class RowWriter:
    """Writes canonical rows to one Parquet file (zstd), in row groups of one size."""

    def __init__(self, path: Path, labels: Sequence[str], *, fingerprint: bool = True) -> None:
        self.path = path
        self.labels = tuple(labels)
        self.rows = 0
        self._fingerprint = Fingerprint(labels) if fingerprint else None
        self._writer: Any = None
        self._waiting: list[Any] = []

    def add(self, table: Any) -> None:
        """Add a table of canonical rows."""
        if not table.num_rows:
            return
        if self._fingerprint is not None:
            ids, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
            self._fingerprint.update(ids, texts, table_codes(table, self.labels), table_weights(table))
        self.rows += table.num_rows
        self._waiting.append(table)
        full = sum(part.nbytes for part in self._waiting) >= ROW_GROUP_BYTES
        if full or sum(part.num_rows for part in self._waiting) >= ROW_GROUP_ROWS:
            self._flush(everything=full)

    def _flush(self, *, everything: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        stop = table.num_rows if everything else table.num_rows - table.num_rows % ROW_GROUP_ROWS
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table.slice(0, stop), row_group_size=ROW_GROUP_ROWS)
        rest = table.slice(stop)
        self._waiting = [pa.concat_tables([rest]).combine_chunks()] if rest.num_rows else []

    def close(self) -> None:
        """Write what is waiting; without rows there is no file."""
        self._flush(everything=True)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def fingerprint(self) -> str:
        """Return the fingerprint of the rows added so far; empty where none is kept."""
        return self._fingerprint.hexdigest() if self._fingerprint is not None else ""


def read_row_groups(path: Path) -> Iterator[Any]:
    """Yield a file's row groups as pyarrow tables, one at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index)


def manifest_digest(manifest: DataManifest) -> str:
    """Return the SHA-256 of a manifest's content, its own ``digest`` left out."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: Path, manifest: DataManifest) -> None:
    """Write ``manifest.json``, with its digest."""
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST_NAME).write_text(json_text(manifest), encoding="utf-8", newline="\n")


def read_manifest(directory: Path) -> DataManifest:
    """Read a prepared directory's manifest, and check that it is there and has not changed."""
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        there = [entry.name for entry in directory.parent.iterdir()] if directory.parent.is_dir() else []
        close = nearest(directory.name, there, count=1)
        remedy = f"did you mean {str(directory.parent / close[0])!r}?" if close else "check the path"
        raise SourceNotFoundError("no such directory", where=str(directory), remedy=remedy)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        what = f"the directory has no {MANIFEST_NAME}: it is not prepared data"
        remedy = "make one with 'gkiller data prepare SOURCE --out DIR'"
        raise FormatError(what, where=str(directory), remedy=remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(f"the manifest cannot be read: {error}", path) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _refused("this is not the manifest of prepared data", path)
    if manifest.get("format_version") != FORMAT_VERSION:
        what = f"unknown format version {manifest.get('format_version')!r}; this gkiller reads {FORMAT_VERSION}"
        raise FormatError(what, where=str(path), remedy="use the gkiller that wrote it, or prepare the data again")
    found: DataManifest = manifest  # type: ignore[assignment]  # its digest says that gkiller wrote it
    if found.get("digest") != manifest_digest(found):
        raise _refused("the manifest was changed after it was written", path)
    return found


def split_file(directory: Path, entry: SplitEntry) -> Path:
    """Return a split's file, after checking its place and its SHA-256: a manifest may come from anybody."""
    name: object = entry["file"]
    if not isinstance(name, str) or name in ("", ".", "..") or PureWindowsPath(name).name != name:
        what = f"the manifest names the file {str(name)[:80]!r}, which is not in this directory"
        raise _refused(what, directory / MANIFEST_NAME)
    path = directory / name
    if not path.is_file():
        raise _refused("a file named in the manifest is missing", path)
    if sha256_file(path) != entry["sha256"]:
        raise _refused("the file is not the one that was prepared: its SHA-256 differs", path)
    return path


def _refused(what: str, path: Path) -> FormatError:
    return FormatError(what, where=str(path), remedy=PREPARE_AGAIN)


def is_prepared(folder: Path) -> bool:
    """Whether a folder looks like a prepared one: it has a manifest of gkiller's format."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that must not be replaced: with other things, or prepared data unless asked."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError("there is a file of that name", where=str(out), remedy="choose another --out")
    if not any(out.iterdir()) or (overwrite and is_prepared(out)):
        return
    what, remedy = "the folder is not empty and was not written by gkiller", "; it is not replaced even with --force"
    if is_prepared(out):
        what, remedy = "the folder already holds prepared data", ", or replace it with --force"
    raise OutputError(what, where=str(out), remedy=f"choose another --out{remedy}")
