"""``gkiller predict``."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from gkiller.cli.console import emit_json, note, progress, show, stdout
from gkiller.cli.lazy import AFTER_DASHES
from gkiller.cli.options import JsonFlag, label_names, labelled_numbers
from gkiller.cli.predict_options import (
    BatchSizeOption,
    CsvSafeFlag,
    ExplainFlag,
    ForceFlag,
    FormatOption,
    IdColumnOption,
    InputFormatOption,
    InputOption,
    KeepColumnsFlag,
    KeepOption,
    LabelsOption,
    LongTextOption,
    ModelOption,
    OnErrorOption,
    OnlyFlaggedFlag,
    OutputOption,
    PrecisionOption,
    ResumeFlag,
    TextArgument,
    TextColumnOption,
    TextFlag,
    ThreadsOption,
    ThresholdOption,
    WithTextFlag,
)
from gkiller.errors import DataError, SettingsError
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gkiller.inference import Classifier
    from gkiller.inference.bulk.formats import OutputFormat, Writer
    from gkiller.inference.bulk.job import Job, Outcome
    from gkiller.inference.bulk.reading import InputFormat, Keep, Source
    from gkiller.inference.bulk.sinks import Sink


_SUFFIXES: dict[str, OutputFormat] = {
    "": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


def predict(
    context: typer.Context,
    texts: TextArgument = None,
    text: TextFlag = False,
    input_: InputOption = None,
    input_format: InputFormatOption = "auto",
    text_column: TextColumnOption = None,
    id_column: IdColumnOption = None,
    on_error: OnErrorOption = "fail",
    format_: FormatOption = None,
    output: OutputOption = None,
    resume: ResumeFlag = False,
    force: ForceFlag = False,
    only_flagged: OnlyFlaggedFlag = False,
    with_text: WithTextFlag = False,
    keep_columns: KeepColumnsFlag = False,
    keep: KeepOption = None,
    csv_safe: CsvSafeFlag = False,
    explain: ExplainFlag = False,
    model: ModelOption = None,
    precision: PrecisionOption = "auto",
    threshold: ThresholdOption = None,
    labels: LabelsOption = None,
    long_text: LongTextOption = "window",
    threads: ThreadsOption = None,
    batch_size: BatchSizeOption = 2048,
    json: JsonFlag = False,
) -> None:
    """Score comments: arguments, standard input or a file.

    Each comment gets a score in 0..1 per label, and a flag where the score reaches the label's threshold.
    A comment is flagged when any label is, or any of those that --labels names.
    Rows keep their order and carry their number. Files of any length are read in bounded memory. Scores with
    the shipped model, or the exported one that --model names; needs neither torch nor the network.

      gkiller predict "you are kind"
      gkiller predict --model runs/NAME < comments.txt > scored.jsonl
      gkiller predict --input comments.csv --output scored.csv --resume
    """
    from gkiller.inference import load
    from gkiller.inference.bulk.formats import Shape, Shown
    from gkiller.inference.bulk.job import Job, make_writer

    output = None if str(output) in ("-", "/dev/stdout") else output
    direct = texts is not None and output is None and not resume
    _check(json=json, direct=direct, output=output, resume=resume, force=force, form=format_)
    if not (text or context.meta.get(AFTER_DASHES)):
        _refuse_files(texts or [])
    thresholds = _thresholds(threshold or [])
    form, packed = _form(format_, output)
    classifier = load(model, precision=precision, threads=threads)  # before a pipe's first line is waited for
    source = _source(texts, input_, input_format, text_column, id_column, _keep(keep, every=keep_columns))
    shape = Shape(
        classifier.labels,
        classifier.limits(thresholds(classifier)),
        ids=source.has_ids,
        text=with_text,
        only_flagged=only_flagged,
        flag_labels=_deciding(labels, classifier),
        kept=source.kept,
        types=source.types,
        csv_safe=csv_safe,
    )
    writer = make_writer(form, shape, packed=packed, explain=explain)
    job = Job(classifier, shape, long_text, on_error, batch_size, explain)
    if direct and (json or (format_ is None and stdout().is_terminal)):
        _answer(job, texts or [], json=json)
        return
    told = list(source.notes)
    for line in told:
        note(line)
    inputs = _files_read(classifier, texts, input_)
    if output is None and stdout().is_terminal:
        writer = Shown(writer, form)
    sink = _sink(job, writer, form, output, inputs, packed=packed, resume=resume, force=force)
    _bulk(job, source, sink, writer, output, json=json, live=output is None and not resume)
    for line in source.notes[len(told) :]:
        note(line)


def _answer(job: Job, texts: list[str], *, json: bool) -> None:
    """Score a few comments, for a person or as one JSON object."""
    from gkiller.cli.predict_output import draw, flagged_by, values

    found = values(job, texts)
    if json:
        model = job.classifier
        facts = {"model": model.path, "precision": model.precision, "flag_labels": job.shape.deciding}
        emit_json({**facts, "predictions": found})
    elif not found:
        note(f"no comment is flagged{flagged_by(job.shape)}")
    else:
        show(*draw(job, found))


def _bulk(job: Job, source: Source, sink: Sink, writer: Writer, output: Path | None, *, json: bool, live: bool) -> None:
    """Score a source into a sink, and say how it went."""
    from gkiller.cli.predict_output import summary, tell

    started = time.perf_counter()
    with _unfinished(sink):
        outcome = _run(job, source, sink, writer, quiet=output is None and stdout().is_terminal, live=live)
    seconds = time.perf_counter() - started
    tell(job, outcome, seconds, output)
    if json:
        emit_json(summary(job, outcome, seconds, output))


@contextmanager
def _unfinished(sink: Sink) -> Iterator[None]:
    """Say how to go on with a file when what the block does is stopped, or fails."""
    from gkiller.inference.bulk.sinks import FileSink

    try:
        yield
    except (DataError, OSError, KeyboardInterrupt, SystemExit):
        if isinstance(sink, FileSink) and sink.rows_kept:
            how = "--resume instead of --force" if sink.force else "--resume"
            note(f"{counted(sink.rows_kept, 'row')} done: go on with the same command and {how}")
        raise


def _check(*, json: bool, direct: bool, output: Path | None, resume: bool, force: bool, form: str | None) -> None:
    """Refuse flags that do not go together."""
    if json and output is None and not direct:
        raise SettingsError(
            "one JSON object cannot hold a stream",
            where="--json",
            remedy="the default output is a JSON object per line; with --output, --json prints a summary",
        )
    if json and direct and form is not None:
        raise SettingsError("--json and --format contradict each other", where="--json", remedy="drop one of them")
    if resume and output is None and form not in (None, "jsonl"):
        raise SettingsError(
            f"{form} on standard output cannot be gone on with", where="--resume", remedy="use --output FILE"
        )
    if form == "parquet" and output is None:
        raise SettingsError("Parquet goes to a file", where="--format", remedy="name it with --output")
    if resume and force:
        raise SettingsError("--resume and --force contradict each other", where="--resume", remedy="give one")


def _refuse_files(texts: list[str]) -> None:
    """Refuse the name of a file that is given as a comment."""
    for text in texts:
        if os.path.isfile(text):  # noqa: PTH113  # unlike Path.is_file it takes a text of any length
            raise SettingsError(
                f"{text!r} is the name of a file, and would be scored as a comment",
                where="TEXT",
                remedy=f"to score what is in it: --input {shlex.quote(text)}; to score its name: --text",
            )


def _thresholds(given: list[str]) -> Callable[[Classifier], dict[str, float]]:
    """Parse ``X`` and ``LABEL=X``; return what gives the thresholds by label for a classifier."""
    overall, single = labelled_numbers(given, "--threshold")

    def apply(classifier: Classifier) -> dict[str, float]:
        stored = classifier.thresholds
        start = stored if overall is None else dict.fromkeys(stored, overall)
        return {**start, **single}

    return apply


def _deciding(names: list[str] | None, classifier: Classifier) -> tuple[str, ...]:
    """Return the labels that decide whether a comment is flagged."""
    from gkiller.inference.results import deciding_labels

    if names is None:
        return classifier.flag_labels
    return deciding_labels(label_names(names, classifier.labels), classifier.labels, "--labels")


def _form(form: OutputFormat | None, output: Path | None) -> tuple[OutputFormat, bool]:
    """Return the output's format and whether it is packed."""
    suffixes = [suffix.lower() for suffix in output.suffixes] if output is not None else []
    packed = suffixes[-1:] == [".gz"]
    suffix = suffixes[-2:-1] if packed else suffixes[-1:]
    known = form or _SUFFIXES.get("".join(suffix))
    if known is None:
        raise SettingsError(
            f"no format is written to {suffix[0]} files",
            where="--output",
            remedy=f"name the file {', '.join(filter(None, _SUFFIXES))}, or name the format with --format",
        )
    return known, packed


