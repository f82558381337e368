"""Sealed directories: a JSON file lists the SHA-256 of every other file, and carries its own digest.

A seal tells damage and careless changes, and it bounds what is read. A forger can compute digests as well: who reads
the files must still distrust what is in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gkiller.storage.files import json_text, sha256_file
from gkiller.storage.strict_json import parse_json

MAX_SEAL_BYTES = 16 * 2**20  # of the JSON file
MAX_FILES = 1000  # listed in one directory
MAX_TOTAL_BYTES = 16 * 2**30  # of all the listed files together
Check = Literal["all", "kept", "none"]
"""Which files' digests are compared; "none" leaves out the seal's own digest, too."""
Kind = Literal["missing", "tampered", "format", "version"]
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?<!\.)", re.ASCII)
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CHUNK = 2**20


class SealBrokenError(ValueError):
    """A sealed directory is not as it was left, or is none.

    Args:
        kind: "missing", a file is not there; "tampered", its bytes are not those that were sealed;
            "version", the format is another one; "format", anything else.
    """

    def __init__(self, what: str, kind: Kind, file: Path) -> None:
        self.what, self.kind, self.file = what, kind, file
        super().__init__(f"{file}: {what}")


@dataclass(frozen=True)
class Sealed:
    """A directory whose seal holds."""

    directory: Path
    content: dict[str, Any]  # the JSON file's content, without files and digest
    files: dict[str, str]  # SHA-256 by name, with "/" between a folder and its file
    kept: dict[str, bytes]  # the bytes that were checked, of the files that were asked for
    digest: str  # the JSON file's own, and so one of the whole directory

    def copy_to(self, directory: Path, wanted: Callable[[str], bool] | None = None) -> None:
        """Copy the listed files, or the wanted ones, each only while it is still the one that was sealed.

        Raises:
            SealBrokenError: a file has changed since the directory was checked.
        """
        for name, digest in self.files.items():
            if wanted is None or wanted(name):
                target = directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as copy:
                    found, _ = _hashed(self.directory, name, MAX_TOTAL_BYTES, copy.write)
                _check(found, digest, self.directory / name)


def seal(directory: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write ``name``: the content, the digests of all files below the directory, and a digest of itself.

    Args:
        content: plain values, without the keys "files" and "digest".

    Raises:
        ValueError: a file's name would not be read back.
    """
    places = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / name)
    for relative in (path.relative_to(directory).as_posix() for path in places):
        if fault := _name_fault(relative):
            raise ValueError(f"{relative!r} {fault}")
    files = {path.relative_to(directory).as_posix(): sha256_file(path) for path in places}
    listed = {**content, "files": files}
    (directory / name).write_text(json_text({**listed, "digest": digest_of(listed)}), "utf-8", newline="\n")


def unseal(
    directory: Path, name: str, *, version: int, keep: Mapping[str, int], exact: bool = False, check: Check = "all"
) -> Sealed:
    """Check a sealed directory.

    Every file is opened once: the bytes that are returned are those that were checked. Links, devices and pipes are
    refused; the directory itself may be a link.

    Args:
        version: what its ``format_version`` must be; it is looked at before the digests are.
        keep: the files to return, with the most bytes that each may have. They must be listed.
        check: "kept" neither reads nor misses the files that are not in ``keep``; "none" compares no digest.

    Raises:
        SealBrokenError: the seal is broken.
    """
    path = directory / name
    try:
        content = parse_json(b"".join(_chunks(directory, name, MAX_SEAL_BYTES)))
    except SealBrokenError:
        raise
    except ValueError as error:
        raise SealBrokenError(f"not readable as JSON: {error}", "format", path) from error
    found = content.get("format_version")
    if type(found) is not int or found != version:
        raise SealBrokenError(f"format {_short(found)} is unknown", "version", path)
    files = _listed(content, path)
    digest = content.pop("digest", None)
    if check != "none" and digest != digest_of(content):
        raise SealBrokenError("the file was changed after it was written", "tampered", path)
    lacking = ", ".join(sorted(keep.keys() - files.keys()))
    if lacking:
        raise SealBrokenError(f"the list of files lacks {lacking}", "format", path)
    if exact:
        _check_unlisted(directory, {name, *files})
    kept = _checked(directory, files, keep, check)
    del content["files"]
    return Sealed(directory, content, files, kept, str(digest))


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON file's content, its own digest left out."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(directory: Path, files: Mapping[str, str], keep: Mapping[str, int], check: Check) -> dict[str, bytes]:
    """Read the listed files, compare their digests, and return what is to be kept."""
    kept, left = {}, MAX_TOTAL_BYTES
    for file, sealed in files.items():
        if file in keep:
            kept[file] = b"".join(_chunks(directory, file, min(keep[file], left)))
            found, size = hashlib.sha256(kept[file]).hexdigest(), len(kept[file])
        elif check == "all":
            found, size = _hashed(directory, file, left)
        else:
            continue
        if check != "none":
            _check(found, sealed, directory / file)
        left -= size
    return kept


