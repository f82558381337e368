"""Score a source into a sink, chunk by chunk, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gkiller.errors import FormatError, ResumeError, SettingsError
from gkiller.inference.bulk.formats import (
    DIGITS,
    Chunk,
    Csv,
    Gzip,
    JsonLines,
    OnError,
    OutputFormat,
    Parquet,
    Shape,
    Writer,
    answers,
    chunked,
)
from gkiller.inference.bulk.reading import Source
from gkiller.inference.bulk.sinks import Mark, Sink
from gkiller.inference.classifier import Classifier
from gkiller.inference.ort import onnxruntime
from gkiller.inference.session import Scored
from gkiller.tokens.batches import CHUNK_ROWS, LongText
from gkiller.wording import Progress

EXAMPLES_KEPT = 5


@dataclass(frozen=True)
class Job:
    """What is done with every row."""

    classifier: Classifier
    shape: Shape
    long_text: LongText = "window"
    on_error: OnError = "fail"
    chunk_rows: int = CHUNK_ROWS
    explain: bool = False  # whether what each word adds is written, too

    def settings(self, form: OutputFormat, *, packed: bool) -> dict[str, Any]:
        """Return everything that the output depends on, apart from the input.

        What becomes of a bad row is not in it: a job that one has ended may go on with "skip", and "fail"
        meets it again, as the rows that are done are read once more.
        """
        return {
            "model": self.classifier.digest,
            "precision": self.classifier.precision,
            "onnxruntime": onnxruntime.__version__,
            "thresholds": dict(self.shape.thresholds),
            "flag_labels": list(self.shape.deciding),
            "format": form,
            "packed": packed,
            "digits": DIGITS,
            "ids": self.shape.ids,
            "text": self.shape.text,
            "only_flagged": self.shape.only_flagged,
            "long_text": self.long_text,
            "chunk_rows": self.chunk_rows,
            "explain": self.explain,
            **({"kept": list(self.shape.kept)} if self.shape.kept else {}),
            **({"csv_safe": True} if self.shape.csv_safe else {}),
        }


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    mark: Mark
    resumed_at: int
    examples: tuple[str, ...]


def run(
    job: Job, source: Source, sink: Sink, writer: Writer, progress: Progress | None = None, *, live: bool = False
) -> Outcome:
    """Score every row of a source, in order.

    Args:
        sink: where the output goes; it says whether an earlier job is gone on with.
        live: whether rows from a pipe are answered as they come; else chunks depend on the rows alone.

    Raises:
        DataError: the source is broken, or a row is bad and bad rows are not skipped.
        ResumeError: the input is not the one of the job that is gone on with.
        OutputError: the output file cannot be written; for a stream it is an OSError.
    """
    with contextlib.closing(sink):
        before = sink.begin()
        mark, examples = before, list[str]()
        todo = _after(chunked(source.rows(), job.chunk_rows, job.on_error, live=live), before, sink)
        pairs = ((chunk, chunk.texts) for chunk in todo)
        for chunk, scored in job.classifier.stream(pairs, long_text=job.long_text, due=lambda chunk: chunk.due):
            found = list(answers(chunk, scored, job.shape))
            if job.explain:
                found = [replace(answer, explanation=job.classifier.explain(answer.text)) for answer in found]
            mark = _advanced(mark, chunk, scored, job.shape)
            sink.write(writer.rows(found), mark)
            examples += chunk.skipped[: EXAMPLES_KEPT - len(examples)]
            if progress is not None:
                progress(chunk.last, source.total)
        sink.finish()
    return Outcome(mark, before.rows, tuple(examples))


def _after(chunks: Iterator[Chunk], before: Mark, sink: Sink) -> Iterator[Chunk]:
    """Yield the chunks that an earlier job did not finish; refuse an input that is not what it read."""
    done, pending = Chunk(0), None
    for chunk in chunks:
        if chunk.last > before.rows:
            pending = chunk
            break
        done = chunk
    if before.digest and done.digest != before.digest:
        what, remedy = "the input is not what the unfinished job read", "give the same input, or start anew: --force"
        raise ResumeError(what, where=f"rows 1 to {before.rows:,}", remedy=remedy)
    if pending is None and done.last < before.rows:
        raise ResumeError(
            f"the output goes up to row {before.rows:,}, the input has {done.last:,}",
            remedy="give the same input, or start anew",
        )
    sink.rewind(done.last + 1)
    if pending is not None:
        yield pending
        yield from chunks


def _advanced(mark: Mark, chunk: Chunk, scored: Scored, shape: Shape) -> Mark:
    return Mark(
        rows=chunk.last,
        scored=mark.scored + len(chunk.rows),
        skipped=mark.skipped + len(chunk.skipped),
        flagged=mark.flagged + int(shape.reached(scored.scores).any(1).sum()),
        windowed=mark.windowed + int((scored.windows > 1).sum()),
        truncated=mark.truncated + int(scored.truncated.sum()),
        digest=chunk.digest,
    )


def make_writer(form: OutputFormat, shape: Shape, *, packed: bool = False, explain: bool = False) -> Writer:
    """Return the writer of a format, or refuse what it cannot do."""
    if explain and form != "jsonl":
        raise SettingsError(f"{form} cannot hold explanations", where="--explain", remedy="use --format jsonl")
    if shape.csv_safe and form != "csv":
        what = f"{form} is no format that a spreadsheet reads formulas from"
        raise SettingsError(what, where="--csv-safe", remedy="use --format csv, or drop --csv-safe")
    if form == "parquet":
        if packed:
            raise SettingsError("Parquet is packed by itself", where="--output", remedy="drop .gz from the file's name")
        try:
            return Parquet(shape)
        except ImportError as error:
            remedy = "pip install pyarrow, or use --format csv or jsonl"
            raise FormatError("Parquet needs pyarrow, which is not installed", remedy=remedy) from error
    writer: Writer = JsonLines(shape) if form == "jsonl" else Csv(shape)
    return Gzip(writer) if packed else writer
