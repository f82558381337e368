"""A look at data before training: label rates, lengths, duplicates, label conflicts and overlap."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gkiller.data.dataset import MANIFEST_NAME, SPLIT_NAMES, Dataset
from gkiller.data.labels import UNKNOWN
from gkiller.data.load import known_codes, read_prepared
from gkiller.data.prepare import Duplicates, class_warnings, find_duplicates, label_counts
from gkiller.data.readers import BATCH_ROWS
from gkiller.data.rows import CleanBatch, Reading, digests
from gkiller.data.sources import resolve_sources
from gkiller.errors import EmptyDataError, OutputError, SettingsError
from gkiller.private import matplotlib_apart
from gkiller.settings import DataSettings
from gkiller.storage.files import write_bytes
from gkiller.wording import Progress, visible

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
HISTOGRAM_BINS = 32
"""Bins of the length histogram, from 0 to twice the cut; longer comments are in the last one."""


class _Measures(NamedTuple):
    """What is kept of n rows: lengths, and labels, weights and digests as in ``CleanBatch``."""

    lengths: npt.NDArray[np.int32]
    characters: npt.NDArray[np.int32]
    codes: npt.NDArray[np.int8]
    weights: npt.NDArray[np.float64]
    folded: npt.NDArray[np.uint64]
    exact: npt.NDArray[np.uint64]


def _joined(pieces: Iterable[_Measures]) -> _Measures:
    return _Measures(*map(np.concatenate, zip(*pieces, strict=True)))


@dataclass
class _Source:
    """Rows to measure, each batch with its split, and what is known of them once they were read."""

    name: str
    labels: tuple[str, ...]
    batches: Iterable[tuple[str, CleanBatch]]
    notes: list[str] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)


def inspect(
    source: str | Path | Dataset,
    tokenizer_path: Path | None = None,
    max_length: int = 128,
    *,
    settings: DataSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a data set, a prepared directory, or anything that ``prepare`` reads; nothing is written.

    Sources are measured as they are, before duplicates are dropped; bad rows are counted and left out.

    Args:
        tokenizer_path: a ``tokenizer.json`` to count tokens with, [CLS] and [SEP] included; None counts
            words between white space instead, and the result says so.
        max_length: longest comment the model reads, in the same unit.

    Returns:
        Plain values. ``splits`` holds per split its rows, labels, lengths, duplicates and histogram;
        ``overlap``, for each ordered pair of splits, the rows of the one whose folded text is in the other;
        ``conflicting_texts`` counts the folded texts that have both values of a label.
    """
    lengths = _length_counter(tokenizer_path, max_length)
    found = _open(source, settings or DataSettings(), progress)
    pieces: dict[str, list[_Measures]] = {}
    for split, batch in found.batches:
        counts = np.array(lengths(batch.texts), dtype=np.int32)
        characters = np.array([len(text) for text in batch.texts], dtype=np.int32)
        measures = _Measures(counts, characters, batch.labels, batch.weights, batch.folded, batch.exact)
        pieces.setdefault(split, []).append(measures)
    if not pieces:
        raise EmptyDataError("there are no good rows", where=found.name, remedy="see the bad rows")
    parts = {name: _joined(pieces.pop(name)) for name in SPLIT_NAMES if name in pieces}
    splits = {name: _summary(part, found.labels, max_length) for name, part in parts.items()}
    return {
        "source": found.name,
        "labels": list(found.labels),
        "unit": "tokens" if tokenizer_path is not None else "words",
        "tokenizer": str(tokenizer_path) if tokenizer_path is not None else None,
        "max_length": max_length,
        "notes": found.notes,
        "bad_rows": dict(found.bad),
        "warnings": [line for name, split in splits.items() for line in class_warnings(name, split["labels"])],
        "splits": splits,
        "overlap": _overlap(parts),
        "conflicting_texts": _duplicates(_joined(parts.values())).conflicting_groups,
    }


