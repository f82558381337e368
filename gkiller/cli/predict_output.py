"""What ``gkiller predict`` shows: tables for a few comments, and the end of a bulk job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from gkiller.cli.console import note, results_table, stderr, warn
from gkiller.inference.bulk.formats import DIGITS, explained
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.table import Table

    from gkiller.inference.bulk.formats import Shape
    from gkiller.inference.bulk.job import Job, Outcome

_EXCERPT = 40
_WORDS_SHOWN = 12


def values(job: Job, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Score a few comments; return each with its scores, flags and explanation, as plain values."""
    from gkiller.tokens.encoding import clean

    found = []
    predictions = job.classifier.predict(
        list(texts), thresholds=dict(job.shape.thresholds), labels=job.shape.deciding, long_text=job.long_text
    )
    for row, (text, prediction) in enumerate(zip(texts, predictions, strict=True), start=1):
        if job.shape.only_flagged and not prediction.flagged:
            continue
        value: dict[str, Any] = {
            "row": row,
            "text": clean(text),
            "flagged": prediction.flagged,
            "flags": [label for label, flagged in prediction.flags.items() if flagged],
            "scores": {label: round(score, DIGITS) for label, score in prediction.scores.items()},
            "windows": prediction.windows,
            "truncated": prediction.truncated,
        }
        if job.explain:
            value["explanation"] = [explained(word) for word in job.classifier.explain(text)]
        found.append(value)
    return found


def draw(job: Job, found: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Yield the tables of a few comments: one comment's labels, or a row a comment; then their words."""
    if len(found) == 1:
        yield _labels(found[0], job.shape)
    else:
        yield _comments(found)
    for value in found:
        if job.explain:
            yield _words(value)


def _labels(value: dict[str, Any], shape: Shape) -> Table:
    rows = [
        (
            label,
            value["scores"][label],
            shape.thresholds[label] if label in shape.deciding else None,
            Text("flagged", style="bold red") if label in value["flags"] else "",
        )
        for label in shape.labels
    ]
    return results_table(_excerpt(value["text"]), ("label", "score", "threshold", ""), rows)


def flagged_by(shape: Shape) -> str:
    """Return which labels decide, as the end of a sentence; nothing where all do."""
    return f" by {', '.join(shape.deciding)}" if shape.some_decide else ""


def _comments(found: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for value in found:
        top = _top(value)
        flags = Text(", ".join(value["flags"]), style="bold red")
        rows.append((_excerpt(value["text"]), f"{top} {value['scores'][top]:.3f}", flags))
    return results_table("", ("comment", "highest score", "flagged"), rows)


def _words(value: dict[str, Any]) -> Table:
    """Return the words that move the comment's highest score most."""
    top = _top(value)
    words = sorted(value["explanation"], key=lambda word: -abs(word["contributions"][top]))
    rows = [(word["text"], word["contributions"][top]) for word in words[:_WORDS_SHOWN]]
    caption = f"{len(words) - len(rows)} more words" if len(words) > len(rows) else None
    title = f"{_excerpt(value['text'])}: what each word adds to the log-odds"
    return results_table(title, ("word", top), rows, caption=caption)


def _top(value: dict[str, Any]) -> str:
    scores: dict[str, float] = value["scores"]
    return max(scores, key=scores.__getitem__)


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 3] + "..."


def tell(job: Job, outcome: Outcome, seconds: float, output: Path | None) -> None:
    """Say on stderr what the user should know of a finished job."""
    mark = outcome.mark
    if outcome.resumed_at:
        note(f"went on after row {outcome.resumed_at:,}")
    if mark.skipped:
        warn(f"{counted(mark.skipped, 'bad row')} left out (--on-error skip), such as:")
        for example in outcome.examples:
            note(f"  {example}")
    size = job.classifier.max_length
    if mark.truncated:
        warn(f"{counted(mark.truncated, 'comment')} of more than {size} tokens read without the end")
    if mark.windowed:
        note(f"{counted(mark.windowed, 'comment')} of more than {size} tokens read in windows")
    if stderr().is_terminal or output is not None:
        rate = (mark.rows - outcome.resumed_at) / max(seconds, 1e-9)
        where = f" in {output}" if output is not None else ""
        flagged = f"{mark.flagged:,} flagged{flagged_by(job.shape)}"
        counts = f"{counted(mark.scored, 'comment')} scored{where}, {flagged}"
        note(f"{counts}; {seconds:.1f} s, {rate:,.0f} a second")


def summary(job: Job, outcome: Outcome, seconds: float, output: Path | None) -> dict[str, Any]:
    """Return a finished job as the one JSON object of the command."""
    counts = {key: value for key, value in vars(replace(outcome.mark)).items() if key != "digest"}
    return {
        "model": job.classifier.path,
        "precision": job.classifier.precision,
        "output": output,
        "flag_labels": job.shape.deciding,
        **counts,
        "resumed_at": outcome.resumed_at,
        "examples": list(outcome.examples),
        "seconds": round(seconds, 3),
    }
