"""Train a model: from settings to a finished run directory."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkiller.data.augment import resolve_kinds
from gkiller.data.dataset import Dataset, Split
from gkiller.data.load import load_dataset, texts_digest
from gkiller.errors import InterruptedRunError, ResumeError, SettingsError, TerminatedRunError, counted
from gkiller.evaluation.source import located
from gkiller.model.dendrites.growth import Growth, PlainGrowth, chosen_linears
from gkiller.model.dendrites.perforated import PerforatedGrowth, require_available
from gkiller.model.layout import settled
from gkiller.model.pretrained import load_tokenizer
from gkiller.settings import settings_by_key
from gkiller.tokens.batches import tokenize
from gkiller.tokens.wordpiece import special_ids
from gkiller.training.augmented import Augmented
from gkiller.training.checkpoint import CheckpointStore
from gkiller.training.distillation import transfer_texts, with_transfer
from gkiller.training.finish import Finished, finish
from gkiller.training.frozen import frozen_parameters, lower_outputs
from gkiller.training.learner import Encoded, Learner
from gkiller.training.opening import (
    changed,
    check_lengths,
    compare_runs,
    network_facts,
    new_manifest,
    new_network,
    open_run,
    resume_command,
    resumed_settings,
    run_settings,
)
from gkiller.training.phases import Position, TrainingEvent
from gkiller.training.ranks import Ranks, joined, rank_device
from gkiller.training.run import RunDirectory
from gkiller.training.runtime import Stopped, StopRequest, resolve_device, runtime, stop_signals
from gkiller.training.teachers import Lesson, Teacher, coverage, find_teachers, lesson, taught_by
from gkiller.training.trainer import EventCallback, Trainer
from gkiller.wording import silent

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from gkiller.settings.definition import DataSettings, Settings
    from gkiller.wording import Progress as DataProgress

_CACHE = "cache"
"""The directory of a run for what is computed once; it goes when the run ends."""
TEACHERS = ".teachers"
"""The directory, beside the runs, of what teachers say."""


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves.

    Attributes:
        manifest: what ``manifest.json`` holds.
        first: whether this process writes and reports; false for the others under ``torchrun``.
    """

    run: RunDirectory
    progress: Position
    finished: Finished
    manifest: dict[str, Any]
    first: bool = True


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
    before: Settings | None = None
    if resume is not None:
        before = run_settings(RunDirectory.open(resume).path)
        resumed_settings(resume, settings, settings_by_key())
    with joined(device) as ranks:
        if settings.train.freeze_layers and ranks.size > 1:
            raise SettingsError(
                "train.freeze_layers works in one process alone",
                where="train.freeze_layers",
                remedy="start gkiller without torchrun, or set it to 0",
            )
        source = settings.data
        if resume is not None:
            source = located(source, resume, remedy="put the data back as they were")
        dataset = _load_data(source, out / ".data", on_data, ranks)
        for split in ("train", "valid"):
            dataset.split(split)  # refused before there is a run directory
        teachers = find_teachers(settings.distill.teachers, dataset.labels)
        transfer = transfer_texts(settings, dataset)
        tokenizer = load_tokenizer(settings.model)
        run = _run_directory(out, name, resume, ranks)
        with contextlib.ExitStack() as stack:
            if ranks.first:
                stack.enter_context(run.lock())
                if resume is None:
                    stack.enter_context(run.discarded_when_refused())
            stack.enter_context(runtime(settings.train, device))
            work = _Work(
                settings, before, run, source.source, dataset, tokenizer, device, ranks, teachers, transfer
            )
            tell = on_event if ranks.first else _ignore
            return work.do(argv, tell, on_data if ranks.first else None, signals=signals)


