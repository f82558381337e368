"""Files and directories that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gkiller.errors import OutputError

_DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EFBIG)


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


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, flush it, and rename it there.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


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
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with writing(path):
            temporary.chmod(0o755)
        try:
            yield temporary
        except OSError as error:
            if error.errno in _DISK_ERRORS:
                raise _refused(path, error) from error
            raise  # it may be about a file that the block reads
        with writing(path):
            for item in sorted(temporary.rglob("*")):
                sync(item)
            sync(temporary)
            _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, path: Path) -> None:
    """Move a finished directory to its place, and what was there out of it."""
    old = temporary.with_name(f"{temporary.name}.old")
    replaced = path.exists()
    if replaced:
        path.replace(old)
    try:
        temporary.replace(path)
    except OSError:
        if replaced:
            old.replace(path)
        raise
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write there: {error.strerror or error}",
        where=str(path),
        remedy="choose another place, or check its permissions and the free space",
    )
