"""A look at data before training: label rates, lengths, duplicates, label conflicts and overlap."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gkiller.data.columns import plan_columns
from gkiller.data.dataset import SPLIT_NAMES, Dataset
from gkiller.data.labels import UNKNOWN
from gkiller.data.load import read_prepared
from gkiller.data.manifest import MANIFEST_NAME, class_warnings, label_counts
from gkiller.data.readers import BATCH_ROWS
from gkiller.data.rows import clean_rows, exact_hash, folded_hash, new_tally
from gkiller.data.sources import resolve_sources
from gkiller.data.splits import find_duplicates
from gkiller.errors import EmptyDataError, OutputError, SettingsError
from gkiller.private import matplotlib_apart
from gkiller.settings import DataSettings
from gkiller.storage.files import write_bytes
from gkiller.wording import Progress, visible

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
HISTOGRAM_BINS = 32
"""Bins of the length histogram, from 0 to twice the cut; longer comments are in the last one."""

Lengths = Callable[[list[str]], list[int]]


@dataclass
class _Measures:
    """What is kept of the rows of one split, batch by batch."""

    lengths: list[npt.NDArray[np.int32]] = field(default_factory=list)
    characters: list[npt.NDArray[np.int32]] = field(default_factory=list)
    codes: list[npt.NDArray[np.int8]] = field(default_factory=list)
    weights: list[npt.NDArray[np.float64]] = field(default_factory=list)
    folded: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    exact: list[npt.NDArray[np.uint64]] = field(default_factory=list)


@dataclass(frozen=True)
class _Rows:
    """A batch of rows of one split, with digests as in ``CleanBatch``."""

    split: str
    texts: list[str]
    codes: npt.NDArray[np.int8]
    weights: npt.NDArray[np.float64]
    folded: npt.NDArray[np.uint64]
    exact: npt.NDArray[np.uint64]


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
        Plain values: ``source``, ``labels``, ``unit``, ``max_length``, ``bad_rows``, ``notes``, ``warnings``
        of labels that lack a class; ``splits`` with per split ``rows``, ``labels``, ``lengths``,
        ``characters``, ``duplicates`` and ``histogram``; ``overlap`` with, for each ordered pair of splits,
        the rows of the one whose folded text stands in the other; and ``conflicting_texts``, folded texts
        that bear both values of a label.

    Raises:
        DataError: the source cannot be read, or there are no rows.
        ModelError: the tokenizer cannot be read, or is not one that the model could use.
    """
    settings = settings or DataSettings()
    lengths = _length_counter(tokenizer_path, max_length)
    facts: dict[str, Any] = {"notes": [], "bad_rows": {}}
    measures: dict[str, _Measures] = {}
    for rows in _rows_of(source, settings, facts, progress):
        kept = measures.setdefault(rows.split, _Measures())
        kept.lengths.append(np.array(lengths(rows.texts), dtype=np.int32))
        kept.characters.append(np.array([len(text) for text in rows.texts], dtype=np.int32))
        kept.codes.append(rows.codes)
        kept.weights.append(rows.weights)
        kept.folded.append(rows.folded)
        kept.exact.append(rows.exact)
    if not measures:
        raise EmptyDataError("there are no good rows", where=str(facts["source"]), remedy="see the bad rows")
    labels = facts["labels"]
    overlap, conflicts = _across(measures)
    splits = {name: _summary(measures[name], labels, max_length) for name in SPLIT_NAMES if name in measures}
    return {
        "source": facts["source"],
        "labels": list(labels),
        "unit": "tokens" if tokenizer_path is not None else "words",
        "tokenizer": str(tokenizer_path) if tokenizer_path is not None else None,
        "max_length": max_length,
        "notes": facts["notes"],
        "bad_rows": dict(facts["bad_rows"]),
        "warnings": [
            line for name, split in splits.items() for line in class_warnings(name, split["labels"])
        ],
        "splits": splits,
        "overlap": overlap,
        "conflicting_texts": conflicts,
    }


def _rows_of(
    source: str | Path | Dataset, settings: DataSettings, facts: dict[str, Any], progress: Progress | None
) -> Iterator[_Rows]:
    """Yield the rows of any kind of source; ``facts`` receives its name, labels, notes and bad rows."""
    if not isinstance(source, Dataset) and (Path(source).expanduser() / MANIFEST_NAME).is_file():
        facts["source"] = str(source)
        source = read_prepared(Path(source).expanduser())
    if isinstance(source, Dataset):
        facts.setdefault("source", str(source.manifest.get("source", "data set")))
        facts["labels"] = source.labels
        yield from _dataset_rows(source)
        return
    plan = resolve_sources([str(source)], revision=settings.revision)
    skipping = settings.model_copy(update={"on_error": "skip"})
    columns = plan_columns(plan.parts, skipping)
    tally = new_tally(plan.parts, columns, skipping)
    notes = [*plan.notes, *columns.notes, *columns.guesses]
    facts.update(source=str(source), labels=columns.labels, bad_rows=tally.bad, notes=notes)
    for batch in clean_rows(plan.parts, columns, skipping, tally, progress):
        split = plan.parts[batch.part].split
        yield _Rows(split, batch.texts, batch.labels, batch.weights, batch.folded, batch.exact)
    notes += [note for part in plan.parts for note in part.reader.notes]


