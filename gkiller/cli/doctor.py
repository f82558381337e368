"""``gkiller doctor``: whether everything that gkiller needs is here and works."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from gkiller.cli.console import emit_json, progress, results_table, show
from gkiller.cli.options import JsonFlag
from gkiller.errors import ExportError, GkillerError
from gkiller.model.layout import PERFORATEDAI, SUPPORTED
from gkiller.storage.environment import CPU_FLAGS, LIGHT_PACKAGES, LITE, PACKAGES, installed, package_versions, read_cpu
from gkiller.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from gkiller.deployment.probes import Recheck


Status = Literal["ok", "warning", "failed", "skipped"]
ASSETS = ("assets/tokenizer.json", "assets/sample.jsonl.gz", "settings/presets/default.toml")
HUB_TIMEOUT = 4.0  # seconds
ROOM = 10**9  # bytes of free disk below which a run may not fit


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it is, and what to do if it is not well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def _refused(name: str, error: GkillerError) -> Check:
    return Check(name, "failed", f"{error.where}: {error.what}".lstrip(": "), error.remedy)


def check_versions() -> list[Check]:
    """Return the versions of Python, gkiller and what it stands on."""
    found = [Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    remedy, names = "install gkiller again: pip install .", LIGHT_PACKAGES if installed() == [LITE] else PACKAGES
    if len(installed()) > 1:
        detail = f"gkiller and {LITE} are both installed, and own the same files"
        again = f"pip uninstall gkiller {LITE}, then install one of them"
        found.append(Check("packages", "warning", detail, again))
    return found + [
        Check(name, "failed", "not installed", remedy) if number is None else Check(name, "ok", number)
        for name, number in package_versions(names).items()
        if name != "perforatedai"  # not needed everywhere: it has a check of its own
    ]


def check_cpu() -> list[Check]:
    """Return the processor, the threads this process may use, and the vector instructions."""
    model, flags = read_cpu()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    vectors = ", ".join(flag for flag in CPU_FLAGS if flag in flags) or "no vector instructions known"
    return [Check("cpu", "ok", f"{model}; {usable} of {os.cpu_count()} threads; {vectors}")]


def check_device() -> list[Check]:
    """Return what torch can train on."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Check("device", "failed", f"torch cannot be imported: {error}", "install torch again")]
    if torch.cuda.is_available():
        return [Check("device", "ok", f"cuda: {torch.cuda.get_device_name(0)}")]
    return [Check("device", "ok", "mps" if torch.backends.mps.is_available() else "cpu")]


def check_perforatedai() -> list[Check]:
    """Return whether dendrites can grow here."""
    install = f"pip install perforatedai=={PERFORATEDAI}"
    if find_spec("perforatedai") is None:
        remedy = f"it supports {SUPPORTED}; there: {install}; elsewhere train with --no-dendrites"
        found = [Check("perforatedai", "warning", "not installed: no dendrites", remedy)]
    else:
        try:
            number = version("perforatedai")
        except PackageNotFoundError:
            number = "of unknown version"
        if number == PERFORATEDAI:
            found = [Check("perforatedai", "ok", number)]
        else:
            detail = f"{number}; gkiller is tested with {PERFORATEDAI}"
            found = [Check("perforatedai", "warning", detail, install)]
    if find_spec("perforatedbp") is not None:
        detail = "installed: it silently changes how perforatedai trains, so that results differ"
        found.append(Check("perforatedbp", "warning", detail, "pip uninstall perforatedbp"))
    return found


def check_hub(*, online: bool) -> list[Check]:
    """Return whether the Hugging Face hub answers; only hub data sets and hub encoders need it."""
    if not online:
        return [Check("hub", "skipped", "not asked: gkiller doctor --online asks")]
    try:
        from huggingface_hub import constants
    except ImportError as error:
        return [Check("hub", "warning", f"huggingface_hub cannot be imported: {error}", "install it again")]
    if constants.HF_HUB_OFFLINE:
        return [Check("hub", "skipped", "not asked: HF_HUB_OFFLINE is set")]
    return [_ask(constants.ENDPOINT, HUB_TIMEOUT)]


def _ask(endpoint: str, timeout: float) -> Check:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    remedy = "only hub data sets and hub encoders need it; check the network, a proxy, or HF_ENDPOINT"
    try:
        with urlopen(Request(endpoint, method="HEAD"), timeout=timeout) as answer:
            status = answer.status
    except HTTPError as error:
        status = error.code
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Check("hub", "warning", f"{endpoint} is not reachable: {reason}", remedy)
    if status < 500:  # it is there, whatever it thinks of the question
        return Check("hub", "ok", f"{endpoint} answers ({status})")
    return Check("hub", "warning", f"{endpoint} answers with an error ({status})", remedy)


def check_settings() -> list[Check]:
    """Return whether the settings that a command would use here are valid."""
    from gkiller.settings import resolve

    try:
        resolved = resolve()
    except GkillerError as error:
        return [_refused("settings", error)]
    changed = sum(origin != "default" for origin in resolved.origins.values())
    return [Check("settings", "ok", f"preset {resolved.preset}, {counted(changed, 'value')} not from the definition")]


def check_runs(directory: Path) -> list[Check]:
    """Return whether runs can be written below ``directory``, and whether the disk has room."""
    place = directory / "runs"
    place = place if place.is_dir() else directory
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            file.write(b"gkiller")
            file.flush()
    except OSError as error:
        detail = f"{place} is not writable: {error.strerror or error}"
        return [Check("run directory", "failed", detail, "go to another directory, or train with --out")]
    free = shutil.disk_usage(place).free
    detail = f"{place} is writable, {free / 1e9:.1f} GB free"
    if free < ROOM:
        return [Check("run directory", "warning", detail, "free some space, or train with --out elsewhere")]
    return [Check("run directory", "ok", detail)]