def _open(source: str | Path | Dataset, settings: DataSettings, progress: Progress | None) -> _Source:
    name = source.manifest.get("source", "data set") if isinstance(source, Dataset) else str(source)
    if not isinstance(source, Dataset) and (Path(source).expanduser() / MANIFEST_NAME).is_file():
        source = read_prepared(Path(source).expanduser())
    if isinstance(source, Dataset):
        return _Source(name, source.labels, _dataset_rows(source))
    plan = resolve_sources([name], revision=settings.revision)
    reading = Reading(plan, settings.model_copy(update={"on_error": "skip"}))
    columns = reading.columns
    notes = [*plan.notes, *columns.notes, *columns.guesses]

    def batches() -> Iterator[tuple[str, CleanBatch]]:
        for batch in reading.rows(progress):
            yield plan.parts[batch.part].split, batch
        notes.extend(reading.notes())

    return _Source(name, columns.labels, batches(), notes, reading.bad)


def _dataset_rows(dataset: Dataset) -> Iterator[tuple[str, CleanBatch]]:
    for name, split in dataset.splits.items():
        for start in range(0, len(split), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            ids, texts, codes = split.ids[rows], split.texts[rows], known_codes(split.labels[rows])
            yield name, CleanBatch(0, ids, texts, codes, split.weights[rows], *digests(texts))


def _length_counter(path: Path | None, max_length: int) -> Callable[[list[str]], list[int]]:
    """Return a function from comments to their lengths, in tokens or, without a tokenizer, in words."""
    if path is None:
        return lambda texts: [len(text.split()) for text in texts]
    from gkiller.tokens.batches import tokenize
    from gkiller.tokens.wordpiece import read_tokenizer

    tokenizer = read_tokenizer(Path(path), max_length)
    tokenizer.no_truncation()
    return lambda texts: tokenize(tokenizer, texts).lengths.tolist()


def _summary(measures: _Measures, labels: tuple[str, ...], max_length: int) -> dict[str, Any]:
    codes, weights, lengths = measures.codes, measures.weights, measures.lengths
    duplicates = _duplicates(measures)
    counts = label_counts(labels, codes)
    if not (weights == 1.0).all():
        for position, label in enumerate(labels):
            known = codes[:, position] != UNKNOWN
            total = float(weights[known].sum())
            positive = float(weights[codes[:, position] == 1].sum())
            counts[label]["weighted_rate"] = positive / total if total else None
    edges = np.linspace(0, 2 * max_length, HISTOGRAM_BINS + 1)
    histogram, _ = np.histogram(np.minimum(lengths, 2 * max_length), bins=edges)
    return {
        "rows": len(codes),
        "labels": counts,
        "lengths": {**_quantiles(lengths), "truncated_share": float(np.mean(lengths > max_length))},
        "characters": _quantiles(measures.characters),
        "duplicates": {
            "exact": duplicates.exact,
            "folded": duplicates.folded,
            "conflicting_texts": duplicates.conflicting_groups,
        },
        "histogram": {"edges": edges.tolist(), "counts": histogram.tolist()},
    }


def _quantiles(values: npt.NDArray[np.int32]) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    named = {f"p{round(100 * q)}": float(value) for q, value in zip(QUANTILES, found, strict=True)}
    return {"mean": float(values.mean()), **named, "max": float(values.max())}


def _duplicates(rows: _Measures) -> Duplicates:
    """Find duplicates as if all rows were in one split."""
    return find_duplicates(rows.folded, rows.exact, np.zeros(len(rows.exact), dtype=np.int8), rows.codes)


def _overlap(parts: dict[str, _Measures]) -> dict[str, int]:
    """Count, for each ordered pair of splits, the rows of the one whose text is in the other."""
    _, texts = np.unique(np.concatenate([part.folded for part in parts.values()]), axis=0, return_inverse=True)
    ends = np.cumsum([len(part.exact) for part in parts.values()])
    by_split = dict(zip(parts, np.split(texts.reshape(-1), ends[:-1]), strict=True))
    return {
        f"{one} in {other}": int(np.count_nonzero(np.isin(by_split[one], by_split[other])))
        for one, other in permutations(parts, 2)
    }


# What is written about the file itself: the program's name, but no date, so that the bytes stay the same.
METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": "gkiller"},
    ".svg": {"Creator": "gkiller", "Date": None},
    ".pdf": {"Creator": "gkiller", "CreationDate": None},
}
"""The formats of a plot, by suffix."""


