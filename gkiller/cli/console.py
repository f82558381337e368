"""Where output goes: results on stdout, everything else on stderr; with ``--json`` one JSON object on stdout.

Progress bars appear only when stderr is a terminal. Colours appear only on a terminal, or where FORCE_COLOR asks for
them; never where NO_COLOR is set (no-color.org), or TERM is "dumb". Control characters are shown escaped.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Self

from rich.console import Console
from rich.text import Text

from gkiller.storage.strict_json import plain
from gkiller.wording import Progress, silent, visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, TaskID
    from rich.segment import Segment
    from rich.table import Table

PIPED_WIDTH = 120


class _Console(Console):
    """A console that escapes control characters, and lets a broken pipe reach the caller."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield what is drawn, control characters escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def on_broken_pipe(self) -> None:
        """Pass the broken pipe on."""
        raise BrokenPipeError(errno.EPIPE, "broken pipe")


def stdout() -> Console:
    """Return a console for results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return a console for progress, notes, warnings and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream is not None and stream.isatty()
    return _Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        force_terminal=terminal,
        color_system=colours(terminal=terminal),
        # Without a terminal rich assumes 80 columns, which folds tables that a file can hold.
        width=None if terminal or "COLUMNS" in os.environ else PIPED_WIDTH,
    )


def colours(*, terminal: bool) -> Literal["auto", "standard"] | None:
    """Return rich's colour system for a stream, None for no escapes at all."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return None
    forced = os.environ.get("FORCE_COLOR", "") not in ("", "0")
    return "auto" if terminal else "standard" if forced else None


def show(*renderables: RenderableType) -> None:
    """Print results on stdout. Text is printed as it is: square brackets are no markup."""
    console = stdout()
    for renderable in renderables:
        console.print(renderable)


def as_text(renderables: Iterable[RenderableType], *, width: int = PIPED_WIDTH) -> str:
    """Return what :func:`show` would print into a file, with lines of at most ``width`` columns."""
    stream = io.StringIO()
    console = _Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
    for renderable in renderables:
        console.print(renderable)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def one_message(text: str) -> str:
    """Return text whose further lines are indented, so that none can pose as another message."""
    return text.replace("\n", "\n  ")


def note(*texts: str) -> None:
    """Print information on stderr, a line each."""
    for text in texts:
        stderr().print(Text(one_message(text)), soft_wrap=True)


def warn(*texts: str) -> None:
    """Print warnings on stderr."""
    for text in texts:
        stderr().print(Text.assemble(("warning: ", "bold yellow"), one_message(text)), soft_wrap=True)


def next_command(command: str, why: str = "next") -> None:
    """Propose the next command to try, on stderr; nothing when nobody watches."""
    console = stderr()
    if console.is_terminal or stdout().is_terminal:
        console.print(Text.assemble((f"{why}: ", "dim"), (command, "bold cyan")), soft_wrap=True)


def results_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str | None = None
) -> Table:
    """Return a table: columns of numbers are aligned right, floats show four digits, None is an empty cell."""
    from rich import box
    from rich.table import Table

    cells = [list(row) for row in rows]
    table = Table(
        title=visible(title) or None,
        title_justify="left",
        caption=visible(caption or "") or None,
        caption_justify="left",
        box=box.SIMPLE,
    )
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float | None) for row in cells)
        table.add_column(Text(visible(column)), justify="right" if numeric and cells else "left", overflow="fold")
    for row in cells:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> RenderableType:
    if isinstance(value, Text):
        return value
    if value is None:
        return ""
    if isinstance(value, float):
        return Text(f"{value:.4f}")
    return Text(visible(str(value)))


def emit_json(value: object) -> None:
    """Print ``value`` as the one JSON object of a command: one line when piped, indented on a terminal."""
    console = stdout()
    unicode = console.encoding.startswith("utf")  # elsewhere escapes, which every encoding has
    text = json.dumps(
        plain(value), ensure_ascii=not unicode, allow_nan=False, indent=2 if console.is_terminal else None
    )
    text = visible_json(text, surrogates_only=not console.is_terminal)
    # Not through console.print: it would wrap long lines.
    console.file.write(text + "\n")
    console.file.flush()


@contextmanager
def progress(description: str = "") -> Iterator[Progress]:
    """Show, on a terminal, a bar per stage while the block runs; ``description`` is for a stage without a name."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = stderr()
    if not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console, transient=True) as bars:

        def advance(done: int, total: int | None = None, stage: str = "", /) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage or description, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance


def key_values(title: str, values: Mapping[str, object]) -> Table:
    """Return a two-column table of named values."""
    return results_table(title, ("", ""), list(values.items()))


class BarDisplay:
    """Bars with text fields and lines between them; a context manager that stops the bars at its end."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or stderr()
        self._bars: Bars | None = None
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _start(self, fields: Sequence[str], last: type[ProgressColumn], *more: ProgressColumn) -> Bars:
        """Start the bars: name, bar, ``more``, a column per field of a task, and the ``last`` column."""
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        texts = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in fields]
        name = TextColumn("{task.description}", style="bold", markup=False)
        self._bars = Bars(name, BarColumn(bar_width=24), *more, *texts, last(), console=self._console)
        self._bars.start()
        return self._bars

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
