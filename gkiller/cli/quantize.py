"""``gkiller quantize``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkiller.cli.console import results_table
from gkiller.cli.deployment import COPY_HELP, SplitOption, gated
from gkiller.cli.evaluate import ModelArgument
from gkiller.cli.options import JsonFlag, out_place
from gkiller.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from gkiller.deployment.quantize import Tried
    from gkiller.settings import Resolved


class Storage(StrEnum):
    """How weights are stored."""

    INT8 = "int8"
    FP16 = "fp16"


StorageOption = Annotated[
    Storage, typer.Option("--storage", help="int8 arithmetic, or weights kept as fp16 and widened at load.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", callback=out_place, metavar="DIR", help=f"{COPY_HELP.capitalize()}.")
]
PortableFlag = Annotated[
    bool, typer.Option("--portable", help="7-bit weights alone: they score the same on processors without VNNI.")
]


VocabularyOption = Annotated[
    int | None,
    typer.Option(
        "--vocabulary",
        metavar="N",
        min=1,
        help="Also keep only the N pieces that the training comments use most; needs --out.",
    ),
]


@gated
def quantize(
    resolved: Resolved,
    asked: frozenset[str],
    model: ModelArgument,
    storage: StorageOption = Storage.INT8,
    out: OutOption = None,
    split: SplitOption = None,
    portable: PortableFlag = False,
    vocabulary: VocabularyOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a model's int8 graph: the best of several measured ways.

    Every way must score validation comments as the model does (the deployment settings are the limits);
    when none does, nothing is written and the command ends with 60. Of the static ones as fast as the
    fastest, the one that flips the fewest decisions is kept; a dynamic one, whose scores depend on the batch,
    only when no static one passed. The comments are those of the model's own run, or of --data.
    """
    from gkiller.cli.deployment import comparing, gate_rows, reference_texts, refuse_unused, tell
    from gkiller.deployment.deploy import export_onnx, quantize, quantize_trimmed
    from gkiller.model.directory import load_model

    if storage is Storage.FP16:
        refuse_unused({"--portable": portable, "--vocabulary": vocabulary}, "it is for --storage int8")
    if vocabulary is not None and out is None:
        what = "it makes another model, and so needs a place"
        raise SettingsError(what, where="--vocabulary", remedy="name one with --out DIR")
    loaded = load_model(model)
    rows = gate_rows(resolved, asked, loaded, split)
    reference = reference_texts(resolved, asked, loaded) if vocabulary is not None else []
    settings = resolved.settings.deployment
    tried: list[Tried] = []
    with comparing(json) as advance:
        if storage is Storage.FP16:
            exported = export_onnx(loaded, rows, settings, out=out, precision="fp16", progress=advance)
        elif vocabulary is not None and out is not None:
            exported, tried = quantize_trimmed(
                loaded, rows, settings, out, reference=reference, pieces=vocabulary, portable=portable, progress=advance
            )
        else:
            exported, tried = quantize(loaded, rows, settings, out=out, portable=portable, progress=advance)
    tell(
        exported,
        rows,
        f"gkiller export {exported.directory} --format wheel",
        as_json=json,
        tables=[_candidates(tried)] if tried else [],
        facts={"candidates": [one.as_dict() for one in tried]},
    )


def _candidates(tried: Sequence[Tried]) -> Table:
    from gkiller.deployment.quantize import choose

    best = choose(tried)
    rows = [
        (
            one.candidate.name,
            f"{len(one.graph) / 1e6:.2f}",
            f"{one.rate:,.0f}",
            f"{one.parity.max_difference:.4f}",
            f"{one.parity.flips} ({one.parity.flip_share:.3%})",
            f"{one.parity.ap_loss:.4f}",
            f"{one.parity.f1_loss:.4f}",
            "kept" if one is best else ("" if one.parity.passed else "refused"),
        )
        for one in tried
    ]
    header = ("int8", "MB", "comments/s", "max |Δ score|", "flips", "AP lost", "F1 lost", "")
    caption = "speed of the graph alone, one thread, measured in turns on this machine"
    return results_table("Candidates", header, rows, caption=caption)
