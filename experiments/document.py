"""Tables that a benchmark writes into a document."""

from __future__ import annotations

from pathlib import Path

from gkiller.storage.files import write_text


def insert(document: Path, text: str, name: str = "tables") -> None:
    """Put the tables between the document's two marks of that name; make a document where there is none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before = document.read_text("utf-8") if document.is_file() else f"{begin}\n{end}\n"
    if begin not in before or end not in before:
        raise SystemExit(f"{document} has no marks {begin} and {end}")
    head, _, rest = before.partition(begin)
    _, _, tail = rest.partition(end)
    write_text(document, f"{head}{begin}\n{text}{end}{tail}")
