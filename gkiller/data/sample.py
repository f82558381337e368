"""The embedded sample: a synthetic corpus of comments, written for gkiller.

Nothing in it was ever posted by anybody. A seeded generator fills hand-written frames with
fillers, joins two of them now and then, puts situations around, and adds typing noise. Every
frame and every situation is used in one split only, so the test split measures generalisation
to unseen phrasing. Fillers are shared by all splits, by toxic and harmless frames alike.

What the labels mean here:

* ``toxicity``: contempt, hostility or a threat aimed at a person or a group. Harsh words about
  things, about oneself, quoted, denied or among friends are not toxic.
* ``insult``, ``threat``, ``identity_attack``, ``severe_toxicity``: kinds of toxicity; each
  implies it. ``severe_toxicity`` is hatred or a wish of harm, piled up.
* ``obscene``: the comment holds profanity, whoever it is aimed at. It alone does not imply
  ``toxicity``: "holy shit, what a shot" is obscene and friendly. Damn, hell, crap and bloody
  do not count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from gkiller.data.catalogue import Part, find_known
from gkiller.data.dataset import SPLIT_NAMES, Dataset, Split
from gkiller.data.labels import CANONICAL_LABELS
from gkiller.data.readers import BATCH_ROWS, RawBatch
from gkiller.data.sample_maker import SAMPLE_LABELS, SampleRow, generate_rows

__all__ = [
    "ROWS_PER_KIND",
    "SAMPLE_LABELS",
    "SampleRow",
    "sample_dataset",
    "sample_fingerprint",
    "sample_manifest",
    "sample_rows",
]

# Comments per kind. The rare classes are rare, as in real comments.
ROWS_PER_KIND: dict[str, int] = {
    "plain": 5300,
    "praise": 480,
    "complaint": 420,
    "heated_civil": 400,
    "friendly_profanity": 180,
    "quoted_insult": 140,
    "negated_insult": 100,
    "self_mockery": 70,
    "identity_neutral": 360,
    "figurative_violence": 170,
    "insult": 240,
    "profane_insult": 80,
    "severe": 90,
    "threat": 76,
    "identity_attack": 88,
    "hostility": 44,
    "sarcasm": 40,
    "condescension": 40,
    "implied_threat": 40,
    "obfuscated": 36,
}

_NOTE = (
    "Synthetic: generated from sentences written for gkiller, never posted by anybody. "
    "For trying gkiller out; scores on it say nothing about real comments."
)


def sample_rows(seed: int = 0) -> list[SampleRow]:
    """Generate the synthetic corpus.

    Returns:
        Distinct comments (about 8,400) in a shuffled order, the same for a seed on every
        machine and Python version.
    """
    return generate_rows(seed, ROWS_PER_KIND)


def sample_dataset(seed: int = 0) -> Dataset:
    """The synthetic corpus as a dataset, its labels float32 of shape (n, 6), its weights 1."""
    rows = sample_rows(seed)
    splits = {}
    for name in SPLIT_NAMES:
        part = [row for row in rows if row.split == name]
        splits[name] = Split(
            ids=[row.id for row in part],
            texts=[row.text for row in part],
            labels=np.array(
                [[row.labels[label] for label in SAMPLE_LABELS] for row in part], dtype=np.float32
            ),
            weights=np.ones(len(part), dtype=np.float64),
        )
    return Dataset(SAMPLE_LABELS, splits, sample_manifest(rows, seed))


def sample_fingerprint(rows: Sequence[SampleRow]) -> str:
    """SHA-256 over all rows in their order: id, text, labels, split, frame and kind."""
    digest = sha256()
    for row in rows:
        values = [
            row.id,
            row.text,
            [row.labels[label] for label in SAMPLE_LABELS],
            row.split,
            row.frame,
            row.kind,
        ]
        digest.update(json.dumps(values, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def sample_manifest(rows: Sequence[SampleRow], seed: int = 0) -> dict[str, Any]:
    """Say what the corpus is, as plain values for JSON.

    Args:
        rows: what :func:`sample_rows` returned.
    """
    splits = {}
    for name in SPLIT_NAMES:
        part = [row for row in rows if row.split == name]
        positives = {label: sum(row.labels[label] for row in part) for label in SAMPLE_LABELS}
        splits[name] = {
            "rows": len(part),
            "frames": len(_frame_ids(part)),
            "positives": positives,
            "label_rates": {label: count / max(len(part), 1) for label, count in positives.items()},
        }
    return {
        "source": "sample",
        "synthetic": True,
        "note": _NOTE,
        "licence": "Apache-2.0",
        "seed": seed,
        "labels": list(SAMPLE_LABELS),
        "rows": len(rows),
        "frames": len(_frame_ids(rows)),
        "kinds": dict(sorted(Counter(row.kind for row in rows).items())),
        "splits": splits,
        "fingerprint": sample_fingerprint(rows),
    }


def _frame_ids(rows: Sequence[SampleRow]) -> set[str]:
    return {frame for row in rows for frame in row.frame.split("+")}


SAMPLE_SEED = 0


class _Sample:
    """The sample's rows, generated when first asked for."""

    def __init__(self) -> None:
        self._rows: list[SampleRow] | None = None

    def rows(self, split: str) -> list[SampleRow]:
        if self._rows is None:
            self._rows = sample_rows(SAMPLE_SEED)
        return [row for row in self._rows if row.split == split]


class SampleReader:
    """Reads one split of the embedded sample.

    Args:
        split: ``train``, ``valid`` or ``test``: the sample's own, disjoint by frame.
        sample: the rows, shared by the readers of all splits.
    """

    def __init__(self, split: str, sample: _Sample) -> None:
        self.name = f"sample ({split})"
        self.total: int | None = None
        self.notes: list[str] = []
        self._split = split
        self._sample = sample

    def columns(self) -> list[str]:
        """Return the column names."""
        return ["id", "text", *CANONICAL_LABELS]

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of the split's rows."""
        rows = self._sample.rows(self._split)
        self.total = len(rows)
        for start in range(0, len(rows), BATCH_ROWS):
            chunk = rows[start : start + BATCH_ROWS]
            values: dict[str, list[Any]] = {
                "id": [row.id for row in chunk],
                "text": [row.text for row in chunk],
            }
            for label in CANONICAL_LABELS:
                values[label] = [row.labels[label] for row in chunk]
            yield RawBatch(
                rows=list(range(start + 1, start + 1 + len(chunk))),
                columns={name: values[name] for name in wanted},
            )


def sample_parts() -> list[Part]:
    """Return the sample's three splits."""
    known = find_known("sample")
    info = {"kind": "sample", "synthetic": True, "seed": SAMPLE_SEED}
    sample = _Sample()
    return [
        Part(split=split, reader=SampleReader(split, sample), stem="sample", known=known, info=dict(info))
        for split in SPLIT_NAMES
    ]