def _dataset_rows(dataset: Dataset) -> Iterator[_Rows]:
    for name, split in dataset.splits.items():
        codes = np.where(np.isnan(split.labels), UNKNOWN, split.labels).astype(np.int8)
        for start in range(0, len(split), BATCH_ROWS):
            texts = split.texts[start : start + BATCH_ROWS]
            stop = start + len(texts)
            yield _Rows(
                split=name,
                texts=texts,
                codes=codes[start:stop],
                weights=split.weights[start:stop],
                folded=np.frombuffer(b"".join(map(folded_hash, texts)), dtype="<u8").reshape(-1, 2),
                exact=np.frombuffer(b"".join(map(exact_hash, texts)), dtype="<u8"),
            )


def _length_counter(path: Path | None, max_length: int) -> Lengths:
    """Return a function from comments to their lengths, in tokens or, without a tokenizer, in words."""
    if path is None:
        return lambda texts: [len(text.split()) for text in texts]
    from gkiller.tokens.batches import tokenize
    from gkiller.tokens.wordpiece import read_tokenizer

    tokenizer = read_tokenizer(Path(path), max_length)
    tokenizer.no_truncation()
    return lambda texts: tokenize(tokenizer, texts).lengths.tolist()


def _summary(measures: _Measures, labels: tuple[str, ...], max_length: int) -> dict[str, Any]:
    """Return the plain values of one split."""
    codes = np.concatenate(measures.codes)
    weights = np.concatenate(measures.weights)
    lengths = np.concatenate(measures.lengths)
    folded, exact = np.concatenate(measures.folded), np.concatenate(measures.exact)
    duplicates = find_duplicates(folded, exact, np.zeros(len(exact), dtype=np.int8), codes)
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
        "characters": _quantiles(np.concatenate(measures.characters)),
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


def _across(measures: dict[str, _Measures]) -> tuple[dict[str, int], int]:
    """Return the overlap of each ordered pair of splits, and the texts whose labels conflict anywhere."""
    names = [name for name in SPLIT_NAMES if name in measures]
    folded = np.concatenate([digest for name in names for digest in measures[name].folded])
    exact = np.concatenate([digest for name in names for digest in measures[name].exact])
    codes = np.concatenate([part for name in names for part in measures[name].codes])
    everything = find_duplicates(folded, exact, np.zeros(len(exact), dtype=np.int8), codes)
    _, texts = np.unique(folded, axis=0, return_inverse=True)
    texts = texts.reshape(-1)
    sizes = [sum(map(len, measures[name].exact)) for name in names]
    by_split = dict(zip(names, np.split(texts, np.cumsum(sizes)[:-1]), strict=True))
    overlap = {
        f"{one} in {other}": int(np.count_nonzero(np.isin(by_split[one], by_split[other])))
        for one, other in permutations(names, 2)
    }
    return overlap, everything.conflicting_groups


# What is written about the file itself: the program's name, but no date, so that the bytes stay the same.
METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": "gkiller"},
    ".svg": {"Creator": "gkiller", "Date": None},
    ".pdf": {"Creator": "gkiller", "CreationDate": None},
}
"""The formats of a plot, by suffix."""


def check_plot(path: Path) -> None:
    """Refuse a plot's name before any work is done for it.

    Raises:
        SettingsError: its suffix names no format that a plot can have.
        OutputError: its folder is not there.
    """
    if path.suffix.lower() not in METADATA:
        what = f"a plot cannot be {path.suffix!r}" if path.suffix else "the plot's name has no suffix"
        stem = path.with_suffix("") if path.name else Path("plot")
        remedy = f"name it {stem}.png, {stem}.svg or {stem}.pdf"
        raise SettingsError(what, where=f"--plot {path}", remedy=remedy)
    if not path.parent.is_dir():
        what = f"there is no folder {str(path.parent)!r}"
        raise OutputError(what, where=f"--plot {path}", remedy="make it first, or name another")


def plot_inspection(result: dict[str, Any], path: Path) -> None:
    """Draw the result of :func:`gkiller.data.inspect.inspect` as a PNG, SVG or PDF file, by its suffix.

    Left: the share of positive rows per label and split. Right: how long the comments are, as shares of
    their split, with the model's cut marked; the last bar holds everything longer.

    Raises:
        SettingsError: the suffix names none of these formats.
        OutputError: its folder is not there, or the file cannot be written.
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
