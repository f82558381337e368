"""What ``gkiller doctor MODEL`` checks of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkiller.cli.checks import Check
from gkiller.errors import ExportError, GkillerError

if TYPE_CHECKING:
    from gkiller.deployment.recheck import Recheck


def check_model(path: str) -> list[Check]:
    """Return whether a model is whole, and whether its graphs score here as where they were made."""
    from gkiller.deployment.recheck import recheck

    try:
        whole = [_whole(path)]
    except GkillerError as error:
        return [Check("model", "failed", f"{error.where}: {error.what}", error.remedy)]
    try:
        return whole + [_graph(one, path) for one in recheck(path)]
    except ExportError as error:
        return [*whole, Check("graphs", "skipped", error.what, error.remedy)]
    except GkillerError as error:
        return [*whole, Check("graphs", "failed", f"{error.where}: {error.what}", error.remedy)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        detail = f"not usable: {type(error).__name__}: {error}"
        return [*whole, Check("graphs", "failed", detail, f"run: gkiller export {path}")]


def _whole(path: str) -> Check:
    """Check every file; of a copy without weights, which scoring does not need, what it scores with."""
    from gkiller.inference import load
    from gkiller.model.directory import load_model
    from gkiller.model.layout import WEIGHTS, find_model

    if (find_model(path) / WEIGHTS).is_file():
        model = load_model(path)
        return Check("model", "ok", f"{model.path}: {', '.join(model.labels)}; all digests are right")
    deployed = load(path)
    detail = f"{deployed.path}: {', '.join(deployed.labels)}; a copy to score with, without {WEIGHTS}"
    return Check("model", "ok", detail)


def _graph(one: Recheck, path: str) -> Check:
    detail = (
        f"{one.probes} probes: {one.max_difference:.1e} at most from the scores where it was exported "
        f"(limit {one.score_difference:g}), {one.flips} flips; "
        f"{one.from_reference:.1e} from the trained model"
    )
    if one.missing_flags:
        detail += f"; not here: {', '.join(one.missing_flags)}"
    if one.passed:
        return Check(one.file, "ok", detail)
    remedy = f"run on this machine: gkiller quantize {path} --portable"
    return Check(one.file, "failed", detail, remedy)
