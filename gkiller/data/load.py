"""Prepared directories, and anything that can be prepared, as data sets in memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from gkiller.data.dataset import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    PREPARE_AGAIN,
    SPLIT_NAMES,
    DataManifest,
    Dataset,
    Fingerprint,
    Split,
    read_manifest,
    split_file,
    table_codes,
    table_weights,
)
from gkiller.data.labels import UNKNOWN, canonical_name, label_problem
from gkiller.data.prepare import prepare
from gkiller.data.readers.pipes import is_pipe
from gkiller.data.rows import Reading
from gkiller.data.sources import resolve_sources
from gkiller.errors import ColumnError, EmptyDataError, FormatError, SettingsError
from gkiller.settings import DataSettings
from gkiller.storage.files import sha256_file
from gkiller.wording import Progress, did_you_mean

ALL = "all"


def load_dataset(settings: DataSettings, *, cache: Path, progress: Progress | None = None) -> Dataset:
    """Return the data set that ``settings.source`` names.

    The embedded sample and prepared directories are read as they are. Anything else is first prepared into
    a folder of ``cache``, named by the digest of its files and the settings, and read from there the next
    time. Labels named in the settings are selected; ``settings.sample_size`` shortens the train split.

    Raises:
        DataError: as ``prepare`` and `read_prepared` raise.
        SettingsError: as `check_settings` raises.
    """
    path = Path(settings.source).expanduser()
    if settings.source == "sample":
        from gkiller.data.sample import sample_dataset

        dataset = select_labels(sample_dataset(), settings.label_columns)
    elif (path / MANIFEST_NAME).is_file():
        dataset = read_prepared(path)
        check_settings(settings, dataset.manifest)
        dataset = select_labels(dataset, settings.label_columns)
    else:
        dataset = _load_cached(settings, Path(cache), progress)
    if settings.sample_size is not None and "train" in dataset.splits:
        train = dataset.split("train").sample(settings.sample_size, settings.split_seed)
        dataset = Dataset(dataset.labels, {**dataset.splits, "train": train}, dataset.manifest)
    return dataset


def check_settings(settings: DataSettings, manifest: DataManifest) -> None:
    """Refuse columns, cutoff or positive classes that are not those of the prepared data, rather than ignore them."""
    used = manifest.get("settings", {})
    plain = settings.model_dump(mode="json")
    for name in ("text_column", "id_column", "weight_column", "cutoff", "positive_values"):
        wanted = plain[name]
        if getattr(settings, name) != DataSettings.model_fields[name].default and wanted != used.get(name):
            what = f"data.{name} is {wanted!r}, but the data were prepared with {used.get(name)!r}"
            remedy = f"leave data.{name} out, or prepare the data again with it"
            raise SettingsError(what, where=settings.source, remedy=remedy)


def _load_cached(settings: DataSettings, cache: Path, progress: Progress | None) -> Dataset:
    if is_pipe(settings.source):  # what is in it is not known before it is read, once
        with TemporaryDirectory(prefix="gkiller-data-") as place:
            prepare(settings, Path(place) / "data", progress=progress)
            return read_prepared(Path(place) / "data")
    folder = cache / _cache_key(settings)
    if (folder / MANIFEST_NAME).is_file():
        try:
            return read_prepared(folder)
        except FormatError:
            shutil.rmtree(folder)  # a broken cache is written anew
    prepare(settings, folder, overwrite=True, progress=progress)
    return read_prepared(folder)


def _cache_key(settings: DataSettings) -> str:
    """Name a folder by the files' content and the settings."""
    values = settings.model_dump(mode="json", exclude={"sample_size"})
    path = Path(settings.source).expanduser()
    if path.exists():
        parts = resolve_sources([settings.source]).parts
        values["files"] = [[part.split, sha256_file(part.path)] for part in parts if part.path is not None]
    text = json.dumps([FORMAT_VERSION, values], sort_keys=True)
    return f"{path.name.split('.')[0] or 'data'}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_prepared(directory: Path) -> Dataset:
    """Read a prepared directory into memory; a `FormatError` where a byte of it has changed."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    labels = tuple(map(str, manifest["labels"]))
    for label in labels:
        if problem := label_problem(label):
            what = f"the label {ascii(label)[:80]} cannot be used: {problem}"
            raise FormatError(what, where=str(directory / MANIFEST_NAME), remedy=PREPARE_AGAIN)
    entries = {name: entry for name in SPLIT_NAMES if (entry := manifest["splits"].get(name))}
    splits = {name: _read_split(split_file(directory, entry), labels) for name, entry in entries.items()}
    return Dataset(labels, splits, manifest)


def _read_split(path: Path, labels: tuple[str, ...]) -> Split:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    ids, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
    return Split(ids, texts, _floats(table_codes(table, labels)), table_weights(table))


def _floats(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Return labels with NaN instead of -1 where they are unknown."""
    return np.where(codes == UNKNOWN, np.float32(np.nan), codes.astype(np.float32))


