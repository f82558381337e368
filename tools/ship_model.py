"""Put a trained model into gkiller/assets, as the default model that gkiller ships.

Usage: python tools/ship_model.py RUN [--labels LABEL,LABEL,...] [--sections FILE]

RUN is a run or a model directory with an int8 graph (``gkiller quantize``). What ships is that graph and what
it needs beside it, its parity report and the model card, with the sections of FILE before its limits (see
``recipes/card.py``), in the place of older ones of the same headings: no weights, no other graphs. Nothing is
written when the model is damaged, lacks labels or the report, cannot be trained on from, or is too large.
What was shipped before is replaced.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gkiller import assets
from gkiller.data.labels import CANONICAL_LABELS
from gkiller.deployment.deploy import copy_deployed
from gkiller.deployment.weights import read_deployed
from gkiller.errors import ExportError, GkillerError, LabelMismatchError
from gkiller.model.directory import stored_files
from gkiller.model.layout import CARD, GRAPHS, PROBES
from gkiller.scoring.models import AnyModel, load_any

MOST_BYTES = 5_000_000
"""Of all the files together, the tokenizer included."""
GRAPH = GRAPHS["int8"]
LIMITS = "## Limits\n"
HEADING = re.compile("^## .*$", re.MULTILINE)
SECTION = re.compile("^(?=## )", re.MULTILINE)


def ship(run: str, labels: Sequence[str], sections: str = "") -> dict[str, int]:
    """Write a model's deployed files to the place of the default model, whole or not at all.

    Args:
        run: a run or a model directory.
        labels: that the model must score.
        sections: Markdown for the model card.

    Returns:
        The bytes of each file.

    Raises:
        ModelError: there is no model, or it is damaged.
        LabelMismatchError: it lacks a label.
        ExportError: it has no int8 graph, no report of the graph's parity, or is too large.
    """
    loaded = load_any(run)
    _check_labels(loaded, labels)
    _check_parity(loaded)
    card = stored_files(loaded, (CARD,))[CARD].decode("utf-8")
    files = {CARD: with_sections(card, sections).encode("utf-8")}
    with tempfile.TemporaryDirectory(prefix="gkiller-ship-") as folder:
        trial = Path(folder) / "model"
        copy_deployed(loaded, GRAPH, trial, also=(PROBES,), files=files)
        sizes = _sizes(trial)
        if sum(sizes.values()) > MOST_BYTES:
            raise ExportError(
                f"the files have {sum(sizes.values()):,} bytes, and {MOST_BYTES:,} are shipped at most",
                where=str(loaded.path),
                remedy="make it smaller: gkiller quantize --vocabulary N --out DIR",
            )
        read_deployed(trial)  # training starts from it
    copy_deployed(loaded, GRAPH, assets.default_model_path(), also=(PROBES,), files=files)
    return sizes


def with_sections(card: str, sections: str) -> str:
    """Return a model card with sections before its limits, which are its last; older ones of theirs go."""
    if not sections.strip():
        return card
    before, heading, limits = card.rpartition(LIMITS)
    named = set(HEADING.findall(sections))
    kept = [part for part in SECTION.split(before) if not named & set(HEADING.findall(part))]
    return f"{''.join(kept)}{sections.strip()}\n\n{heading}{limits}"


def _check_labels(loaded: AnyModel, labels: Sequence[str]) -> None:
    lacking = [label for label in labels if label not in loaded.labels]
    if lacking:
        raise LabelMismatchError(
            f"the model does not score {', '.join(lacking)}",
            where=str(loaded.path),
            remedy="train one that does, or say which labels it must have with --labels",
        )


def _check_parity(loaded: AnyModel) -> None:
    assert loaded.path is not None  # it was just read from there
    there = {name: (loaded.path / name).is_file() for name in (GRAPH, PROBES)}
    report = loaded.metadata.get("exports", {}).get(GRAPH, {}).get("gate", {}).get("found")
    if not there[GRAPH]:
        what = "the model has no int8 graph"
    elif not (there[PROBES] and report):
        what = "the int8 graph has no parity report"
    else:
        return
    raise ExportError(what, where=str(loaded.path), remedy=f"run: gkiller quantize {loaded.path}")


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Ship a model and print the sizes; return the exit code."""
    parser = argparse.ArgumentParser(description="Put a model into gkiller/assets as the default model.")
    parser.add_argument("run", metavar="RUN", help="a run or a model directory with an int8 graph")
    parser.add_argument(
        "--labels",
        default=",".join(CANONICAL_LABELS),
        help="comma-separated labels that the model must score [default: %(default)s]",
    )
    parser.add_argument("--sections", type=Path, metavar="FILE", help="Markdown to put into the model card")
    given = parser.parse_args(arguments)
    try:
        sections = given.sections.read_text("utf-8") if given.sections else ""
        sizes = ship(given.run, given.labels.split(","), sections)
    except GkillerError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    for name, size in {**sizes, "in all": sum(sizes.values())}.items():
        sys.stdout.write(f"{size:>10,}  {name}\n")
    sys.stdout.write(f"{assets.default_model_path()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
