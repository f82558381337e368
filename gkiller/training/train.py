"""Train a model: from settings to a finished run directory."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.data.augment import resolve_kinds
from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import load_dataset, texts_digest
from gkiller.errors import InterruptedRunError, ResumeError, SettingsError, TerminatedRunError
from gkiller.evaluation.source import located
from gkiller.model.dendrites.growth import Growth, chosen_linears
from gkiller.model.dendrites.perforated import PerforatedGrowth, require_available, unavailable_reason
from gkiller.model.directory import load_model
from gkiller.model.layout import settled
from gkiller.model.pretrained import load_tokenizer
from gkiller.scoring.models import score_texts
from gkiller.settings import resolve, settings_by_key
from gkiller.tokens.batches import tokenize
from gkiller.tokens.wordpiece import special_ids
from gkiller.training.checkpoint import CheckpointStore
from gkiller.training.finish import Finished, finish
from gkiller.training.learner import Augmented, Encoded, Learner
from gkiller.training.network import frozen_parameters, lower_outputs, network_facts, new_network
from gkiller.training.phases import Position, note
from gkiller.training.run import (
    RunDirectory,
    RunManifest,
    changed,
    check_lengths,
    compare_runs,
    new_manifest,
    open_run,
    resume_command,
    resumed_settings,
    run_settings,
)
from gkiller.training.runtime import (
    Ranks,
    Stopped,
    StopRequest,
    joined,
    rank_device,
    resolve_device,
    runtime,
    stop_signals,
)
from gkiller.training.teachers import (
    Lesson,
    Teacher,
    coverage,
    find_teachers,
    lesson,
    taught_by,
    transfer_texts,
    with_transfer,
)
from gkiller.training.trainer import EventCallback, Trainer
from gkiller.wording import counted, silent

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from gkiller.settings.definition import DataSettings, Settings
    from gkiller.wording import Progress

_CACHE = "cache"
"""The directory of a run for what is computed once; it goes when the run ends."""
TEACHERS = ".teachers"
"""The directory, next to the runs, of what teachers say."""


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves."""

    run: RunDirectory
    progress: Position
    finished: Finished
    manifest: RunManifest  # what manifest.json holds
    first: bool = True  # whether this process writes and reports; false for the others under torchrun


def train(
    settings: Settings,
    *,
    out: Path = Path("runs"),
    name: str | None = None,
    resume: Path | None = None,
    argv: Sequence[str] = (),
    on_event: EventCallback = lambda event: None,
    on_data: Progress | None = None,
    signals: bool = False,
) -> TrainResult:
    """Train, choose, fold, save and evaluate on the validation split.

    Under ``torchrun`` every process calls it alike: each takes its share of the batches, rank 0 alone
    writes, and all return the same.

    Args:
        settings: of the run; when resuming, those of the run's ``settings.toml``.
        name: of the run; "train-N" when None.
        resume: an existing run to go on with, instead of a new one.
        signals: whether an interrupt or a termination signal lets the loop finish its step and write a
            checkpoint first; for a program whose main thread this is.

    Raises:
        GkillerError: bad settings, data or encoder; an existing run; a loss that is not finite; dendrites
            asked for on a platform without perforatedai.
        InterruptedRunError, TerminatedRunError: a signal stopped it, with ``signals``.
    """
    settings = settings.model_copy(update={"model": settled(settings.model)})
    if settings.dendrites.enabled:
        require_available()
    device = rank_device(resolve_device(settings.train.device))
    before = None
    if resume is not None:
        before = run_settings(RunDirectory.open(resume).path)
        resumed_settings(resume, settings, settings_by_key())  # refuses what may not change
    with joined(device) as ranks, contextlib.ExitStack() as stack:
        _require_one_process(settings, ranks)
        tell, on_data = (on_event, on_data) if ranks.first else (lambda event: None, None)

        # What is learnt from; all of it is refused before there is a run directory.
        source = settings.data
        if resume is not None:
            source = located(source, resume, remedy="put the data back as they were")
        dataset = _load_data(source, out / ".data", on_data, ranks)
        teachers = find_teachers(settings.distill.teachers, dataset.labels)
        transfer = transfer_texts(settings, dataset)
        tokenizer = load_tokenizer(settings.model)

        # The run.
        run = _run_directory(out, name, resume, ranks)
        if ranks.first:
            stack.enter_context(run.lock())
            if resume is None:
                stack.enter_context(run.discarded_when_refused())
        stack.enter_context(runtime(settings.train, device))
        manifest = new_manifest(settings, source.source, dataset, tokenizer, argv, device, ranks)
        if teachers:
            manifest["distill"] = _distill_facts(teachers, transfer)
        if before and (message := compare_runs(run, manifest)):
            tell(note(message))

        # The network, and what the teachers say.
        model = new_network(settings.model, dataset.labels, tokenizer.get_vocab_size())
        frozen_parameters(model, settings.train.freeze_layers)  # refused before anything is written
        if network := network_facts(settings, model):
            manifest["network"] = network
        taken = with_transfer(dataset, transfer)
        cache = run.path.parent / TEACHERS
        how = taken.labels, settings.distill, cache, device, ranks, on_data or silent
        lessons = _lessons(teachers, taken, cache, tell, lambda split: lesson(teachers, split.texts, split.ids, *how))

        # The phases, and the model that comes of them.
        store = CheckpointStore(run.checkpoints, settings.train.keep_checkpoints)
        with growing(settings, model.to(device)) as growth:
            learner = new_learner(settings, taken, tokenizer, growth, ranks)
            learner.train = replace(learner.train, lesson=lessons.get("train"))
            valid = encode(tokenizer, dataset.split("valid"))
            append = run.append_metrics if ranks.first else lambda row: None
            trainer = Trainer(settings, dataset.labels, valid, learner, store, on_event=tell, on_metrics=append)
            if before is not None:
                _go_on(trainer, run, before)
            if ranks.first:
                store.tidy()
                open_run(run, settings, before, manifest)
                run.write_metrics(trainer.progress.metrics)
            if settings.train.freeze_layers:
                _compute_lower(trainer, run)
            with _until_stopped(trainer, run, signals=signals):
                progress = trainer.run()
                said = (teachers, lessons["valid"]) if teachers else None
                finished = finish(trainer, run, dataset, tokenizer.to_str(), manifest, said)
        shutil.rmtree(run.path / _CACHE, ignore_errors=True)
        ranks.from_first(None)  # nobody leaves before the model is written
        return TrainResult(run, progress, finished, manifest, first=ranks.first)


