"""The data sets that gkiller knows by name, and a part: one file or hub split of train, valid or test."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gkiller.data.readers import Reader


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

    def as_dict(self) -> dict[str, Any]:
        """Return the source as plain values, for ``--json``."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


_JIGSAW_LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")

KNOWN_SOURCES = (
    KnownSource(
        name="sample",
        repository="",
        text_column="text",
        label_columns=("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"),
        default_labels=("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"),
        licence="Apache-2.0, synthetic: written for gkiller",
        access="embedded",
        rows="over 5,000",
        description="Synthetic comments from hand-written frames; for trying gkiller out, not for use.",
    ),
    KnownSource(
        name="civil_comments",
        repository="google/civil_comments",
        text_column="text",
        label_columns=(
            "toxicity",
            "severe_toxicity",
            "obscene",
            "threat",
            "insult",
            "identity_attack",
            "sexual_explicit",
        ),
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
        label_columns=("target", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"),
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
    wanted = name.lower()
    for source in KNOWN_SOURCES:
        if wanted == source.name or wanted in source.aliases:
            return source
    return None


def known_names() -> list[str]:
    """Return the names of all known sources."""
    return [source.name for source in KNOWN_SOURCES]


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