def check_plot(path: Path) -> None:
    """Refuse a plot's name, for its suffix or its folder, before any work is done for it."""
    if path.suffix.lower() not in METADATA:
        what = f"a plot cannot be {path.suffix!r}" if path.suffix else "the plot's name has no suffix"
        stem = path.with_suffix("") if path.name else Path("plot")
        remedy = f"name it {stem}.png, {stem}.svg or {stem}.pdf"
        raise SettingsError(what, where=f"--plot {path}", remedy=remedy)
    if not path.parent.is_dir():
        what = f"there is no folder {str(path.parent)!r}"
        raise OutputError(what, where=f"--plot {path}", remedy="make it first, or name another")


def plot_inspection(result: dict[str, Any], path: Path) -> None:
    """Draw the result of `inspect` as a PNG, SVG or PDF file, by its suffix.

    Left: the share of positive rows per label and split. Right: how long the comments are, as shares of
    their split, with the model's cut marked; the last bar holds everything longer.
    """
    check_plot(path)
    with matplotlib_apart():
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    rates, lengths = figure.subplots(1, 2)
    _draw_rates(rates, result)
    _draw_lengths(lengths, result)
    figure.suptitle(_shown(Path(str(result["source"])).name or str(result["source"])), fontsize=11)
    kind = path.suffix.lower()
    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "gkiller"}):  # else an SVG's ids are drawn anew each time
        figure.savefig(drawn, dpi=120, format=kind.removeprefix("."), metadata=METADATA[kind])
    write_bytes(path, drawn.getvalue())


def _shown(text: str) -> str:
    """Return text that matplotlib draws as it is: a dollar sign would begin a formula."""
    return visible(text, lines=False).replace("$", r"\$")


def _draw_rates(axes: Any, result: dict[str, Any]) -> None:
    labels, splits = result["labels"], result["splits"]
    width = 0.8 / len(splits)
    for position, (name, split) in enumerate(splits.items()):
        places = [index + (position - (len(splits) - 1) / 2) * width for index in range(len(labels))]
        shares = [100 * (split["labels"][label]["rate"] or 0.0) for label in labels]
        bars = axes.bar(places, shares, width=width, label=_shown(f"{name} ({split['rows']:,} rows)"))
        axes.bar_label(bars, fmt="%.3g", fontsize=6, padding=1)
    axes.set_xticks(range(len(labels)), list(map(_shown, labels)), rotation=20, ha="right")
    axes.set_ylabel("positive rows, % of known")
    axes.set_title("Label rates", fontsize=10)
    axes.margins(y=0.12)
    axes.legend(fontsize=8)


def _draw_lengths(axes: Any, result: dict[str, Any]) -> None:
    unit, cut = result["unit"], result["max_length"]
    for name, split in result["splits"].items():
        counts = [100 * count / split["rows"] for count in split["histogram"]["counts"]]
        share = 100 * split["lengths"]["truncated_share"]
        axes.stairs(counts, split["histogram"]["edges"], label=_shown(f"{name} ({share:.1f} % over {cut})"))
    axes.axvline(cut, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        f"cut at {cut}", (cut, 1), xycoords=("data", "axes fraction"), xytext=(4, -90),
        textcoords="offset points", fontsize=8, va="top",
    )  # fmt: skip
    axes.set_xlabel(f"{unit} per comment (the last bar holds all longer ones)")
    axes.set_ylabel("rows, % of the split")
    axes.set_title("Lengths", fontsize=10)
    axes.legend(fontsize=8, loc="upper center")