def _require_one_process(settings: Settings, ranks: Ranks) -> None:
    if settings.train.freeze_layers and ranks.size > 1:
        what = "train.freeze_layers works in one process alone"
        raise SettingsError(what, where="train.freeze_layers", remedy="start gkiller without torchrun, or set it to 0")


def _load_data(data: DataSettings, cache: Path, on_data: Progress | None, ranks: Ranks) -> Dataset:
    """Load the data; rank 0 prepares them where that is needed, the others wait for it."""
    dataset = load_dataset(data, cache=cache, progress=on_data) if ranks.first else None
    ranks.from_first(None)
    dataset = dataset or load_dataset(data, cache=cache)
    for split in ("train", "valid"):
        dataset.split(split)  # refused where it is missing
    return dataset


def _run_directory(out: Path, name: str | None, resume: Path | None, ranks: Ranks) -> RunDirectory:
    """Return the run to write to: rank 0 makes it, and tells the others its path."""
    if resume is not None:
        return RunDirectory.open(resume)
    path = str(RunDirectory.create(out, name).path) if ranks.first else None
    return RunDirectory(Path(ranks.from_first(path)))


def _distill_facts(teachers: Sequence[Teacher], transfer: dict[int, str]) -> dict[str, Any]:
    """Return what the manifest records of teachers and transfer comments."""
    facts: dict[str, Any] = {"teachers": [teacher.as_dict() for teacher in teachers]}
    if transfer:
        facts["transfer"] = {"rows": len(transfer), "sha256": texts_digest(list(transfer.values()))}
    return facts


def _lessons(
    teachers: Sequence[Teacher], taken: Dataset, cache: Path, tell: EventCallback, say: Callable[[Split], Lesson]
) -> dict[str, Lesson]:
    """Return what teachers ``say`` of the training and the validation split, and tell of it; {} without any."""
    splits = {name: taken.split(name) for name in ("train", "valid")} if teachers else {}
    if scoring := [teacher for teacher in teachers if teacher.scores is None]:
        count = counted(sum(map(len, splits.values())), "comment")
        tell(note(f"teacher {taught_by(scoring)}: {count}, scored once, in {cache}"))
    found = {name: say(split) for name, split in splits.items()}
    for place, teacher in enumerate(teachers):
        if teacher.scores is not None:
            tell(note(coverage(teacher.name, found["train"].each[place], str(teacher.folder))))
    return found


def encode(tokenizer: Tokenizer, split: Split) -> Encoded:
    """Return a split as the network reads it."""
    return Encoded(tokenize(tokenizer, split.texts), split.labels, split.weights)