def _hashed(directory: Path, name: str, limit: int, use: Callable[[bytes], Any] = len) -> tuple[str, int]:
    """Return a file's SHA-256 and size, and give each piece of it to ``use``."""
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(directory, name, limit):
        digest.update(chunk)
        size += len(chunk)
        use(chunk)
    return digest.hexdigest(), size


def _listed(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    files = content.get("files")
    if not isinstance(files, dict):
        raise SealBrokenError("it has no list of files", "format", path)
    if len(files) > MAX_FILES:
        raise SealBrokenError(f"it lists {len(files)} files, and {MAX_FILES} are allowed", "format", path)
    for name, digest in files.items():
        fault = "is the list itself" if name == path.name else _name_fault(name)
        if fault:
            raise SealBrokenError(f"{_short(name)} {fault}", "format", path)
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise SealBrokenError(f"the SHA-256 of {_short(name)} is not valid", "format", path)
    return dict(files)


def _name_fault(name: str) -> str:
    """Return what keeps a name from being a plain file below the directory, on any system; or ""."""
    parts = name.split("/")
    if ".." in parts or "" in parts or "\\" in name or ":" in name:
        return "leads out of the directory"
    if len(name) > 200 or not all(_PLAIN.fullmatch(part) for part in parts):
        return "is not a plain file name"
    if any(part.split(".")[0].upper() in _DEVICES for part in parts):
        return "is a device on some systems"
    return ""


def _chunks(directory: Path, name: str, limit: int) -> Iterator[bytes]:
    """Read a regular file below a directory to its end, without following links or waiting for a pipe.

    The end must come within ``limit`` bytes even when the file grows meanwhile.
    """
    path, left, flags = directory / name, limit, os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    with _reading(path):
        _check_way(directory, name)
        source = os.fdopen(os.open(path, flags), "rb")
    with source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SealBrokenError("not a regular file", "format", path)
        while status.st_size <= limit:
            with _reading(path):
                chunk = source.read(_CHUNK)
            left -= len(chunk)
            if not chunk:
                return
            if left < 0:
                break
            yield chunk
    raise SealBrokenError(f"it has more than the {limit:,} bytes that are allowed", "format", path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SealBrokenError("a file is missing", "missing", path) from error
    except OSError as error:
        raise SealBrokenError(f"it cannot be read: {error.strerror or error}", "format", path) from error


def _check_way(directory: Path, name: str) -> None:
    """Refuse links, devices, pipes and folders before anything is opened: opening one can have effects."""
    way, parts = directory, name.split("/")
    for depth, part in enumerate(parts, 1):
        way /= part
        mode = way.lstat().st_mode
        if stat.S_ISLNK(mode):
            where = "leads out of the directory" if _outside(way, directory) else "is not followed"
            raise SealBrokenError(f"a link, and it {where}: put the file itself there", "format", way)
        if depth == len(parts) and not stat.S_ISREG(mode):
            raise SealBrokenError("not a regular file", "format", way)


def _outside(link: Path, directory: Path) -> bool:
    try:
        return not link.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # a link to itself
        return False


def _check(found: str, sealed: str, path: Path) -> None:
    if found != sealed:
        raise SealBrokenError("the file is not the one that was saved: its SHA-256 differs", "tampered", path)


def _check_unlisted(directory: Path, known: set[str]) -> None:
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if name not in known and not (path.is_dir() and not path.is_symlink()):
            raise SealBrokenError("the file is not listed", "format", path)


def _short(value: Any) -> str:
    return repr(value if not isinstance(value, str) else value[:80])[:100]
