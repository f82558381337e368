"""Prints a command that README.md marks, so that a check runs what the reader is told to run.

``python tools/readme_command.py first-run`` prints the fenced block that follows the line
``<!-- command: first-run -->``. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
_MARKED = re.compile(r"^<!-- command: (?P<name>[\w-]+) -->\n+```(?:bash|sh)\n(?P<text>.*?)^```$", re.M | re.S)


def commands(text: str) -> dict[str, str]:
    """Return the marked commands of a Markdown text, by name.

    Raises:
        ValueError: two blocks bear the same mark, or a mark has no block.
    """
    found = [(match["name"], match["text"]) for match in _MARKED.finditer(text)]
    if len(found) != text.count("<!-- command: "):
        raise ValueError("a mark has no fenced bash block behind it")
    if len(dict(found)) != len(found):
        raise ValueError("two blocks bear the same mark")
    return dict(found)


def main() -> int:
    """Print the command that is asked for; return the exit code."""
    known = commands(README.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description="Print a command that README.md marks.")
    parser.add_argument("name", choices=sorted(known))
    sys.stdout.write(known[parser.parse_args().name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
