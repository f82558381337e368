"""``gkiller predict``."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from gkiller.cli import predict_options as given
from gkiller.cli.console import emit_json, note, progress, results_table, show, stderr, stdout, warn
from gkiller.cli.lazy import AFTER_DASHES
from gkiller.cli.options import JsonFlag, label_names, labelled_numbers, refuse_any
from gkiller.cli.tables import excerpt
from gkiller.errors import DataError, SettingsError
from gkiller.wording import counted, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from gkiller.inference import Classifier
    from gkiller.inference.bulk.formats import OutputFormat, Shape
    from gkiller.inference.bulk.job import Job, Outcome
    from gkiller.inference.bulk.reading import InputFormat, Keep, Source
    from gkiller.inference.bulk.sinks import Sink

_FORMATS: dict[OutputFormat, tuple[str, ...]] = {
    "jsonl": ("", ".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
    "parquet": (".parquet",),
}
_SUFFIXES = {suffix: form for form, suffixes in _FORMATS.items() for suffix in suffixes}
_EXCERPT = 40
_WORDS_SHOWN = 12


def predict(
    context: typer.Context,
    texts: given.TextArgument = None,
    text: given.TextFlag = False,
    input_: given.InputOption = None,
    input_format: given.InputFormatOption = "auto",
    text_column: given.TextColumnOption = None,
    id_column: given.IdColumnOption = None,
    on_error: given.OnErrorOption = "fail",
    format_: given.FormatOption = None,
    output: given.OutputOption = None,
    resume: given.ResumeFlag = False,
    force: given.ForceFlag = False,
    only_flagged: given.OnlyFlaggedFlag = False,
    with_text: given.WithTextFlag = False,
    keep_columns: given.KeepColumnsFlag = False,
    keep: given.KeepOption = None,
    csv_safe: given.CsvSafeFlag = False,
    explain: given.ExplainFlag = False,
    model: given.ModelOption = None,
    precision: given.PrecisionOption = "auto",
    threshold: given.ThresholdOption = None,
    labels: given.LabelsOption = None,
    long_text: given.LongTextOption = "window",
    threads: given.ThreadsOption = None,
    batch_size: given.BatchSizeOption = 2048,
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
    from gkiller.inference.bulk.job import Job, make_writer, run
    from gkiller.inference.bulk.sinks import FileSink, StreamSink
    from gkiller.inference.results import deciding_labels

    output = None if str(output) in ("-", "/dev/stdout") else output
    direct = texts is not None and output is None and not resume
    refuse_any(
        (
            json and output is None and not direct,
            "one JSON object cannot hold a stream",
            "--json",
            "the default output is a JSON object per line; with --output, --json prints a summary",
        ),
        (json and direct and format_, "--json and --format contradict each other", "--json", "drop one of them"),
        (
            resume and output is None and format_ not in (None, "jsonl"),
            f"{format_} on standard output cannot be gone on with",
            "--resume",
            "use --output FILE",
        ),
        (format_ == "parquet" and output is None, "Parquet goes to a file", "--format", "name it with --output"),
        (resume and force, "--resume and --force contradict each other", "--resume", "give one"),
        (keep and keep_columns, "--keep and --keep-columns contradict each other", "--keep", "drop one of them"),
    )
    if not (text or context.meta.get(AFTER_DASHES)):
        _refuse_files(texts or [])
    overall, single = labelled_numbers(threshold, "--threshold")
    form, packed = _form(format_, output)
    classifier = load(model, precision=precision, threads=threads)  # before a pipe's first line is waited for
    source = _source(texts, input_, input_format, text_column, id_column, None if keep_columns else keep or ())
    stored, known = classifier.thresholds, classifier.labels
    deciding = deciding_labels(label_names(labels, known), known, "--labels") if labels else classifier.flag_labels
    shape = Shape(
        classifier.labels,
        classifier.limits({**(stored if overall is None else dict.fromkeys(stored, overall)), **single}),
        ids=source.has_ids,
        text=with_text,
        only_flagged=only_flagged,
        flag_labels=deciding,
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
    note(*told)
    quiet = output is None and stdout().is_terminal
    writer = Shown(writer, form) if quiet else writer
    inputs = _files_read(classifier, texts, input_)
    if output is None:
        sink: Sink = StreamSink(sys.stdout.buffer, writer, shape.labels, resume, inputs)
    else:
        sink = FileSink(output, writer, job.settings(form, packed=packed), resume, force, inputs)
    started = time.perf_counter()
    # no bar where the output itself goes to the terminal
    with _unfinished(sink), nullcontext(silent) if quiet else progress("scoring") as advance:
        outcome = run(job, source, sink, writer, advance, live=output is None and not resume)
    seconds = time.perf_counter() - started
    _tell(job, outcome, seconds, output)
    if json:
        emit_json(_summary(job, outcome, seconds, output))
    note(*source.notes[len(told) :])


def _answer(job: Job, texts: list[str], *, json: bool) -> None:
    """Score a few comments, for a person or as one JSON object."""
    found = _values(job, texts)
    if json:
        model = job.classifier
        facts = {"model": model.path, "precision": model.precision, "flag_labels": job.shape.deciding}
        emit_json({**facts, "predictions": found})
    elif not found:
        note(f"no comment is flagged{_flagged_by(job.shape)}")
    else:
        show(_labels(found[0], job.shape) if len(found) == 1 else _comments(found))
        show(*(_words(value) for value in found if job.explain))


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


def _refuse_files(texts: list[str]) -> None:
    """Refuse the name of a file that is given as a comment."""
    for text in texts:
        if os.path.isfile(text):  # noqa: PTH113  # unlike Path.is_file it takes a text of any length
            remedy = f"to score what is in it: --input {shlex.quote(text)}; to score its name: --text"
            what = f"{text!r} is the name of a file, and would be scored as a comment"
            raise SettingsError(what, where="TEXT", remedy=remedy)


def _form(form: OutputFormat | None, output: Path | None) -> tuple[OutputFormat, bool]:
    """Return the output's format and whether it is packed."""
    suffixes = [suffix.lower() for suffix in output.suffixes] if output is not None else []
    packed = suffixes[-1:] == [".gz"]
    suffix = suffixes[-2:-1] if packed else suffixes[-1:]
    known = form or _SUFFIXES.get("".join(suffix))
    if known is None:
        remedy = f"name the file {', '.join(filter(None, _SUFFIXES))}, or name the format with --format"
        raise SettingsError(f"no format is written to {suffix[0]} files", where="--output", remedy=remedy)
    return known, packed


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
            what = "TEXT has neither columns nor a format"
            raise SettingsError(what, where="TEXT", remedy="these flags are for --input")
        refuse_keep(keep, "TEXT", "a comment given as an argument")
        return from_texts(texts)
    if path is not None:
        return from_file(path, str(path), form, text_column=text_column, id_column=id_column, keep=keep)
    if sys.stdin is None or sys.stdin.isatty():
        remedy = 'give comments: gkiller predict "a comment", --input FILE, or standard input'
        raise SettingsError("there is nothing to score", where="gkiller predict", remedy=remedy)
    return from_stream(sys.stdin.buffer, form, text_column=text_column, id_column=id_column, keep=keep)