def check_assets() -> list[Check]:
    """Return whether the files that gkiller ships are there."""
    if missing := [name for name in ASSETS if not files("gkiller").joinpath(*name.split("/")).is_file()]:
        return [Check("assets", "failed", "missing: " + ", ".join(missing), "install gkiller again")]
    return [Check("assets", "ok", f"{len(ASSETS)} present")]


def check_round_trip() -> list[Check]:
    """Train, save, load and predict with a tiny model."""
    remedy = "see the checks above; 'gkiller --debug train --preset fast' shows the traceback"
    try:
        from gkiller.training.train import round_trip

        result = round_trip()
    except GkillerError as error:
        return [_refused("round trip", error)]
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return [Check("round trip", "failed", f"{type(error).__name__}: {error}", remedy)]
    if not result["ok"]:
        detail = f"two loads of one model do not give the same finite scores: {result['scores']}"
        return [Check("round trip", "failed", detail, remedy)]
    how = f"{'with' if result['dendrites'] else 'without'} dendrites"
    detail = f"trained {how}, saved, loaded, predicted; fold difference {result['fold_difference']:.1e}"
    return [Check("round trip", "ok", detail)]


def check_scoring() -> list[Check]:
    """Return whether the default model scores: all that the light package does."""
    from gkiller.inference import load

    try:
        prediction = load().predict("you are an idiot")
    except GkillerError as error:
        return [Check("scoring", "failed", f"{error.where}: {error.what}".lstrip(": "), error.remedy)]
    status: Status = "ok" if prediction.flagged else "failed"
    training = Check("training", "skipped", f"{LITE} scores and does not train", "pip install gkiller trains")
    return [Check("scoring", status, f"an insult scores {max(prediction.scores.values()):.3f}"), training]


def check_model(path: str) -> list[Check]:
    """Return whether a model is whole, and whether its graphs score here as where they were made."""
    from gkiller.deployment.probes import recheck

    try:
        whole = _whole(path)
    except GkillerError as error:
        return [_refused("model", error)]
    try:
        return [whole, *(_graph(one, path) for one in recheck(path))]
    except ExportError as error:
        return [whole, Check("graphs", "skipped", error.what, error.remedy)]
    except GkillerError as error:
        return [whole, _refused("graphs", error)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        detail = f"not usable: {type(error).__name__}: {error}"
        return [whole, Check("graphs", "failed", detail, f"run: gkiller export {path}")]


def _whole(path: str) -> Check:
    """Check every file; of a copy without weights, which scoring does not need, what it scores with."""
    from gkiller.inference import load
    from gkiller.model.directory import load_model
    from gkiller.model.layout import WEIGHTS, find_model

    if (find_model(path) / WEIGHTS).is_file():
        model = load_model(path)
        return Check("model", "ok", f"{model.path}: {', '.join(model.labels)}; all digests are right")
    copy = load(path)
    return Check("model", "ok", f"{copy.path}: {', '.join(copy.labels)}; a copy to score with, without {WEIGHTS}")


def _graph(one: Recheck, path: str) -> Check:
    detail = (
        f"{one.probes} probes: {one.max_difference:.1e} at most from the scores where it was exported "
        f"(limit {one.score_difference:g}), {one.flips} flips; {one.from_reference:.1e} from the trained model"
    )
    if one.missing_flags:
        detail += f"; not here: {', '.join(one.missing_flags)}"
    if one.passed:
        return Check(one.file, "ok", detail)
    return Check(one.file, "failed", detail, f"run on this machine: gkiller quantize {path} --portable")


STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Also score an exported model's probes, as where it was made; 'default' is the shipped one.",
        ),
    ] = None,
    online: Annotated[
        bool, typer.Option("--online/--offline", help="Ask whether the hub answers, over the network.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check the set-up, down to a tiny training.

    Versions, processor, device, perforatedai, settings, the run directory, the shipped files, and a round
    trip: train, save, load, predict; with --online the hub, too. Ends with 1 when a check failed; a hub
    that cannot be reached is a warning. With MODEL, every graph of it must score as it did where it was
    exported: int8 arithmetic is not the same on every processor.
    """
    examinations: list[Callable[[], list[Check]]] = [
        check_versions,
        check_cpu,
        lambda: check_hub(online=online),
        check_settings,
        check_assets,
    ]
    if installed() == [LITE]:
        examinations.append(check_scoring)
    else:
        examinations += [check_device, check_perforatedai, lambda: check_runs(Path.cwd()), check_round_trip]
    if model is not None:
        examinations.append(lambda: check_model(model))
    found: list[Check] = []
    with progress("checking") as advance:
        for done, examination in enumerate(examinations):
            advance(done, len(examinations))
            found += examination()
    failed = any(check.status == "failed" for check in found)
    if json:
        emit_json({"ok": not failed, "checks": found})
    else:
        rows = [
            (check.name, Text(check.status, style=STYLES[check.status]), check.detail, check.remedy) for check in found
        ]
        show(results_table("", ("check", "status", "finding", "remedy"), rows))
        show(", ".join(f"{sum(check.status == status for check in found)} {status}" for status in STYLES))
    if failed:
        raise typer.Exit(1)
