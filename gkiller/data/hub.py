"""The data sets that gkiller knows by name, parts of sources, and the Hugging Face hub through ``datasets``.

The hub is asked once, with a time limit, before ``datasets`` starts: that library would otherwise retry
for minutes. With ``HF_HUB_OFFLINE`` set nothing is asked, and the local cache is read instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gkiller.data.labels import CANONICAL_LABELS, CLASS_NAMES
from gkiller.data.readers import BATCH_ROWS, RawBatch, Reader
from gkiller.data.readers.parquet import arrow_batches
from gkiller.errors import DataError, FormatError, HubUnavailableError, SourceNotFoundError
from gkiller.private import silence_hub


@dataclass(frozen=True)
class KnownSource:
    """A data set with its columns, so that no flag is needed."""

    name: str
    repository: str  # its name on the hub; empty for the embedded sample
    text_column: str
    label_columns: tuple[str, ...]
    default_labels: tuple[str, ...]
    licence: str
    access: str  # embedded, open, or manual when files must be fetched by hand
    rows: str
    description: str
    remedy: str = ""
    aliases: tuple[str, ...] = ()


_JIGSAW_LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")

KNOWN_SOURCES = (
    KnownSource(
        name="sample",
        repository="",
        text_column="text",
        label_columns=CANONICAL_LABELS,
        default_labels=CANONICAL_LABELS,
        licence="Apache-2.0, synthetic: written for gkiller",
        access="embedded",
        rows="over 5,000",
        description="Synthetic comments from hand-written frames; for trying gkiller out, not for use.",
    ),
    KnownSource(
        name="civil_comments",
        repository="google/civil_comments",
        text_column="text",
        label_columns=(*CANONICAL_LABELS, "sexual_explicit"),
        default_labels=("toxicity",),
        licence="CC0-1.0",
        access="open",
        rows="about 2 million",
        description="Comments of the Civil Comments platform; labels are shares of raters (scores).",
        aliases=("google/civil_comments",),
    ),
    KnownSource(
        name="jigsaw",
        repository="google/jigsaw_toxicity_pred",
        text_column="comment_text",
        label_columns=_JIGSAW_LABELS,
        default_labels=("toxic",),
        licence="labels CC0-1.0, text CC BY-SA 3.0 (Wikipedia)",
        access="manual",
        rows="about 160,000",
        description="Wikipedia talk-page comments of the 2018 Jigsaw challenge, six labels of 0 and 1.",
        remedy="download train.csv of the Kaggle challenge 'jigsaw-toxic-comment-classification-challenge', "
        "then: gkiller data prepare train.csv --text-column comment_text --label-columns " + ",".join(_JIGSAW_LABELS),
        aliases=("jigsaw_toxicity_pred", "jigsaw_toxic", "google/jigsaw_toxicity_pred"),
    ),
    KnownSource(
        name="jigsaw_unintended_bias",
        repository="google/jigsaw_unintended_bias",
        text_column="comment_text",
        label_columns=("target", *CANONICAL_LABELS[1:]),
        default_labels=("target",),
        licence="CC0-1.0",
        access="manual",
        rows="about 1.8 million",
        description="Civil Comments with identity annotations, of the 2019 Jigsaw challenge (scores).",
        remedy="download train.csv of the Kaggle challenge "
        "'jigsaw-unintended-bias-in-toxicity-classification', then: gkiller data prepare train.csv "
        "--text-column comment_text --label-columns target; "
        "or use the data set civil_comments, which has the same comments",
        aliases=("google/jigsaw_unintended_bias",),
    ),
)


def find_known(name: str) -> KnownSource | None:
    """Return the known source of that name or alias, in any case, or None."""
    return next((one for one in KNOWN_SOURCES if name.lower() in (one.name, *one.aliases)), None)


SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""How files and hub splits may be named, in lower case."""


@dataclass
class Part:
    """One file or hub split."""

    split: str  # train, valid or test
    reader: Reader
    stem: str
    path: Path | None = None
    known: KnownSource | None = None
    info: dict[str, Any] = field(default_factory=dict)


TIMEOUT_SECONDS = 10.0

_OTHER_WAYS = (
    "download the data set elsewhere and name its files, set HF_ENDPOINT to a mirror, "
    "or set HF_HUB_OFFLINE=1 to use the local cache"
)


