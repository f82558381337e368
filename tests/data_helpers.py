"""Files that data tests read, and short cuts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from gkiller.settings import DataSettings

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"

plain_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)  # type: ignore[arg-type]
"""Any text a comment can hold: no surrogates, no NULs."""

comments = plain_text.filter(lambda text: bool(text.strip()) and text not in ("nan", "NaN"))


def write_csv(path: Path, rows: Any, header: Any = ("text", "label"), **options: Any) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, **options)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def many(n: int = 60, positive_every: int = 4) -> list[tuple[str, int]]:
    """n different comments, one in ``positive_every`` labelled 1."""
    return [(f"comment number {i}", int(i % positive_every == 0)) for i in range(n)]


def settings(**values: Any) -> DataSettings:
    return DataSettings(**values)


def read_rows(directory: Path, split: str) -> Any:
    return pq.read_table(directory / f"{split}.parquet").to_pylist()


def all_rows(directory: Path) -> list[Any]:
    return [row for name in ("train", "valid", "test") for row in _rows_or_none(directory, name)]


def _rows_or_none(directory: Path, split: str) -> list[Any]:
    return read_rows(directory, split) if (directory / f"{split}.parquet").exists() else []
