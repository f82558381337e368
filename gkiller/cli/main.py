"""The entry point: finds the command, runs it, and turns errors into messages and exit codes."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.lazy import INTERRUPTED, LazyGroup, UsageError, advise_dashes, explain
from gkiller.errors import (
    GkillerError,
    InterruptedRunError,
    LightPackageError,
    OutputError,
    SettingsError,
    SourceNotFoundError,
    TerminatedRunError,
)
from gkiller.wording import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import TextIO

BROKEN_PIPE = 141
TERMINATED = 143
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
_COLUMNS_DIGITS = 4
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ISSUES = "please report it with the output of 'gkiller --debug ...' and 'gkiller doctor'"

app = typer.Typer(
    cls=LazyGroup,
    invoke_without_command=True,
    rich_markup_mode=None,  # drawing this page with rich would take half of its 0.4 s
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from gkiller import __version__

        typer.echo(f"gkiller {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train, prove and ship a small toxicity classifier that runs on a plain CPU."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(SettingsError.exit_code)  # as for a group without its command: nothing was done


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; docs/cli.md lists them."""
    _replace_closed()
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    debug = "--debug" in takewhile(lambda argument: argument.startswith("-"), arguments)
    if argv is None:
        _prepare_process()
        sys.excepthook = _show_traceback if debug else partial(_unexpected, as_json)
    with _stopping():
        try:
            return _run(arguments, as_json=as_json, debug=debug)
        except KeyboardInterrupt:
            return INTERRUPTED
        except (BrokenPipeError, SystemExit) as stop:
            # Both typer and rich turn a broken pipe into an exit with 1.
            if not any(isinstance(error, BrokenPipeError) for error in (stop, stop.__context__)):
                raise
            _silence(sys.stdout, sys.stderr)
            return BROKEN_PIPE


def _run(arguments: list[str], *, as_json: bool, debug: bool) -> int:
    """Run the command, report the error that ends it, and return the exit code."""
    try:
        command = typer.main.get_command(app)
        status = command.main(args=arguments, prog_name="gkiller", standalone_mode=False)
    except (GkillerError, UsageError) as error:
        if debug:
            raise
        return _refuse(error, arguments, as_json)
    except OSError as error:
        known = _known(error, debug=debug)
        if known is None:
            raise
        if isinstance(known, OutputError):
            _silence(sys.stdout)
        return _refuse(known, arguments, as_json)
    except ModuleNotFoundError as error:
        known = None if debug else _full_package(error)
        if known is None:
            raise
        return _refuse(known, arguments, as_json)
    return status if isinstance(status, int) else 0


def _full_package(error: ModuleNotFoundError) -> GkillerError | None:
    """Return that the light package lacks a library, or None where that is not the reason."""
    from gkiller.storage.environment import LITE, installed

    if installed() != [LITE]:
        return None
    return LightPackageError(
        f"this needs the full package: {LITE} has no {error.name}",
        remedy=f"pip uninstall {LITE}, then pip install gkiller",
    )


def _known(error: OSError, *, debug: bool) -> GkillerError | None:
    """Return an error of the system in plain words: a full disk, or a path that cannot be used; else None."""
    if error.errno in _FULL and error.filename is None:  # a file's own error names the file
        what = f"the output cannot be written: {error.strerror}"
        return OutputError(what, remedy="free some space, or write somewhere else")
    if debug or error.errno not in _UNUSABLE or error.filename is None:
        return None
    remedy = "check its name, and the permissions of it and of the folders above it"
    what = f"this path cannot be used: {error.strerror}"
    return SourceNotFoundError(what, where=str(error.filename)[:300], remedy=remedy)


def _replace_closed() -> None:
    """Open something for each closed standard stream, so that no file gets its number: for stdout an unread pipe."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            if number == 1:
                reader, handle = os.pipe()
                os.close(reader)
            else:
                handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _silence(*streams: TextIO) -> None:
    """Point streams at the null device, so that flushing them at exit cannot fail."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(sink, stream.fileno())
    os.close(sink)


def _refuse(error: Any, arguments: Sequence[str], as_json: bool) -> int:
    """Report an error on purpose and return its exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # its help is printed already
        return int(error.exit_code)
    known = error if isinstance(error, GkillerError) else explain(error, arguments)
    advise_dashes(known, arguments)
    stopped = isinstance(known, InterruptedRunError | TerminatedRunError)
    if not (stopped and os.environ.get("RANK", "0") != "0"):  # of several processes the first one says it
        _report(known, as_json)
    return known.exit_code


def _report(error: GkillerError, as_json: bool) -> None:
    """Print an error: a block on stderr, and with ``--json`` one object on stdout."""
    from rich.text import Text

    from gkiller.cli.console import emit_json, one_message, stderr

    if as_json:
        emit_json(error.as_dict())
    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), (one_message(error.what), "red")), soft_wrap=True)
    for name, text in (("where", error.where), ("remedy", error.remedy)):
        if text:
            console.print(Text.assemble((f"  {name}: ", "dim"), visible(text, lines=False)), soft_wrap=True)


def _prepare_process() -> None:
    """Make arguments, names and output of any characters work, and whatever warns safe to show."""
    if hasattr(sys, "orig_argv") and codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        # Python takes the arguments and the names of files for ASCII: begin again with UTF-8.
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if len(os.environ.get("COLUMNS", "")) > _COLUMNS_DIGITS:
        del os.environ["COLUMNS"]  # rich fills lines of any length, and runs out of memory
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    formatted = warnings.formatwarning
    warnings.formatwarning = lambda *given, **named: visible(formatted(*given, **named))


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))


def _unexpected(as_json: bool, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an exception that nobody expected; the interpreter then exits with 1."""
    _report(GkillerError(f"gkiller failed unexpectedly: {kind.__name__}: {error}", remedy=ISSUES), as_json)


@contextmanager
def _stopping() -> Iterator[None]:
    """Turn a termination signal into an orderly exit with 143 while the block runs.

    What was under way can swallow that exit, or an interrupt, and fail in its own way, as imports of
    extension modules do: the process then ends as the signal asked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        asked = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored, as nohup does
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Exception as error:
        if asked:
            raise SystemExit(INTERRUPTED if asked == signal.SIGINT else TERMINATED) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
