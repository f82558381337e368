"""Train a model: from settings to a finished run directory."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.data.batches import tokenize
from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import load_dataset, split_fingerprint
from gkiller.errors import ResumeError
from gkiller.model.classifier import build_classifier
from gkiller.model.growth import Growth, PlainGrowth, chosen_linears
from gkiller.model.perforated import PerforatedGrowth, require_available
from gkiller.model.tokenizer import load_tokenizer
from gkiller.report.environment import environment
from gkiller.report.run import RunDirectory
from gkiller.settings import settings_by_key
from gkiller.training.checkpoint import CheckpointStore, Progress
from gkiller.training.events import TrainingEvent
from gkiller.training.finish import Finished, finish
from gkiller.training.resume import resumed_settings
from gkiller.training.runtime import cpu_count, resolve_device, runtime
from gkiller.training.trainer import Encoded, EventCallback, Trainer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from gkiller.data.clean import Progress as DataProgress
    from gkiller.settings.definition import Settings


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves.

    Attributes:
        run: the run directory.
        progress: phases, epochs and best scores.
        finished: the saved model's figures.
        manifest: what ``manifest.json`` holds.
    """

    run: RunDirectory
    progress: Progress
    finished: Finished
    manifest: dict[str, Any]


def _ignore(event: TrainingEvent) -> None:
    """Drop an event."""


def train(
    settings: Settings,
    *,
    out: Path = Path("runs"),
    name: str | None = None,
    resume: Path | None = None,
    argv: Sequence[str] = (),
    on_event: EventCallback = _ignore,
    on_data: DataProgress | None = None,
) -> TrainResult:
    """Train, choose, fold, save and evaluate on the validation split.

    Args:
        settings: of the run; when resuming, those of the run's ``settings.toml``.
        out: directory of runs.
        name: of the run; "train-N" when None.
        resume: an existing run to go on with, instead of a new one.
        argv: the command line, for the manifest.
        on_event: told of phases, steps and epochs.
        on_data: told of the preparation of data that are not prepared yet.

    Raises:
        GkillerError: bad settings, data or encoder; an existing run; a loss that is not finite; dendrites
            asked for on a platform without perforatedai.
    """
    if settings.dendrites.enabled:
        require_available()
    device = resolve_device(settings.train.device)
    run = RunDirectory.open(resume) if resume else None
    if run is not None:
        resumed_settings(run.path, settings, settings_by_key())
    dataset = load_dataset(settings.data, cache=out / ".data", progress=on_data)
    train_split, valid_split = dataset.split("train"), dataset.split("valid")
    tokenizer = load_tokenizer(settings.model)
    run = run or RunDirectory.create(out, name)
    tidy = run.discarded_when_refused() if resume is None else contextlib.nullcontext()
    with tidy, run.lock(), runtime(settings.train, device):
        manifest = _manifest(settings, dataset, tokenizer, argv, device)
        _open_run(run, settings, manifest, resuming=resume is not None)
        model = build_classifier(settings.model, dataset.labels, tokenizer.get_vocab_size())
        with growing(settings, model.to(device)) as growth:
            trainer = Trainer(
                settings,
                dataset.labels,
                _encode(tokenizer, train_split),
                _encode(tokenizer, valid_split),
                growth,
                CheckpointStore(run.checkpoints, settings.train.keep_checkpoints),
                mask_token=_token(tokenizer, "[MASK]"),
                special_tokens=[_token(tokenizer, t) for t in ("[PAD]", "[CLS]", "[SEP]")],
                on_event=on_event,
                on_metrics=run.append_metrics,
            )
            progress = _run(trainer, run, resuming=resume is not None)
            finished = finish(
                settings, run, dataset, tokenizer.to_str(), growth, trainer.store, progress, manifest
            )
    return TrainResult(run, progress, finished, manifest)


@contextlib.contextmanager
def growing(settings: Settings, model: Any) -> Iterator[Growth]:
    """Wrap a classifier for training, with dendrites or without, for as long as the block lasts."""
    own = settings.dendrites
    if not own.enabled:
        yield PlainGrowth(model)
        return
    with PerforatedGrowth(
        model,
        chosen_linears(model, own.patterns),
        activation=own.activation,
        patience=own.switch_patience,
        most=own.count,
        seed=settings.train.seed,
        init_std=own.init_std,
    ) as growth:
        yield growth


def _run(trainer: Trainer, run: RunDirectory, *, resuming: bool) -> Progress:
    if not resuming:
        return trainer.run()
    checkpoint = trainer.store.newest()
    run.cut_metrics(checkpoint.progress.epoch)
    return trainer.run(checkpoint)


def _encode(tokenizer: Tokenizer, split: Split) -> Encoded:
    return Encoded(tokenize(tokenizer, split.texts), split.labels, split.weights)


def _token(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    return -1 if found is None else int(found)


def _open_run(run: RunDirectory, settings: Settings, manifest: dict[str, Any], *, resuming: bool) -> None:
    """Write settings and manifest of a new run, or check that a resumed one still has its data."""
    if not resuming:
        run.write_settings(settings)
        run.write_json("manifest.json", manifest)
        return
    before = run.read_json("manifest.json")
    for key in ("data", "tokenizer_sha256"):
        if before.get(key) != manifest[key]:
            raise ResumeError(
                f"the {key.split('_')[0]} of this run have changed since it began",
                where=str(run.path),
                remedy="put them back, or start a new training",
            )
    manifest["resumed"] = [*before.get("resumed", []), manifest["started"]]
    manifest["started"], manifest["argv"] = before["started"], before["argv"]
    run.write_json("manifest.json", manifest)


def _manifest(
    settings: Settings, dataset: Dataset, tokenizer: Tokenizer, argv: Sequence[str], device: torch.device
) -> dict[str, Any]:
    return {
        "argv": list(argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": settings.train.seed,
        "threads": settings.train.threads or cpu_count(),
        "device": str(device),
        "data": {
            "source": dataset.manifest.get("source", settings.data.source),
            "synthetic": bool(dataset.manifest.get("synthetic", False)),
            "labels": list(dataset.labels),
            "rows": {name: len(split) for name, split in dataset.splits.items()},
            "fingerprints": {
                name: split_fingerprint(split, dataset.labels) for name, split in dataset.splits.items()
            },
        },
        "tokenizer_sha256": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "environment": environment(),
    }
