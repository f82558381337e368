"""The options of ``gkiller predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

INPUT, OUTPUT, MODEL = "Input", "Output", "Model"
TextArgument = Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Comments to score.")]
TextFlag = Annotated[
    bool,
    typer.Option(
        "--text", help="TEXT is a comment even where a file has that name; so it is after --.", rich_help_panel=INPUT
    ),
]
InputOption = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="Text with a comment a line, CSV, TSV, JSON or Parquet, also .gz, or a pipe; - is standard "
        "input, which is read without it and without TEXT, too.",
        rich_help_panel=INPUT,
    ),
]
InputFormatOption = Annotated[
    Literal["auto", "txt", "csv", "tsv", "jsonl", "parquet"],
    typer.Option(
        "--input-format", help="auto goes by the file's name, and on a pipe by the first line.", rich_help_panel=INPUT
    ),
]
TextColumnOption = Annotated[
    str | None,
    typer.Option(
        "--text-column",
        metavar="NAME",
        help="Column that holds the comment; guessed from usual names when not given. a.b names the field b "
        "within a of JSON and Parquet.",
        rich_help_panel=INPUT,
    ),
]
IdColumnOption = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        metavar="NAME",
        help="Column that identifies a comment, repeated in the output; guessed when not given.",
        rich_help_panel=INPUT,
    ),
]
OnErrorOption = Annotated[
    Literal["fail", "skip"],
    typer.Option(
        "--on-error", help="A bad row: end with an error, or leave the row out and count it.", rich_help_panel=INPUT
    ),
]
FormatOption = Annotated[
    Literal["jsonl", "csv", "parquet"] | None,
    typer.Option(
        "--format",
        "-f",
        help="Format of the output; goes by the name of --output, else jsonl, or a table for TEXT on a terminal.",
        rich_help_panel=OUTPUT,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write there instead of to standard output; .gz packs it. The file appears when it is whole.",
        rich_help_panel=OUTPUT,
    ),
]
ResumeFlag = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with a job that was stopped: with --output, or in a file that JSON Lines are appended to "
        "with >>. The file ends with the same bytes as if nothing had happened.",
        rich_help_panel=OUTPUT,
    ),
]
ForceFlag = Annotated[
    bool, typer.Option("--force", help="Replace the output file, or an unfinished job.", rich_help_panel=OUTPUT)
]
OnlyFlaggedFlag = Annotated[
    bool, typer.Option("--only-flagged", help="Leave out comments that are not flagged.", rich_help_panel=OUTPUT)
]
WithTextFlag = Annotated[
    bool, typer.Option("--with-text", help="Repeat the comment in the output.", rich_help_panel=OUTPUT)
]
KeepColumnsFlag = Annotated[
    bool,
    typer.Option(
        "--keep-columns",
        help="Repeat the input's other columns in the output, after the scores. One with the name of another "
        "column of the output gets the prefix input_.",
        rich_help_panel=OUTPUT,
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="A,B,...",
        help="Repeat these columns of the input, as --keep-columns does with all; repeatable.",
        rich_help_panel=OUTPUT,
    ),
]
CsvSafeFlag = Annotated[
    bool,
    typer.Option(
        "--csv-safe",
        help="For CSV that a spreadsheet opens: write an apostrophe before text that begins with = + - @, a "
        "tab or a line break, which could be run as a formula.",
        rich_help_panel=OUTPUT,
    ),
]
ExplainFlag = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Say what each word adds to the log-odds of each label: a pass of the model per word.",
        rich_help_panel=OUTPUT,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="An exported model directory, a run that has one, or the name of an installed model, such as "
        "'default'; without it the model that came with gkiller.",
        rich_help_panel=MODEL,
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "int8", "fp32", "fp16"],
    typer.Option(
        "--precision", help="Which exported graph; auto takes int8, else fp32, else fp16.", rich_help_panel=MODEL
    ),
]
ThresholdOption = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        "-t",
        metavar="[LABEL=]X",
        help="Flag scores from X on, for one label or all, instead of the stored threshold; repeatable.",
        rich_help_panel=MODEL,
    ),
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--labels",
        metavar="LABEL,...",
        help="The labels that decide whether a comment is flagged, instead of those that the model names, or "
        "all; the scores of the others are written as well.",
        rich_help_panel=MODEL,
    ),
]
LongTextOption = Annotated[
    Literal["window", "truncate"],
    typer.Option(
        "--long-text",
        help="Comments longer than the model reads at once: overlapping windows, of which the highest score "
        "counts, or their beginning alone, which is said in the output.",
        rich_help_panel=MODEL,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="CPU threads; one per core by default.", rich_help_panel=MODEL),
]
BatchSizeOption = Annotated[
    int,
    typer.Option(
        "--batch-size", min=1, max=65536, help="Rows that are read, scored and written together.", rich_help_panel=MODEL
    ),
]