def _keep(given: list[str] | None, *, every: bool) -> Keep:
    """Return the columns to keep: those that --keep names, or all."""
    if given and every:
        raise SettingsError(
            "--keep and --keep-columns contradict each other", where="--keep", remedy="drop one of them"
        )
    return None if every else given or ()


def _source(
    texts: list[str] | None,
    path: Path | None,
    form: InputFormat,
    text_column: str | None,
    id_column: str | None,
    keep: Keep,
) -> Source:
    from gkiller.inference.bulk.reading import from_file, from_stream, from_texts, refuse_keep

    if texts is not None and path is not None:
        raise SettingsError("give TEXT or --input, not both", where="--input", remedy="drop one of them")
    if texts is not None:
        if text_column or id_column or form != "auto":
            raise SettingsError(
                "TEXT has neither columns nor a format", where="TEXT", remedy="these flags are for --input"
            )
        refuse_keep(keep, "TEXT", "a comment given as an argument")
        return from_texts(texts)
    if path is not None:
        return from_file(path, str(path), form, text_column=text_column, id_column=id_column, keep=keep)
    if sys.stdin is None or sys.stdin.isatty():
        raise SettingsError(
            "there is nothing to score",
            where="gkiller predict",
            remedy='give comments: gkiller predict "a comment", --input FILE, or standard input',
        )
    return from_stream(sys.stdin.buffer, form, text_column=text_column, id_column=id_column, keep=keep)


def _sink(
    job: Job,
    writer: Writer,
    form: OutputFormat,
    output: Path | None,
    inputs: list[Path | int],
    *,
    packed: bool,
    resume: bool,
    force: bool,
) -> Sink:
    from gkiller.inference.bulk.sinks import FileSink, StreamSink

    if output is None:
        return StreamSink(sys.stdout.buffer, writer, job.shape.labels, resume, inputs)
    return FileSink(output, writer, job.settings(form, packed=packed), resume, force, inputs)


def _files_read(classifier: Classifier, texts: list[str] | None, path: Path | None) -> list[Path | int]:
    """Return every file that the job reads, which its output must not replace."""
    from pathlib import Path

    read: list[Path | int] = [one for one in Path(classifier.path).rglob("*") if one.is_file()]
    if texts is None:
        read.append(0 if path is None or str(path) == "-" else path)
    return read


def _run(job: Job, source: Source, sink: Sink, writer: Writer, *, quiet: bool, live: bool) -> Outcome:
    """Run the job, with a bar unless the output itself goes to the terminal."""
    from gkiller.inference.bulk.job import run

    if quiet:
        return run(job, source, sink, writer, live=live)
    with progress("scoring") as advance:
        return run(job, source, sink, writer, advance, live=live)
