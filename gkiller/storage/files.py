"""Files and directories that are either whole or not there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gkiller.errors import OutputError

_DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EDQUOT)
_SPARE_BYTES = 1 << 20  # what a file system takes beside the files themselves
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_text(value: Any) -> str:
    """Return readable JSON with a final newline; NaN and infinities are refused.

    Raises:
        ValueError: the value holds a number that JSON does not know.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sync(path: Path) -> None:
    """Flush a file, or a directory's list of names, to the disk."""
    if os.name != "nt":
        mode = os.O_RDONLY
    elif path.is_dir():
        return  # Windows cannot open a directory; its rename is written through
    else:
        mode = os.O_RDWR  # Windows flushes only what was opened for writing
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, where they are not there, and flush their names to the disk.

    Raises:
        OutputError: it cannot be made.
    """
    with writing(path):
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:
            sync(folder.parent)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its place, flush it, and rename it there. Links are followed.

    Raises:
        OutputError: it cannot be written, or something that is not a file has that name.
    """
    path = file_place(path)
    with writing(path):
        temporary = _beside(path)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def append_line(path: Path, text: str) -> None:
    """Add a line to a file and flush it to the disk.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path), path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def require_space(directory: Path, size: int) -> None:
    """Check, before anything is written, that ``size`` bytes fit on the disk of an existing directory.

    Raises:
        OutputError: they do not.
    """
    with writing(directory):
        free = shutil.disk_usage(directory).free
    if free < size + _SPARE_BYTES:
        raise OutputError(
            f"the disk is nearly full: {(size + _SPARE_BYTES) / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free",
            where=str(directory),
            remedy="free some space, then go on",
        )


def remove_leftovers(directory: Path, *, keep: tuple[str, ...] = ()) -> None:
    """Remove the hidden files and directories that a killed writer left half-written in ``directory``.

    Args:
        directory: one that nobody else writes to now.

    Raises:
        OutputError: nothing may be removed there.
    """
    with writing(directory):
        for path in directory.glob(".*"):
            if path.name in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what a killed `write_bytes` left beside a file that nobody else writes to now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if re.fullmatch(r"[0-9a-f]{12}", left.name.removeprefix(f".{path.name}.")):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system in the block into one that names ``path``.

    Raises:
        OutputError: the block raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise _refused(path, error) from error


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a sibling temporary directory to fill; it takes ``path``'s place when the block ends well.

    An existing directory at ``path`` stays whole until the new one is flushed to the disk; it is then
    moved aside, and removed when the new one is in its place. When the block raises, nothing at ``path``
    changes. Where ``path`` is a link, what it leads to is replaced.

    Raises:
        OutputError: it cannot be written, or the disk is full.
    """
    path = path.resolve()
    make_directory(path.parent)
    with writing(path):
        temporary = _beside(path)
        temporary.mkdir()
        mode = stat.S_IMODE(temporary.stat().st_mode) & 0o777  # what the umask leaves of 0o777
    try:
        try:
            yield temporary
        except OSError as error:
            if error.errno in _DISK_ERRORS:
                raise _refused(path, error) from error
            raise  # it may be about a file that the block reads
        with writing(path):
            for item in sorted(temporary.rglob("*")):
                # some libraries make private files: a service of another user reads what the umask lets it
                item.chmod(mode if item.is_dir() else mode & 0o666)
                sync(item)
            sync(temporary)
            _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return a hidden name in the same directory that nothing has yet."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def _put(temporary: Path, path: Path) -> None:
    """Move a finished directory to its place, and what was there out of it."""
    if not path.exists():
        temporary.replace(path)
    elif not _exchange(temporary, path):
        old = temporary.with_name(f"{temporary.name}.old")
        path.replace(old)
        try:
            temporary.replace(path)
        except OSError:
            old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one step, so that there is no moment without either; False where unsupported.

    Linux has renameat2(2) for it. Elsewhere a process killed between two renames leaves the old directory
    under its temporary name.
    """
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def file_place(path: Path) -> Path:
    """Return where a file of that name goes: links are followed, so that they stay.

    Raises:
        OutputError: the name leads to something that is not a regular file, or in a circle.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.is_symlink() or (path.exists() and not path.is_file()):
            raise OutputError(
                "that name is taken by something that is not a file", where=str(path), remedy="name another file"
            )
    return place


def refuse_inputs(outputs: Iterable[Path | int], inputs: Iterable[Path | int]) -> None:
    """Refuse to write to a file that is read, whatever name, link or descriptor leads to it.

    Raises:
        OutputError: one of the outputs is an input.
    """
    read = {_identity(place) for place in inputs} - {None}
    for place in outputs:
        if _identity(place) in read:
            raise OutputError(
                "the output would overwrite what is read",
                where="standard output" if isinstance(place, int) else str(place),
                remedy="write to another file",
            )


def refuse_source_within(directory: Path, sources: Iterable[Path]) -> None:
    """Refuse to replace a directory that is, or holds, what is read.

    Raises:
        OutputError: a source lies in the directory.
    """
    target = _identity(directory, stat.S_ISDIR)
    for source in sources:
        place = Path(os.path.realpath(source))
        if target is not None and any(_identity(one, stat.S_ISDIR) == target for one in (place, *place.parents)):
            raise OutputError(
                "the output would replace what is read", where=str(directory), remedy="write to another directory"
            )


def _identity(place: Path | int, kind: Callable[[int], bool] = stat.S_ISREG) -> tuple[int, int] | None:
    """Return device and inode of a regular file (or of another kind), None for anything else."""
    try:
        found = os.stat(place)  # noqa: PTH116 - a path or a descriptor
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if kind(found.st_mode) else None


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write there: {error.strerror or error}",
        where=str(path),
        remedy="choose another place, or check its permissions and the free space",
    )