def new_learner(settings: Settings, dataset: Dataset, tokenizer: Tokenizer, growth: Growth, ranks: Ranks) -> Learner:
    """Return what steps a network on a data set; errors as `Learner`, and for an unknown kind of augmentation."""
    special, split = special_ids(tokenizer), dataset.split("train")
    encoded = encode(tokenizer, split)
    own, kinds = settings.augment, resolve_kinds(settings.augment.kinds)
    share, seed = settings.train.augment, settings.train.seed
    changes = Augmented(split.texts, encoded.tokens, tokenizer, kinds, own.intensity, share, seed)
    return Learner(
        settings,
        dataset.labels,
        growth,
        encoded,
        ranks=ranks,
        mask_token=-1 if special.mask is None else special.mask,
        special_tokens=list(special.kept),
        augmented=changes if share else None,
    )


@contextlib.contextmanager
def growing(settings: Settings, model: Any) -> Iterator[Growth]:
    """Wrap a classifier for training, with dendrites or without, for as long as the block lasts."""
    own = settings.dendrites
    if not own.enabled:
        yield Growth(model)
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


def _go_on(trainer: Trainer, run: RunDirectory, before: Settings) -> None:
    """Take up the newest whole checkpoint; tell of damaged ones, and where there is none at all."""
    tell = trainer.on_event
    checkpoint = trainer.store.newest(lambda damaged: tell(note(f"passed over: {damaged.where}: {damaged.what}")))
    if checkpoint is None:
        tell(note("stopped before its first checkpoint: starting from the beginning"))
        return
    check_lengths(changed(before, trainer.settings, settings_by_key()), checkpoint.progress.phase)
    trainer.resume(checkpoint)
    if trainer.done and run.complete:
        raise ResumeError(
            "this run is finished", where=str(run.path), remedy=f"use its model ({run.model}), or ask for more epochs"
        )
    tell(note(f"resumed after {trainer.progress.place()}"))


def _compute_lower(trainer: Trainer, run: RunDirectory) -> None:
    """Give the trainer's splits what the frozen layers say of them, from the run's cache or computed now."""
    settings, learner, count = trainer.settings, trainer.learner, trainer.settings.train.freeze_layers
    how = count, run.path / _CACHE, settings.evaluation.batch_size, settings.train.precision

    def with_lower(split: Encoded, name: str) -> Encoded:
        comments = counted(len(split.tokens), f"{name} comment")
        what = f"the lowest {counted(count, 'layer')}: outputs for {comments}, kept while the run trains"
        trainer.on_event(note(what))
        return replace(split, lower=lower_outputs(learner.growth.model, split.tokens, *how))

    learner.train = with_lower(learner.train, "training")
    trainer.valid_split = with_lower(trainer.valid_split, "validation")


@contextlib.contextmanager
def _until_stopped(trainer: Trainer, run: RunDirectory, *, signals: bool) -> Iterator[None]:
    """Tell how to go on with the run where, with ``signals``, one of them stops what the block does."""
    with stop_signals() if signals else contextlib.nullcontext(StopRequest()) as trainer.stop:
        try:
            yield
        except Stopped as stopped:
            kind = TerminatedRunError if stopped.number == signal.SIGTERM else InterruptedRunError
            what = f"stopped after {trainer.progress.place()}; its checkpoint is written"
            remedy = f"go on with: {resume_command(run.path, trainer.ranks.size)}"
            raise kind(what, where=str(run.path), remedy=remedy) from None


_TINY = (
    *("data.sample_size=64", "model.layers=1", "model.hidden=16", "model.ffn=16", "model.max_length=16"),
    *("train.epochs=1", "dendrites.epochs=1", "dendrites.joint_epochs=0", "evaluation.resamples=10"),
    "train.threads=1",
)


def round_trip() -> dict[str, Any]:
    """Train on a few sample rows, save, load twice and predict; "ok" says whether both give the same finite scores."""
    dendrites = not unavailable_reason()
    settings = resolve(overrides=[*_TINY, f"dendrites.enabled={str(dendrites).lower()}"], environ={}).settings
    with tempfile.TemporaryDirectory(prefix="gkiller-selftest-") as folder:
        result = train(settings, out=Path(folder))
        models = [load_model(result.run.path) for _ in range(2)]
    scores = [score_texts(model, ["you are kind"]) for model in models]
    return {
        "ok": bool(np.isfinite(scores[0]).all() and np.array_equal(scores[0], scores[1])),
        "dendrites": dendrites,
        "fold_difference": result.finished.fold_difference,
        "scores": dict(zip(models[0].labels, scores[0][0].tolist(), strict=True)),
    }