class HubReader:
    """Reads one split of a hub data set, a ``datasets.IterableDataset`` or ``datasets.Dataset``."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.name = name
        self.named = False  # whether a class column's numbers are read as the names behind them, whatever those are
        self.notes: list[str] = []
        self._dataset = dataset
        self._columns: list[str] = []
        info = getattr(dataset, "info", None)
        splits = getattr(info, "splits", None) or {}
        known = splits.get(str(getattr(dataset, "split", ""))) if hasattr(splits, "get") else None
        self.total: int | None = getattr(known, "num_examples", None) or None

    def columns(self) -> list[str]:
        """Return the column names; reads one row when the data set does not tell them."""
        if not self._columns:
            with hub_faults(self.name):
                names = self._dataset.column_names
                if not names:
                    names = [name for row in self._dataset.take(1) for name in row]
            self._columns = list(names)
        return self._columns

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of all rows, in order."""
        classes = {name: self._class_values(name) for name in wanted}
        row = 1
        with hub_faults(self.name):
            for table in self._dataset.with_format("arrow").iter(batch_size=BATCH_ROWS // 4):
                for batch in arrow_batches(table, wanted, row):
                    for name, values in classes.items():
                        if values:
                            batch.columns[name] = [values.get(value, value) for value in batch.columns[name]]
                    yield batch
                row += table.num_rows

    def _class_values(self, column: str) -> dict[Any, str]:
        """Return the names behind a class column's numbers when it is known which class is toxic."""
        feature = (self._dataset.features or {}).get(column)
        names = list(getattr(feature, "names", None) or [])
        if names and (self.named or all(name.strip().lower() in CLASS_NAMES for name in names)):
            return dict(enumerate(names))
        if names:
            self.notes.append(f"{self.name}: classes of {column!r} are {', '.join(names)}, read as numbers")
        return {}


def hub_parts(
    repository: str, config: str | None, revision: str | None, known: KnownSource | None, notes: list[str]
) -> list[Part]:
    """Return the splits of the hub data set ``org/name``; none of its rows is read yet.

    Raises:
        HubUnavailableError: the hub cannot be reached or refuses, or files must be fetched by hand.
        SourceNotFoundError: the configuration or a train split is not there.
    """
    name = repository + (f":{config}" if config else "")
    if known is not None and known.access == "manual":
        what = "the hub does not hold this data set's files; they must be fetched by hand"
        raise HubUnavailableError(what, where=name, remedy=known.remedy)
    commit = resolve_commit(repository, revision)
    with hub_faults(name):
        splits = load_splits(repository, config, commit or revision)
    info = {"kind": "hub", "repository": repository, "config": config, "revision": commit or revision}
    parts, left = [], []
    for split, dataset in splits.items():
        target = SPLIT_ALIASES.get(split.lower(), "train" if len(splits) == 1 else "")
        if not target:
            left.append(split)
            continue
        reader = HubReader(dataset, f"{name} ({split})")
        stem = f"{repository.split('/')[-1]}-{split}"
        parts.append(Part(split=target, reader=reader, stem=stem, known=known, info={**info, "split": split}))
    if not any(part.split == "train" for part in parts):
        what = f"the data set has no train split; it has: {', '.join(splits) or 'none'}"
        raise SourceNotFoundError(what, where=name, remedy="save the split you want to a file, and name that")
    if left:
        notes.append(f"{name}: splits not read: {', '.join(left)}")
    return parts


def resolve_commit(repository: str, revision: str | None) -> str | None:
    """Ask the hub, once and with a time limit, which commit is meant; None when offline by choice."""
    from huggingface_hub import HfApi, constants

    silence_hub()
    if constants.HF_HUB_OFFLINE:
        return None
    with hub_faults(repository):
        commit: str | None = HfApi().dataset_info(repository, revision=revision, timeout=TIMEOUT_SECONDS).sha
    return commit


def load_splits(repository: str, config: str | None, revision: str | None) -> dict[str, Any]:
    """Open a data set's splits: as streams, or from the local cache when offline by choice."""
    import datasets
    from huggingface_hub import constants

    silence_hub()
    offline = bool(constants.HF_HUB_OFFLINE)
    loaded = datasets.load_dataset(repository, config, revision=revision, streaming=not offline)
    return dict(loaded)


@contextmanager
def hub_faults(name: str) -> Iterator[None]:
    """Turn what ``datasets`` and ``huggingface_hub`` raise into errors with a remedy."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub import constants, errors

    try:
        yield
    except (*_transport_errors(), errors.HFValidationError, DatasetsError, ValueError, RuntimeError) as error:
        raise _translate(error, name, constants.ENDPOINT) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return what a failed connection raises; huggingface_hub has changed its HTTP library before."""
    modules = (sys.modules.get(library) for library in ("httpx", "httpx2"))
    return (OSError, *(module.HTTPError for module in modules if module is not None))


def _translate(error: Exception, name: str, host: str) -> DataError:
    from huggingface_hub import constants, errors

    kind: type[DataError] = HubUnavailableError
    brief, message, remedy = _brief(error), str(error), _OTHER_WAYS
    if isinstance(error, errors.GatedRepoError):
        what, remedy = "the data set is gated", f"accept its terms at {host}/datasets/{name}, then: hf auth login"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, remedy = "the data set has no such revision", "check --revision"
    elif isinstance(error, errors.RepositoryNotFoundError):
        what = f"{host} knows no such data set, or it is private"
        remedy = "check its name; for a private one: hf auth login"
    elif isinstance(error, errors.HFValidationError):
        kind, what, remedy = SourceNotFoundError, f"not a data set's name: {brief}", "org/name"
    elif "Config name is missing" in message or "BuilderConfig" in message:
        kind, what = SourceNotFoundError, f"which configuration of the data set is meant? {brief}"
        remedy = "name it after a colon, as org/name:config"
    elif "script" in message and isinstance(error, RuntimeError):
        kind, what = FormatError, "the data set is a loading script, which is not run"
        remedy = "try --revision refs/convert/parquet, or download its files and name them"
    elif constants.HF_HUB_OFFLINE:
        what = f"HF_HUB_OFFLINE is set, and the local cache does not hold the data set: {brief}"
        remedy = "unset it, or name local files"
    elif isinstance(error, errors.HfHubHTTPError):
        what = f"{host} refused: {brief}"
    elif isinstance(error, _transport_errors()):
        what = f"{host} cannot be reached: {brief}"
    else:
        kind, what = FormatError, f"the data set cannot be read: {brief}"
    return kind(what, where=name, remedy=remedy)


def _brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300].rstrip(".") or type(error).__name__
