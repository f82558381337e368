"""Which labelled comments a model is measured on: those of its own run, or others that are named.

A run's own data must be what they were when it was trained: of data that were split again, rows that the
model learnt could stand in the test split.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.data.load import ALL, Labelled, load_labelled, split_fingerprint
from gkiller.data.sources import is_plain_path, public_source
from gkiller.errors import DataChangedError, SettingsError, SourceNotFoundError

if TYPE_CHECKING:
    from gkiller.settings.definition import DataSettings
    from gkiller.tokens.batches import LongText
    from gkiller.wording import Progress

_LEARNT = "the model was trained on these rows: the figures are better than on new comments"
_NAME_THEM = "put the data back as they were, or name the data to measure on with --data"


@dataclass(frozen=True)
class DataChoice:
    """What to measure on."""

    data: DataSettings
    run: Path | None  # the run whose own data they are, None for other data


def run_of(model: Path) -> Path | None:
    """Return the run directory that a model directory belongs to, or None."""
    parent = model.resolve().parent
    return parent if (parent / "settings.toml").is_file() and model.name == "model" else None


def choose_data(model: Path, settings: DataSettings, asked: Collection[str]) -> DataChoice:
    """Return the data that were asked for, else those of the model's own run.

    Args:
        asked: the dotted keys that the command line itself set. What lies around (``gkiller.toml``,
            variables) does not replace a run's own data.

    Raises:
        SettingsError: the model is outside of its run, so that its data are not known; or it was asked how
            to read data and not which.
        SourceNotFoundError: the run's data are not where they were.
        DataChangedError: the run's manifest cannot be read.
    """
    if "data.source" in asked:
        return DataChoice(settings, None)
    run = run_of(model)
    if run is None:
        raise SettingsError(
            "this model is outside of its run, so its data are not known",
            where=str(model),
            remedy="name them with --data",
        )
    from gkiller.settings import resolve

    own = resolve(config=run / "settings.toml", environ={}).settings.data
    _refuse_unused(settings, own, asked)
    return DataChoice(located(own, run), run)


def load_chosen(choice: DataChoice, split: str | None, progress: Progress | None = None, *, default: str) -> Labelled:
    """Return the rows to measure on; arguments as in `load_labelled`.

    A run's own data are read as they were for its training: a single file is split, not taken whole.

    Raises:
        DataChangedError: the run's own data are not those that it was trained with.
        SettingsError, DataError: see `load_labelled`.
    """
    if choice.run is None:
        return load_labelled(choice.data, split, progress, default=default)
    found = load_labelled(choice.data, split, progress, default=default, whole_file=False)
    _check_unchanged(found, choice.data, choice.run)
    return found


def tuned_on(found: Labelled, long_text: LongText) -> dict[str, Any]:
    """Return what a model directory records of how thresholds were tuned: rows, and how they were read."""
    return {
        "source": public_source(str(found.dataset.manifest.get("source", ""))),
        "split": found.name,
        "rows": len(found.rows),
        "fingerprints": _fingerprints(found),
        "long_text": long_text,
    }


def measuring_warnings(choice: DataChoice, found: Labelled, thresholds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return why figures on these rows would be too good."""
    warnings = []
    if choice.run is not None and found.name in ("train", ALL):
        warnings.append(_LEARNT)
    here = set(_fingerprints(found))
    of_training = choice.run is not None and found.name in ("valid", ALL)
    return warnings + _tuned_here(thresholds, here, of_training)