def known_codes(labels: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Return a split's labels with -1 instead of NaN where they are unknown."""
    return np.where(np.isnan(labels), UNKNOWN, labels).astype(np.int8)


def split_fingerprint(split: Split, labels: tuple[str, ...]) -> str:
    """Return the fingerprint of a split in memory: that of the manifest when nothing has changed."""
    fingerprint = Fingerprint(labels)
    fingerprint.update(split.ids, split.texts, known_codes(split.labels), split.weights)
    return fingerprint.hexdigest()


def texts_digest(texts: Sequence[str]) -> str:
    """Return the SHA-256 of a list of comments."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def select_labels(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """Return the data set with these labels only, by name or alias; with all when none is named.

    Rows of which none of the labels is known are left out.
    """
    if not names:
        return dataset
    chosen = list(dict.fromkeys(name if name in dataset.labels else canonical_name(name) for name in names))
    for name, label in zip(names, chosen, strict=False):
        if label not in dataset.labels:
            where, remedy = dataset.manifest.get("source", ""), did_you_mean(name, dataset.labels)
            raise ColumnError(f"the data set has no label {name!r}", where=where, remedy=remedy)
    if tuple(chosen) == dataset.labels:
        return dataset
    slots = [dataset.labels.index(label) for label in chosen]
    splits = {}
    for name, split in dataset.splits.items():
        labels = split.labels[:, slots]
        known = np.flatnonzero(~np.isnan(labels).all(axis=1))
        splits[name] = Split(split.ids, split.texts, labels, split.weights).take(known)
    return Dataset(tuple(chosen), splits, dataset.manifest)


@dataclass(frozen=True)
class Labelled:
    """Rows of one split."""

    dataset: Dataset
    rows: Split
    name: str  # "train", "valid", "test" or "all"


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
        split: "train", "valid", "test", "all", or None for ``default`` (for "all" with a single file).
        whole_file: whether a single file is taken whole; else it is split as for training.
    """
    names = (*SPLIT_NAMES, ALL)
    if split is not None and split not in names:
        raise SettingsError(f"unknown split {split!r}", where="--split", remedy=did_you_mean(split, names))
    single = Path(settings.source).expanduser().is_file() or is_pipe(settings.source)
    if single and whole_file and split in (None, ALL):
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
    reading = Reading(resolve_sources([settings.source], revision=settings.revision), settings)
    pieces = [Split(one.ids, one.texts, _floats(one.labels), one.weights) for one in reading.rows(progress)]
    if not pieces:
        raise EmptyDataError("there are no rows", where=settings.source, remedy="name another file")
    manifest = DataManifest(source=settings.source, notes=reading.notes())
    return Dataset(reading.columns.labels, {}, manifest), _joined(pieces)


def _joined(pieces: list[Split]) -> Split:
    return Split(
        ids=[i for piece in pieces for i in piece.ids],
        texts=[text for piece in pieces for text in piece.texts],
        labels=np.concatenate([piece.labels for piece in pieces]),
        weights=np.concatenate([piece.weights for piece in pieces]),
    )
