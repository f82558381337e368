"""The embedded sample: a synthetic corpus of comments, written for gkiller.

Nobody ever posted any of it: tools/make_sample.py made its rows of hand-written frames. Every frame is used
in one split only, so the test split measures generalisation to unseen phrasing.

What the labels mean here:

* ``toxicity``: contempt, hostility or a threat aimed at a person or a group. Harsh words about things,
  about oneself, quoted, denied or among friends are not toxic.
* ``insult``, ``threat``, ``identity_attack``, ``severe_toxicity``: kinds of toxicity; each implies it.
  ``severe_toxicity`` is hatred or a wish of harm, piled up.
* ``obscene``: the comment holds profanity, whoever it is aimed at. It alone does not imply ``toxicity``:
  "holy shit, what a shot" is obscene and friendly. Damn, hell, crap and bloody do not count.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, cast

import numpy as np

from gkiller.assets import asset_path
from gkiller.data.dataset import SPLIT_NAMES, DataManifest, Dataset, Split
from gkiller.data.hub import Part, find_known
from gkiller.data.labels import CANONICAL_LABELS
from gkiller.data.readers import BATCH_ROWS, RawBatch

SAMPLE_SEED = 0
SAMPLE_LABELS = CANONICAL_LABELS


@dataclass(frozen=True)
class SampleRow:
    """One synthetic comment."""

    id: str
    text: str
    labels: dict[str, int]  # 0 or 1 for each of SAMPLE_LABELS
    split: str
    # id of the hand-written template, used in this split only; two ids joined by "+" for a comment of two frames
    frame: str
    kind: str  # category, such as quoted_insult or sarcasm


@cache
def _packaged() -> tuple[SampleRow, ...]:
    rows = []
    with gzip.open(asset_path("sample.jsonl.gz"), "rt", encoding="utf-8") as lines:
        for identifier, text, labels, split, frame, kind in map(json.loads, lines):
            named = dict(zip(SAMPLE_LABELS, labels, strict=True))
            rows.append(SampleRow(identifier, text, named, split, frame, kind))
    return tuple(rows)


def row_text(row: SampleRow) -> str:
    """Return a row as the line of JSON that the package holds."""
    labels = [row.labels[label] for label in SAMPLE_LABELS]
    return json.dumps([row.id, row.text, labels, row.split, row.frame, row.kind], ensure_ascii=False)


def sample_rows() -> list[SampleRow]:
    """Return the sample's rows, about 8,400, in their shuffled order."""
    return list(_packaged())


def sample_dataset() -> Dataset:
    """The sample as a data set; its weights are 1."""
    rows = sample_rows()
    splits = {}
    for name in SPLIT_NAMES:
        part = [row for row in rows if row.split == name]
        labels = np.array([[row.labels[label] for label in SAMPLE_LABELS] for row in part], dtype=np.float32)
        splits[name] = Split([row.id for row in part], [row.text for row in part], labels, np.ones(len(part)))
    return Dataset(SAMPLE_LABELS, splits, cast("DataManifest", sample_manifest(rows)))


def sample_fingerprint(rows: Sequence[SampleRow]) -> str:
    """SHA-256 over all rows in their order: id, text, labels, split, frame and kind."""
    return sha256("".join(f"{row_text(row)}\n" for row in rows).encode()).hexdigest()


def sample_manifest(rows: Sequence[SampleRow]) -> dict[str, Any]:
    """Return what the corpus is, as plain values for JSON."""
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
        "note": "Synthetic: generated from sentences written for gkiller, never posted by anybody. "
        "For trying gkiller out; scores on it say nothing about real comments.",
        "licence": "Apache-2.0",
        "seed": SAMPLE_SEED,
        "labels": list(SAMPLE_LABELS),
        "rows": len(rows),
        "frames": len(_frame_ids(rows)),
        "kinds": dict(sorted(Counter(row.kind for row in rows).items())),
        "splits": splits,
        "fingerprint": sample_fingerprint(rows),
    }


def _frame_ids(rows: Sequence[SampleRow]) -> set[str]:
    return {frame for row in rows for frame in row.frame.split("+")}


class SampleReader:
    """Reads one split of the sample."""

    def __init__(self, split: str) -> None:
        self.name = f"sample ({split})"
        self.total: int | None = None
        self.notes: list[str] = []
        self._split = split

    def columns(self) -> list[str]:
        """Return the column names."""
        return ["id", "text", *SAMPLE_LABELS]

    def batches(self, wanted: Sequence[str]) -> Iterator[RawBatch]:
        """Yield the wanted columns of the split's rows."""
        rows = [row for row in _packaged() if row.split == self._split]
        self.total = len(rows)
        for start in range(0, len(rows), BATCH_ROWS):
            chunk = [{"id": row.id, "text": row.text, **row.labels} for row in rows[start : start + BATCH_ROWS]]
            columns = {name: [row[name] for row in chunk] for name in wanted}
            yield RawBatch(rows=list(range(start + 1, start + 1 + len(chunk))), columns=columns)


def sample_parts() -> list[Part]:
    """Return the sample's three splits."""
    known, info = find_known("sample"), {"kind": "sample", "synthetic": True, "seed": SAMPLE_SEED}
    return [Part(split, SampleReader(split), "sample", known=known, info=dict(info)) for split in SPLIT_NAMES]
