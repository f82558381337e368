"""``gkiller export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gkiller.cli.console import emit_json, key_values, next_command, show
from gkiller.cli.deployment import COPY_HELP, SplitOption, gated
from gkiller.cli.evaluate import ModelArgument
from gkiller.cli.options import JsonFlag, out_place

if TYPE_CHECKING:
    from gkiller.model.directory import LoadedModel
    from gkiller.model.layout import GraphPrecision
    from gkiller.scoring.models import AnyModel
    from gkiller.settings import Resolved


class Format(StrEnum):
    """What to make."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"
    WHEEL = "wheel"


class Precision(StrEnum):
    """Which graph a wheel holds."""

    INT8 = "int8"
    FP32 = "fp32"
    FP16 = "fp16"


FormatOption = Annotated[Format, typer.Option("--format", help="What to make.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        callback=out_place,
        metavar="DIR",
        help=f"onnx: {COPY_HELP}; safetensors: the new model "
        "directory; wheel: the folder for the wheel [default: dist].".replace("[", "\\["),
    ),
]
PlainFlag = Annotated[bool, typer.Option("--plain", help="onnx: keep the graph of torch's exporter, not the lean one.")]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--package-name", metavar="NAME", help="wheel: its name, for pip and for `load`; gkiller-model if not set."
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option("--package-version", metavar="VERSION", help="wheel: its version; gkiller's own if not set."),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option("--precision", help="wheel: which graph goes in; int8 if there, else fp32, else fp16."),
]


@gated
def export(
    resolved: Resolved,
    asked: frozenset[str],
    model: ModelArgument,
    format_: FormatOption = Format.ONNX,
    out: OutOption = None,
    split: SplitOption = None,
    plain: PlainFlag = False,
    package_name: NameOption = None,
    package_version: VersionOption = None,
    precision: PrecisionOption = None,
    json: JsonFlag = False,
) -> None:
    """Export a model: ONNX graph, plain weights, or a wheel to install.

    An ONNX graph must score validation comments as the model does (the deployment settings are the limits), or nothing
    is written and the command ends with 60. The comments are those of the model's own run, or of --data. A wheel holds
    the model alone; once it is installed, its name stands for it wherever a model is named.
    """
    from gkiller.cli.deployment import refuse_unused
    from gkiller.model.directory import load_model
    from gkiller.model.layout import GRAPHS
    from gkiller.scoring.models import load_any

    if format_ is not Format.ONNX:
        refuse_unused({"--plain": plain, "--split": split}, "it is for --format onnx")
    if format_ is not Format.WHEEL:
        wheel = {"--package-name": package_name, "--package-version": package_version}
        refuse_unused(wheel, "it is for --format wheel")
        refuse_unused({"--precision": precision}, "it is for --format wheel; 'gkiller quantize' makes int8 and fp16")
    if format_ is Format.WHEEL:
        wanted = next((kind for kind in GRAPHS if kind == precision), None)
        _wheel(load_any(model), out or Path("dist"), package_name, package_version, wanted, json)
        return
    loaded = load_model(model)
    if format_ is Format.SAFETENSORS:
        _safetensors(loaded, out, json)
    else:
        _onnx(resolved, asked, loaded, out, split, plain, json)


def _onnx(
    resolved: Resolved,
    asked: frozenset[str],
    loaded: LoadedModel,
    out: Path | None,
    split: str | None,
    plain: bool,
    json: bool,
) -> None:
    from gkiller.cli.deployment import comparing, gate_rows, tell
    from gkiller.deployment.deploy import export_onnx

    rows = gate_rows(resolved, asked, loaded, split)
    with comparing(json) as advance:
        exported = export_onnx(loaded, rows, resolved.settings.deployment, out=out, plain=plain, progress=advance)
    tell(exported, rows, f"gkiller quantize {exported.directory}", as_json=json)


def _safetensors(loaded: LoadedModel, out: Path | None, json: bool) -> None:
    from gkiller.deployment.deploy import copy_plain
    from gkiller.errors import SettingsError

    if out is None:
        raise SettingsError("it needs a place", where="--format safetensors", remedy="name one with --out DIR")
    size = copy_plain(loaded, out)
    if json:
        emit_json({"directory": out, "bytes": size})
        return
    show(key_values("Exported", {"directory": out, "MB": f"{size / 1e6:.2f}"}))
    next_command(f"gkiller evaluate {out}")


def _wheel(
    loaded: AnyModel, out: Path, name: str | None, version: str | None, precision: GraphPrecision | None, json: bool
) -> None:
    from gkiller.deployment.wheel import build_wheel

    wheel = build_wheel(loaded, out, name=name, version=version, precision=precision)
    if json:
        emit_json(wheel)
        return
    facts: dict[str, Any] = {
        "wheel": wheel.path,
        "MB": f"{wheel.size / 1e6:.2f}",
        "graph": wheel.graph,
        "in Python": f"gkiller.load({wheel.name!r}).predict('you are kind')",
    }
    show(key_values("Exported", facts))
    next_command(f"pip install {wheel.path}", "next, next to gkiller or gkiller-lite")
