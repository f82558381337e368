"""From what the user names to readers: files, folders of splits, hub data sets, the embedded sample."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from gkiller.data.dataset import SPLIT_NAMES
from gkiller.data.hub import KNOWN_SOURCES, SPLIT_ALIASES, KnownSource, Part, find_known, hub_parts
from gkiller.data.readers import pipes
from gkiller.data.readers.text import readable, text_lines
from gkiller.data.sample import sample_parts
from gkiller.errors import FormatError, SourceNotFoundError
from gkiller.wording import did_you_mean, nearest

FORMAT_NAMES = ".csv, .tsv, .jsonl, .parquet, each also with .gz"
_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(:[\w.-]+)?")
_SPLIT_STEM = re.compile(r"([A-Za-z]+)(?:[-_.]\d[\w.-]*)?")


@dataclass
class Plan:
    """What is to be read."""

    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a format that is read here, also with ``.gz``."""
    return pipes.file_format(path) not in (None, "txt")


def resolve_sources(
    sources: Sequence[str], valid: Sequence[str] = (), test: Sequence[str] = (), revision: str | None = None
) -> Plan:
    """Find everything that is named and say which split it belongs to.

    Args:
        sources: files, folders of splits, hub data sets or ``sample``. A file's rows are train rows.
        valid: sources whose rows are validation rows; of a folder or hub data set, that split alone.

    Raises:
        DataError: something is not there, of an unknown format, a folder without split files, or the hub fails.
    """
    plan = Plan()
    for source in sources:
        plan.parts += _resolve(source, revision, plan.notes)
    if not any(part.split == "train" for part in plan.parts):
        remedy = "name a file or a folder with train.*"
        raise SourceNotFoundError("there is nothing to train on", where=", ".join(sources), remedy=remedy)
    for split, named in (("valid", valid), ("test", test)):
        for source in named:
            plan.parts += _resolve_split(source, split, revision, plan.notes)
    plan.parts.sort(key=lambda part: SPLIT_NAMES.index(part.split))
    return plan


def check_files(parts: Sequence[Part]) -> None:
    """Refuse a file that is named for two splits, by whatever name or link."""
    owners: dict[tuple[int, int], Part] = {}
    for part in parts:
        if part.path is None:
            continue
        with readable(part.reader.name):
            status = part.path.stat()
        owner = owners.setdefault((status.st_dev, status.st_ino), part)
        if owner.split != part.split:
            same = "" if owner.reader.name == part.reader.name else f" (as {owner.reader.name})"
            what = f"the same file is given for the {owner.split}{same} and the {part.split} split"
            remedy = f"give other rows for {part.split}, or leave it out and rows of train are taken"
            raise FormatError(what, where=part.reader.name, remedy=remedy)


def _resolve(source: str, revision: str | None, notes: list[str]) -> list[Part]:
    if source == "sample":
        return sample_parts()
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder_parts(path, source, notes)
    if path.exists() or pipes.is_pipe(source):
        return [_file_part(path, source, "train")]
    known = find_known(source)
    if known is not None:
        return hub_parts(known.repository, None, revision, known, notes)
    if _HUB_NAME.fullmatch(source) and not is_table(path) and not path.parent.is_dir():
        repository, _, config = source.partition(":")
        return hub_parts(repository, config or None, revision, find_known(repository), notes)
    raise _missing(source, path)


def _resolve_split(source: str, split: str, revision: str | None, notes: list[str]) -> list[Part]:
    path = Path(source).expanduser()
    if path.is_file() or pipes.is_pipe(source):
        return [_file_part(path, source, split)]
    parts = [part for part in _resolve(source, revision, notes) if part.split == split]
    if not parts:
        remedy = "name a file, or a source that has that split"
        raise SourceNotFoundError(f"it has no {split} split", where=source, remedy=remedy)
    return parts


def _file_part(path: Path, name: str, split: str) -> Part:
    if pipes.is_pipe(name):
        return _pipe_part(name, split)
    if not path.is_file():
        raise FormatError("this is not a regular file", where=name, remedy="write it to a file first")
    form = pipes.file_format(path)
    if form is None or form == "txt":
        raise pipes.unknown_format(path, name, FORMAT_NAMES)
    return _opened(path, name, split, form)