def comparing_warnings(
    model: Path, choice: DataChoice, found: Labelled, thresholds: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return why a model's figures would be too good on rows that may be another run's, or of any source.

    What its run was trained and tuned on is known by fingerprints; of a model outside of its run only
    what its thresholds were tuned on, where that is recorded.
    """
    run = run_of(model)
    if run is not None and choice.run == run:
        return measuring_warnings(choice, found, thresholds)
    here = set(_fingerprints(found))
    if run is None or not (run / "manifest.json").is_file():
        return _tuned_here(thresholds, here, False)
    from gkiller.settings import resolve

    recorded = _recorded(run)["fingerprints"]
    own = resolve(config=run / "settings.toml", environ={}).settings.data
    now = _as_trained(found, own).get("train")
    same = now == recorded.get("train")
    warnings = []
    if recorded.get("train") in here or (same and found.name in ("train", ALL)):
        warnings.append(_LEARNT)
    elif now is not None and not same:
        warnings.append(
            "the model was trained on other rows than this data set's train split: it may have learnt some of these"
        )
    return warnings + _tuned_here(thresholds, here, recorded.get("valid") in here)


def tuning_warnings(choice: DataChoice, found: Labelled) -> list[str]:
    """Return why thresholds should not be tuned on these rows."""
    warnings = []
    whole = found.name == ALL and len(found.dataset.splits) > 1
    if found.name == "test" or (whole and "test" in found.dataset.splits):
        warnings.append(
            "this uses up the test split: thresholds were tuned on it, so that figures measured on it are no "
            "test any more; gkiller.json and the model card say so. Tune again without --split, or measure "
            "on other comments"
        )
    if choice.run is not None and found.name in ("train", ALL):
        warnings.append("the model was trained on these rows, so its scores there are surer than on new comments")
    return warnings


def _fingerprints(found: Labelled) -> list[str]:
    """Return the fingerprints of the splits that rows are made of."""
    splits = list(found.dataset.splits.values()) if found.name == ALL else []
    return [split_fingerprint(split, found.dataset.labels) for split in splits or [found.rows]]


def _tuned_here(thresholds: Mapping[str, Mapping[str, Any]], here: Collection[str], of_training: bool) -> list[str]:
    """Return a warning when thresholds were tuned on the splits of these fingerprints.

    Args:
        of_training: whether those that training tuned, which record nothing, were tuned on them.
    """
    tuned = [
        label
        for label, entry in thresholds.items()
        if (set(here) & set(entry["tuned_on"]["fingerprints"]) if "tuned_on" in entry else of_training)
    ]
    if not tuned:
        return []
    which = "the thresholds" if len(tuned) == len(thresholds) else f"the thresholds of {', '.join(tuned)}"
    return [f"{which} were tuned on these rows: figures at them are better than on new comments"]


def _as_trained(found: Labelled, data: DataSettings) -> dict[str, str]:
    """Return the fingerprint of each split of the data set as training with these settings takes it."""
    splits = dict(found.dataset.splits)
    if data.sample_size is not None and "train" in splits:
        splits["train"] = splits["train"].sample(data.sample_size, data.split_seed)
    return {name: split_fingerprint(split, found.dataset.labels) for name, split in splits.items()}


def _refuse_unused(settings: DataSettings, own: DataSettings, asked: Collection[str]) -> None:
    """Refuse settings of data that would not be heeded."""
    keys = [key for key in sorted(asked) if key.startswith("data.")]
    fields = [key.removeprefix("data.") for key in keys]
    unused = [name for name in fields if getattr(settings, name) != getattr(own, name)]
    if unused:
        raise SettingsError(
            "this says how to read data, but no data are named, and those of the model's own run are read "
            "as for its training",
            where=", ".join(f"data.{name}" for name in unused),
            remedy="name the data with --data, or leave it out",
        )


def located(data: DataSettings, run: Path, *, remedy: str = _NAME_THEM) -> DataSettings:
    """Return a run's data settings with a local source where it is: runs are used from anywhere.

    Looked at are the absolute path that the manifest records (it may be older than such records), the
    source as it is named, and the source beside the directory of runs, as when all was moved together.

    Raises:
        SourceNotFoundError: they are at none of these places.
        DataChangedError: the run's manifest cannot be read.
    """
    recorded, path = _recorded(run), Path(data.source).expanduser()
    known = recorded.get("path")
    if data.source == "sample" or ("path" in recorded and not known):
        return data
    places = [*([Path(str(known))] if known else []), path, run.parent.parent / path]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        if not known and not is_plain_path(data.source):
            return data  # a hub data set
        was = f", which was {known}" if known and str(known) != data.source else ""
        raise SourceNotFoundError(
            f"the data that this run was trained on are not there: {data.source!r}{was}",
            where=f"{run / 'settings.toml'}, data.source",
            remedy=remedy,
        )
    if path.exists() and path.samefile(found):
        return data
    return data.model_copy(update={"source": str(found)})


def _recorded(run: Path) -> dict[str, Any]:
    """Return what a run's manifest says of its data."""
    path = run / "manifest.json"
    try:
        data = json.loads(path.read_text("utf-8"))["data"]
        if not isinstance(data["fingerprints"], dict):
            raise TypeError("the fingerprints are no object")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataChangedError(
            "the run's manifest cannot be read, so it is unknown whether its data have changed",
            where=str(path),
            remedy="put it back, or name the data to measure on with --data",
        ) from error
    found: dict[str, Any] = data
    return found


def _check_unchanged(found: Labelled, data: DataSettings, run: Path) -> None:
    """Compare the rows, and those trained on, with what the run was trained with."""
    recorded, now = _recorded(run)["fingerprints"], _as_trained(found, data)
    names = ["train", *({*recorded, *now} if found.name == ALL else {found.name})]
    changed = sorted({name for name in names if now.get(name) != recorded.get(name)})
    if changed:
        raise DataChangedError(
            f"the run's data have changed since it was trained ({' and '.join(changed)}), so rows that it "
            "learnt could be among those to measure on",
            where=str(found.dataset.manifest.get("source", data.source)),
            remedy=_NAME_THEM,
        )
