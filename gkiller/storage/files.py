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
_SPARE_BYTES = 1 << 20  # what a file system takes besides the files themselves
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_text(value: Any) -> str:
    """Return readable JSON with a final newline; a ValueError for NaN and infinities."""
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
    """Make a directory and those above it, where they are not there, and flush their names to the disk."""
    with writing(path):
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:
            sync(folder.parent)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file next to its place, flush it, and rename it there. Links are followed; errors as `file_place`."""
    path = file_place(path)
    with writing(path):
        temporary = _beside(path)
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def append_line(path: Path, text: str) -> None:
    """Add a line to a file and flush it to the disk."""
    with writing(path), path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def require_space(directory: Path, size: int) -> None:
    """Raise an OutputError unless ``size`` bytes fit on the disk of an existing directory."""
    with writing(directory):
        free = shutil.disk_usage(directory).free
    if free < size + _SPARE_BYTES:
        sizes = f"{(size + _SPARE_BYTES) / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free"
        what, remedy = f"the disk is nearly full: {sizes}", "free some space, then go on"
        raise OutputError(what, where=str(directory), remedy=remedy)


def remove_leftovers(directory: Path, *, keep: tuple[str, ...] = ()) -> None:
    """Remove what a killed writer left half-written, hidden, in a directory that nobody else writes to now."""
    with writing(directory):
        for path in directory.glob(".*"):
            if path.is_dir() and not path.is_symlink() and path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in keep:
                path.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what a killed `write_bytes` left next to a file that nobody else writes to now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if re.fullmatch(r"[0-9a-f]{12}", left.name.removeprefix(f".{path.name}.")):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into an OutputError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error) from error


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a sibling temporary directory to fill; it takes ``path``'s place when the block ends well.

    An existing directory at ``path`` stays whole until the new one is flushed to the disk; when the block raises,
    nothing changes there. Where ``path`` is a link, what it leads to is replaced.

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
    """Swap two directories in one step with Linux's renameat2(2); False where unsupported.

    Elsewhere a process killed between two renames leaves the old directory under its temporary name.
    """
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def file_place(path: Path) -> Path:
    """Return where a file of that name goes, links followed; an OutputError for a circle or anything but a file."""
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.is_symlink() or (path.exists() and not path.is_file()):
            what = "that name is taken by something that is not a file"
            raise OutputError(what, where=str(path), remedy="name another file")
    return place


def refuse_inputs(outputs: Iterable[Path | int], inputs: Iterable[Path | int]) -> None:
    """Raise an OutputError where a file is read and written, whatever name, link or descriptor leads to it."""
    read = {_identity(place) for place in inputs} - {None}
    for place in outputs:
        if _identity(place) in read:
            where = "standard output" if isinstance(place, int) else str(place)
            raise OutputError("the output would overwrite what is read", where=where, remedy="write to another file")


def refuse_source_within(directory: Path, sources: Iterable[Path]) -> None:
    """Raise an OutputError where a directory to be replaced is, or holds, what is read."""
    target = _identity(directory, stat.S_ISDIR)
    for source in sources:
        place = Path(os.path.realpath(source))
        if target is not None and any(_identity(one, stat.S_ISDIR) == target for one in (place, *place.parents)):
            what, remedy = "the output would replace what is read", "write to another directory"
            raise OutputError(what, where=str(directory), remedy=remedy)


def _identity(place: Path | int, kind: Callable[[int], bool] = stat.S_ISREG) -> tuple[int, int] | None:
    """Return device and inode of a regular file (or of another kind), None for anything else."""
    try:
        found = os.stat(place)  # noqa: PTH116 - a path or a descriptor
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if kind(found.st_mode) else None


def _refused(path: Path, error: OSError) -> OutputError:
    remedy = "choose another place, or check its permissions and the free space"
    return OutputError(f"cannot write there: {error.strerror or error}", where=str(path), remedy=remedy)
