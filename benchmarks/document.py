"""Tables that a benchmark writes into a document."""

from __future__ import annotations

from pathlib import Path

from gkiller.files import write_text

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def insert(document: Path, text: str) -> None:
    """Put the tables between the document's two marks; make a document of them when it is not there."""
    before = document.read_text("utf-8") if document.is_file() else f"{BEGIN}\n{END}\n"
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    write_text(document, f"{head}{BEGIN}\n{text}{END}{tail}")