@dataclass(frozen=True)
class _Work:
    """What one training works on.

    Attributes:
        before: the settings that a resumed run had, None for a new one.
    """

    settings: Settings
    before: Settings | None
    run: RunDirectory
    source: str
    dataset: Dataset
    tokenizer: Tokenizer
    device: torch.device
    ranks: Ranks
    teachers: tuple[Teacher, ...]
    transfer: dict[int, str]

    def do(
        self, argv: Sequence[str], on_event: EventCallback, on_data: DataProgress | None, *, signals: bool
    ) -> TrainResult:
        """Train to the end, and save the model."""
        settings, run, ranks, labels = self.settings, self.run, self.ranks, self.dataset.labels
        manifest = new_manifest(settings, self.source, self.dataset, self.tokenizer, argv, self.device, ranks)
        manifest |= self._distill_facts()
        for message in compare_runs(run, manifest) if self.before else []:
            on_event(TrainingEvent("note", message=message))
        model = new_network(settings.model, labels, self.tokenizer.get_vocab_size())
        frozen_parameters(model, settings.train.freeze_layers)  # refused before anything is written
        manifest |= network_facts(settings, model)
        taken = with_transfer(self.dataset, self.transfer)
        lessons = self._lessons(taken, on_event, on_data)
        store = CheckpointStore(run.checkpoints, settings.train.keep_checkpoints)
        with growing(settings, model.to(self.device)) as growth:
            learner = new_learner(settings, taken, self.tokenizer, growth, ranks)
            learner.train = replace(learner.train, lesson=lessons.get("train"))
            trainer = Trainer(
                settings,
                labels,
                encode(self.tokenizer, self.dataset.split("valid")),
                learner,
                store,
                on_event=on_event,
                on_metrics=run.append_metrics if ranks.first else lambda row: None,
            )
            if self.before is not None:
                _go_on(trainer, run, self.before)
            if ranks.first:
                store.tidy()
                open_run(run, settings, self.before, manifest)
                run.write_metrics(trainer.progress.metrics)
            if settings.train.freeze_layers:
                _compute_lower(trainer, run)
            valid = lessons.get("valid")
            with _until_stopped(trainer, run, signals=signals):
                progress = trainer.run()
                finished = finish(
                    settings,
                    run,
                    self.dataset,
                    self.tokenizer.to_str(),
                    growth,
                    store,
                    progress,
                    manifest,
                    teachers=(self.teachers, valid) if valid else None,
                    write=ranks.first,
                    pause=trainer.heed_stop,
                )
        if settings.train.freeze_layers:
            shutil.rmtree(run.path / _CACHE, ignore_errors=True)
        ranks.from_first(None)  # nobody leaves before the model is written
        return TrainResult(run, progress, finished, manifest, first=ranks.first)

    def _distill_facts(self) -> dict[str, Any]:
        """Return what the manifest records of teachers and transfer comments; nothing without a teacher."""
        if not self.teachers:
            return {}
        facts: dict[str, Any] = {"teachers": [teacher.as_dict() for teacher in self.teachers]}
        if self.transfer:
            facts["transfer"] = {
                "rows": len(self.transfer),
                "sha256": texts_digest(list(self.transfer.values())),
            }
        return {"distill": facts}

    def _lessons(
        self, taken: Dataset, on_event: EventCallback, on_data: DataProgress | None
    ) -> dict[str, Lesson]:
        """Return what the teachers say of the training and the validation split; empty without a teacher."""
        if not self.teachers:
            return {}
        splits = {name: taken.split(name) for name in ("train", "valid")}
        cache = self.run.path.parent / TEACHERS
        if scoring := [teacher for teacher in self.teachers if teacher.scores is None]:
            count = counted(sum(map(len, splits.values())), "comment")
            message = f"teacher {taught_by(scoring)}: {count}, scored once, in {cache}"
            on_event(TrainingEvent("note", message=message))
        found = {}
        for name, split in splits.items():
            found[name] = lesson(
                self.teachers,
                split.texts,
                split.ids,
                self.dataset.labels,
                self.settings.distill,
                cache,
                self.device,
                self.ranks,
                on_data or silent,
            )
        for teacher, each in zip(self.teachers, found["train"].each, strict=True):
            if teacher.scores is not None:
                on_event(TrainingEvent("note", message=coverage(teacher.name, each, str(teacher.folder))))
        return found


def _load_data(data: DataSettings, cache: Path, on_data: DataProgress | None, ranks: Ranks) -> Dataset:
    """Load the data; rank 0 prepares them where that is needed, the others wait for it."""
    dataset = load_dataset(data, cache=cache, progress=on_data) if ranks.first else None
    ranks.from_first(None)
    return dataset or load_dataset(data, cache=cache)


def _run_directory(out: Path, name: str | None, resume: Path | None, ranks: Ranks) -> RunDirectory:
    """Return the run to write to: rank 0 makes it, and tells the others its path."""
    if resume is not None:
        return RunDirectory.open(resume)
    path = str(RunDirectory.create(out, name).path) if ranks.first else None
    return RunDirectory(Path(ranks.from_first(path)))


def new_learner(
    settings: Settings, dataset: Dataset, tokenizer: Tokenizer, growth: Growth, ranks: Ranks
) -> Learner:
    """Return what steps a network on a data set.

    Raises:
        SettingsError: there is no such kind of augmentation.
        SingleClassError: no label has both classes in the training split.
    """
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


def _go_on(trainer: Trainer, run: RunDirectory, before: Settings) -> None:
    """Take up the newest whole checkpoint; tell of damaged ones, and where there is none at all.

    Raises:
        ResumeError: there is nothing to go on with.
    """

    def tell(message: str) -> None:
        trainer.on_event(TrainingEvent("note", message=message))

    checkpoint = trainer.store.newest(lambda damaged: tell(f"passed over: {damaged.where}: {damaged.what}"))
    if checkpoint is None:
        tell("stopped before its first checkpoint: starting from the beginning")
        return
    keys = changed(before, trainer.settings, settings_by_key())
    check_lengths(keys, checkpoint.progress.phase)
    trainer.resume(checkpoint)
    if trainer.done and run.complete:
        raise ResumeError(
            "this run is finished",
            where=str(run.path),
            remedy=f"use its model ({run.model}), or ask for more epochs",
        )
    tell(f"resumed after {trainer.progress.place()}")


def _compute_lower(trainer: Trainer, run: RunDirectory) -> None:
    """Give the trainer's splits what the frozen layers say of them, from the run's cache or computed now."""
    settings, learner = trainer.settings, trainer.learner
    count = settings.train.freeze_layers

    def with_lower(split: Encoded, name: str) -> Encoded:
        comments = counted(len(split.tokens), f"{name} comment")
        what = f"the lowest {counted(count, 'layer')}: outputs for {comments}, kept while the run trains"
        trainer.on_event(TrainingEvent("note", message=what))
        lower = lower_outputs(
            learner.growth.model,
            split.tokens,
            count,
            run.path / _CACHE,
            settings.evaluation.batch_size,
            settings.train.precision,
        )
        return replace(split, lower=lower)

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
            raise kind(
                f"stopped after {trainer.progress.place()}; its checkpoint is written",
                where=str(run.path),
                remedy=f"go on with: {resume_command(run.path, trainer.ranks.size)}",
            ) from None


def encode(tokenizer: Tokenizer, split: Split) -> Encoded:
    """Return a split as the network reads it."""
    return Encoded(tokenize(tokenizer, split.texts), split.labels, split.weights)