def _files_read(classifier: Classifier, texts: list[str] | None, path: Path | None) -> list[Path | int]:
    """Return every file that the job reads, which its output must not replace."""
    read: list[Path | int] = [one for one in Path(classifier.path).rglob("*") if one.is_file()]
    return read if texts is not None else [*read, 0 if path is None or str(path) == "-" else path]


def _values(job: Job, texts: Sequence[str]) -> list[dict[str, Any]]:
    from gkiller.inference.bulk.formats import DIGITS, explained
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
    return results_table(excerpt(value["text"], _EXCERPT), ("label", "score", "threshold", ""), rows)


def _flagged_by(shape: Shape) -> str:
    return f" by {', '.join(shape.deciding)}" if shape.some_decide else ""


def _comments(found: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for value in found:
        top = _top(value)
        highest, flags = f"{top} {value['scores'][top]:.3f}", Text(", ".join(value["flags"]), style="bold red")
        rows.append((excerpt(value["text"], _EXCERPT), highest, flags))
    return results_table("", ("comment", "highest score", "flagged"), rows)


def _words(value: dict[str, Any]) -> Table:
    """Return the words that move the comment's highest score most."""
    top = _top(value)
    words = sorted(value["explanation"], key=lambda word: -abs(word["contributions"][top]))
    rows = [(word["text"], word["contributions"][top]) for word in words[:_WORDS_SHOWN]]
    caption = f"{len(words) - len(rows)} more words" if len(words) > len(rows) else None
    title = f"{excerpt(value['text'], _EXCERPT)}: what each word adds to the log-odds"
    return results_table(title, ("word", top), rows, caption=caption)


def _top(value: dict[str, Any]) -> str:
    scores: dict[str, float] = value["scores"]
    return max(scores, key=scores.__getitem__)


def _tell(job: Job, outcome: Outcome, seconds: float, output: Path | None) -> None:
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
        scored = f"{counted(mark.scored, 'comment')} scored" + ("" if output is None else f" in {output}")
        flagged = f"{mark.flagged:,} flagged{_flagged_by(job.shape)}"
        note(f"{scored}, {flagged}; {seconds:.1f} s, {rate:,.0f} a second")


def _summary(job: Job, outcome: Outcome, seconds: float, output: Path | None) -> dict[str, Any]:
    """Return a finished job as the one JSON object of the command."""
    return {
        "model": job.classifier.path,
        "precision": job.classifier.precision,
        "output": output,
        "flag_labels": job.shape.deciding,
        **{key: value for key, value in vars(outcome.mark).items() if key != "digest"},
        "resumed_at": outcome.resumed_at,
        "examples": list(outcome.examples),
        "seconds": round(seconds, 3),
    }
