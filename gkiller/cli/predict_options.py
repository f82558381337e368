"""The options of ``gkiller predict``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

_input = partial(typer.Option, rich_help_panel="Input")
_output = partial(typer.Option, rich_help_panel="Output")
_model = partial(typer.Option, rich_help_panel="Model")
TextArgument = Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Comments to score.")]
TextFlag = Annotated[
    bool, _input("--text", help="TEXT is a comment even where a file has that name; so it is after --.")
]
_INPUT = (
    "Text with a comment a line, CSV, TSV, JSON or Parquet, also .gz, or a pipe; - is standard input, which is read "
    "without it and without TEXT, too."
)
InputOption = Annotated[Path | None, _input("--input", "-i", metavar="FILE", help=_INPUT)]
InputFormatOption = Annotated[
    Literal["auto", "txt", "csv", "tsv", "jsonl", "parquet"],
    _input("--input-format", help="auto goes by the file's name, and on a pipe by the first line."),
]
_TEXT_COLUMN = (
    "Column that holds the comment; guessed from usual names when not given. a.b names the field b within a of JSON "
    "and Parquet."
)
TextColumnOption = Annotated[str | None, _input("--text-column", metavar="NAME", help=_TEXT_COLUMN)]
_ID_COLUMN = "Column that identifies a comment, repeated in the output; guessed when not given."
IdColumnOption = Annotated[str | None, _input("--id-column", metavar="NAME", help=_ID_COLUMN)]
OnErrorOption = Annotated[
    Literal["fail", "skip"],
    _input("--on-error", help="A bad row: end with an error, or leave the row out and count it."),
]
_FORMAT = "Format of the output; goes by the name of --output, else jsonl, or a table for TEXT on a terminal."
FormatOption = Annotated[Literal["jsonl", "csv", "parquet"] | None, _output("--format", "-f", help=_FORMAT)]
_OUTPUT = "Write there instead of to standard output; .gz packs it. The file appears when it is whole."
OutputOption = Annotated[Path | None, _output("--output", "-o", metavar="FILE", help=_OUTPUT)]
_RESUME = (
    "Go on with a job that was stopped: with --output, or in a file that JSON Lines are appended to with >>. The file "
    "ends with the same bytes as if nothing had happened."
)
ResumeFlag = Annotated[bool, _output("--resume", help=_RESUME)]
ForceFlag = Annotated[bool, _output("--force", help="Replace the output file, or an unfinished job.")]
OnlyFlaggedFlag = Annotated[bool, _output("--only-flagged", help="Leave out comments that are not flagged.")]
WithTextFlag = Annotated[bool, _output("--with-text", help="Repeat the comment in the output.")]
_KEEP_COLUMNS = (
    "Repeat the input's other columns in the output, after the scores. One with the name of another column of the "
    "output gets the prefix input_."
)
KeepColumnsFlag = Annotated[bool, _output("--keep-columns", help=_KEEP_COLUMNS)]
_KEEP = "Repeat these columns of the input, as --keep-columns does with all; repeatable."
KeepOption = Annotated[list[str] | None, _output("--keep", metavar="A,B,...", help=_KEEP)]
_CSV_SAFE = (
    "For CSV that a spreadsheet opens: write an apostrophe before text that begins with = + - @, a tab or a line "
    "break, which could be run as a formula."
)
CsvSafeFlag = Annotated[bool, _output("--csv-safe", help=_CSV_SAFE)]
_EXPLAIN = "Say what each word adds to the log-odds of each label: a pass of the model per word."
ExplainFlag = Annotated[bool, _output("--explain", help=_EXPLAIN)]
_MODEL = (
    "An exported model directory, a run that has one, or the name of an installed model, such as 'default'; without it "
    "the model that came with gkiller."
)
ModelOption = Annotated[str | None, _model("--model", "-m", metavar="MODEL", help=_MODEL)]
PrecisionOption = Annotated[
    Literal["auto", "int8", "fp32", "fp16"],
    _model("--precision", help="Which exported graph; auto takes int8, else fp32, else fp16."),
]
_THRESHOLD = "Flag scores from X on, for one label or all, instead of the stored threshold; repeatable."
ThresholdOption = Annotated[list[str] | None, _model("--threshold", "-t", metavar="[LABEL=]X", help=_THRESHOLD)]
_LABELS = (
    "The labels that decide whether a comment is flagged, instead of those that the model names, or all; the scores of "
    "the others are written as well."
)
LabelsOption = Annotated[list[str] | None, _model("--labels", metavar="LABEL,...", help=_LABELS)]
_LONG_TEXT = (
    "Comments longer than the model reads at once: overlapping windows, of which the highest score counts, or their "
    "beginning alone, which is said in the output."
)
LongTextOption = Annotated[Literal["window", "truncate"], _model("--long-text", help=_LONG_TEXT)]
ThreadsOption = Annotated[
    int | None, _model("--threads", min=1, max=1024, help="CPU threads; one per core by default.")
]
BatchSizeOption = Annotated[
    int, _model("--batch-size", min=1, max=65536, help="Rows that are read, scored and written together.")
]