def _pipe_part(name: str, split: str) -> Part:
    """Return the part of a pipe, copied to a temporary file that goes when the part's reader does."""
    stream, path = pipes.open_pipe(name), Path(name)
    shown = pipes.STDIN if name == "-" else name
    try:
        copy = pipes.spool(stream, shown)
    finally:
        if name != "-":
            stream.close()
    try:
        form = pipes.file_format(path) if is_table(path) else pipes.sniff(copy, shown)
        if form == "txt":
            form = "tsv" if "\t" in next(text_lines(copy, shown, "\n"), "") else "csv"
        assert form is not None, path
        part = _opened(copy, shown, split, form)
    except BaseException:
        shutil.rmtree(copy.parent, ignore_errors=True)
        raise
    pipes.keep_until_gone(part.reader, copy)
    part.stem = "stdin" if name == "-" else _stem(path)
    part.reader.notes.append(f"{shown}: a pipe, copied to a temporary file and read as {part.info['format']}")
    return part


def _opened(path: Path, name: str, split: str, form: pipes.Form) -> Part:
    info = {"kind": "file", "format": pipes.TITLES[form]}
    return Part(split=split, reader=pipes.open_reader(path, name, form), stem=_stem(path), path=path, info=info)


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or "row"


def _folder_parts(folder: Path, name: str, notes: list[str]) -> list[Part]:
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    parts = []
    left = []
    for path in files:
        split = _split_of(path)
        shown = str(Path(name) / path.name)
        if split and path.is_symlink() and not path.exists():
            raise SourceNotFoundError("the link leads to no file", where=shown, remedy="remove or mend it")
        if split:
            parts.append(_file_part(path, shown, split))
        elif is_table(path) or (path.is_dir() and path.name.lower() in SPLIT_ALIASES):
            left.append(path.name)
    if not any(part.split == "train" for part in parts):
        there = ", ".join(path.name for path in files[:10]) or "nothing"
        remedy = f"name its files train.*, valid.* and test.* ({FORMAT_NAMES}), or name files one by one"
        raise FormatError(f"the folder has no train file; it holds: {there}", where=name, remedy=remedy)
    if left:
        notes.append(f"{name}: not read, as no split has that name: {', '.join(left)}")
    return parts


def _split_of(path: Path) -> str:
    """Return the split a file of a folder belongs to, or an empty string."""
    if not is_table(path):
        return ""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    match = _SPLIT_STEM.fullmatch(stem)
    return SPLIT_ALIASES.get(match[1].lower(), "") if match else ""


def _missing(source: str, path: Path) -> SourceNotFoundError:
    """Return the error for something that is not there, with the nearest thing that is."""
    parent = path.parent
    looks_like_path = is_table(path) or "/" in source or "\\" in source or source.startswith((".", "~"))
    entries = list(parent.iterdir()) if parent.is_dir() else []
    files = [e.name for e in entries if is_table(e) or (e.is_dir() and not is_table(path))]
    known = [one.name for one in KNOWN_SOURCES]
    names = files if looks_like_path else [*known, *files]
    close = nearest(path.name, names, count=1)
    if not looks_like_path:
        advice = did_you_mean(source, close) if close else did_you_mean(source, known) + "."
        what = "no file, folder or known data set has that name"
        return SourceNotFoundError(what, where=source, remedy=f"{advice} A hub data set is named org/name")
    if not parent.is_dir():
        what = f"no such file: the folder {str(parent)!r} is not there"
        return SourceNotFoundError(what, where=source, remedy="check the path")
    there = "there are: " + ", ".join(sorted(files)[:10]) + (", ..." if len(files) > 10 else "")
    there = there if files else "no data file is in that folder"
    remedy = f"did you mean {str(parent / close[0])!r}?" if close else f"check the path; {there}"
    return SourceNotFoundError("no such file or folder", where=source, remedy=remedy)


def local_path(source: str) -> str | None:
    """Return the absolute path of a source that is a file or folder here, or None."""
    path = Path(source).expanduser()
    return str(path.absolute()) if source != "sample" and path.exists() else None


def is_plain_path(source: str) -> bool:
    """Tell whether a source can only be a path: it is not the sample, and no name of a hub data set."""
    if source == "sample" or find_known(source) is not None:
        return False
    return is_table(Path(source)) or not _HUB_NAME.fullmatch(source)


def public_source(source: str) -> str:
    """Return what may be told to strangers of a manifest's source: of each local one its last component alone."""
    names = [source] if Path(source).expanduser().exists() else source.split(" + ")
    shown = " + ".join(dict.fromkeys(_last_component(name) for name in names))
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def _last_component(source: str) -> str:
    bare = re.sub(r" \([\w.-]+\)$", "", source)  # "org/name:config (split)" names a split of the hub
    path = Path(source).expanduser()
    if source == "sample" or not (path.exists() or is_plain_path(bare)):
        return source
    return PureWindowsPath(source).name or "local files"  # it takes both kinds of slash


def known_of(parts: Sequence[Part]) -> list[KnownSource]:
    """Return the known sources among the parts, each once."""
    return list({part.known.name: part.known for part in parts if part.known is not None}.values())
