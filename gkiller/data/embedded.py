"""The embedded sample as a source like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gkiller.data.catalogue import find_known
from gkiller.data.dataset import SPLIT_NAMES
from gkiller.data.labels import CANONICAL_LABELS
from gkiller.data.parts import Part
from gkiller.data.rows import BATCH_ROWS, RawBatch

if TYPE_CHECKING:
    from gkiller.data.sample import SampleRow

SAMPLE_SEED = 0


class _Sample:
    """The sample's rows, generated when first asked for."""

    def __init__(self) -> None:
        self._rows: list[SampleRow] | None = None

    def rows(self, split: str) -> list[SampleRow]:
        if self._rows is None:
            from gkiller.data.sample import sample_rows

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
