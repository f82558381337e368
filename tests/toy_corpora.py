"""The public corpora that recipes read, in little."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from toy import comment

from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import Labelled

BESIDES = ("severe_toxic", "obscene", "threat", "insult", "identity_hate")
GROUPS = ("gay", "muslim")


def write_corpora(folder: Path, sizes: Mapping[str, int], *, unknown: bool = False) -> Path:
    """Write Parquet files of so many numbered comments, of which every third is rude; return the folder.

    Jigsaw's have all six labels, with ``unknown`` only in every second row, and its test rows weights; the
    comments of suites name a group.
    """
    start = 0
    for name, size in sizes.items():
        numbers = range(start, start + size)
        texts = [comment(number, rude=number % 3 == 0) for number in numbers]
        if name.startswith("suites"):
            texts = [f"{text} {GROUPS[row // 3 % 2]}" for row, text in enumerate(texts)]
        columns: dict[str, object] = {
            "text": pa.array(texts, pa.large_string()),  # as pandas and polars write it
            "label": [int(n % 3 == 0) for n in numbers],
        }
        if name.endswith("jigsaw"):
            six = [None if unknown and n % 2 else int(n % 6 == 0) for n in numbers]
            columns |= dict.fromkeys(BESIDES, six)
        if name == "test/jigsaw":
            columns["weight"] = [0.5 + number % 2 for number in numbers]
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        start += size
    return folder


def comments(truth: list[Any] | np.ndarray[Any, Any], weights: Any = None) -> Labelled:
    truth = np.asarray(truth, dtype=np.float32)
    n = len(truth)
    mass = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    rows = Split([f"r{i}" for i in range(n)], [f"text {i}" for i in range(n)], truth[:, None], mass)
    return Labelled(Dataset(("toxicity",), {}), rows, "test")
