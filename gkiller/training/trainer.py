"""The training loop: phases, epochs, steps, checkpoints."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from gkiller.errors import DivergedError, ResumeError
from gkiller.tokens.batches import training_batches
from gkiller.training.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from gkiller.training.learner import Encoded, Learner, Validation, require_both_classes
from gkiller.training.losses import build_optimizer, rate, trained_parameters
from gkiller.training.network import frozen_parameters
from gkiller.training.phases import (
    Gain,
    Phase,
    Position,
    TrainingEvent,
    ends_dendrite,
    first_phase,
    gain_line,
    judge,
    kept_dendrites,
    lengths,
    next_phase,
)
from gkiller.training.runtime import Stopped, StopRequest, check_same, restore_rng, rng_state, seed_everything
from gkiller.wording import counted

if TYPE_CHECKING:
    from gkiller.data.dataset import FloatArray
    from gkiller.settings.definition import Settings
    from gkiller.training.checkpoint import CheckpointStore
    from gkiller.training.phases import Phase, Position

EventCallback = Callable[[TrainingEvent], None]
_EPOCH_STRIDE = 1_000_003  # primes: the seeds of neighbouring runs, epochs and ranks do not meet
_RANK_STRIDE = 7_919


class Trainer:
    """Trains one network through its phases; a SingleClassError where no label has both classes in a split."""

    def __init__(
        self,
        settings: Settings,
        names: tuple[str, ...],
        valid: Encoded,
        learner: Learner,
        store: CheckpointStore,
        *,
        on_event: EventCallback,
        on_metrics: Callable[[dict[str, Any]], None],
    ) -> None:
        watched = learner.watched
        require_both_classes(valid.labels[:, watched], [names[place] for place in watched])
        self.settings = settings
        self.valid_split = valid
        self.learner, self.growth, self.ranks = learner, learner.growth, learner.ranks
        self.store = store
        self.on_event = on_event
        self.on_metrics = on_metrics
        self.stop = StopRequest()
        self.steps = math.ceil(len(learner.train.tokens) / settings.train.batch_size)
        self.lengths = lengths(settings, self.steps)
        self.progress = Position(first_phase(settings, self.lengths))
        self._optimizer_state: dict[str, Tensor] = {}
        self._saved_at = time.monotonic()

    # -- phases ---------------------------------------------------------------------------------

    def run(self) -> Position:
        """Train from the start, or from where `resume` has put it; returns the finished progress.

        Raises:
            DivergedError: the loss is not finite.
            Stopped: it was asked to stop.
        """
        self._saved_at = time.monotonic()
        while not self.progress.finished:
            if not self._phase_over():
                self._run_phase()
            self._optimizer_state = {}  # what a checkpoint holds is for its own phase only
            self._advance()
        return self.progress

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint; a ResumeError where it does not fit this training."""
        progress = self.progress = checkpoint.progress
        most = self.settings.dendrites.count if self.settings.dendrites.enabled else 0
        if progress.phase.dendrites > most or not 0 <= progress.step <= self.steps:
            raise ResumeError(f"the checkpoint, {progress.place()}, is of another training")
        epochs, planned = self.lengths.of(progress.phase), counted(progress.phase.epochs, "epoch")
        if epochs < progress.phase.epochs:
            what = f"the {progress.phase.name} phase was planned for {planned} and cannot get shorter"
            raise ResumeError(what, remedy=f"ask for {planned} or more")
        progress.phase = replace(progress.phase, epochs=epochs)
        for score in progress.tracked:
            if self.growth.count == 0:
                self.growth.observe(score)
        while self.growth.count < progress.phase.dendrites:
            self.growth.grow(max(progress.best.values()))
        if not self._switched():  # else the network has grown since it was written
            own, given = self.growth.state(), checkpoint.weights
            fits = {name for name in own.keys() & given.keys() if own[name].shape == given[name].shape}
            if odd := sorted({*own, *given} - fits):
                raise ResumeError(f"the checkpoint is of another network: {', '.join(odd[:3])}")
        self.growth.load(checkpoint.weights)
        self._restore_rng(checkpoint.rng)
        self._optimizer_state = checkpoint.optimizer

    def heed_stop(self) -> None:
        """Raise `Stopped` if a rank was asked to stop; the newest checkpoint must hold all that there is."""
        (asked,) = self._agreed(self.stop.number)
        if asked:
            raise Stopped(asked)

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self._phase_over() and not self._following()

    def _restore_rng(self, states: list[dict[str, Any]]) -> None:
        if len(states) == self.ranks.size:
            try:
                restore_rng(states[self.ranks.rank], self.learner.device)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise ResumeError(f"invalid states of the random generators: {error}") from error
            return
        self._note(f"begun with {len(states)} processes, now {self.ranks.size}: random numbers start anew")
        self._seed()

    def _advance(self) -> None:
        """Judge a dendrite whose phases are over, and move on to the next phase, or finish."""
        progress = self.progress
        if ends_dendrite(self.lengths, progress.phase):
            self._judge()
        following = self._following()
        if following is None:
            progress.finished = True
            return
        if following.trains != "tops":  # top weights go on from the candidates just trained
            source = following.dendrites if following.name == "joint" else following.dendrites - 1
            best = self.store.load_best(source, progress.best_epoch[source])
            while self.growth.count < following.dendrites:
                self.growth.grow(progress.best[source])
            self.growth.load(best)
        progress.start(following)

    def _following(self) -> Phase | None:
        """Return the phase after the current one; None when training is over."""
        progress = self.progress
        return next_phase(self.settings, self.lengths, progress.phase, kept_dendrites(progress.gains))

    def _judge(self) -> None:
        """Decide whether each dendrite stays that is not judged yet, by the best weights before and after."""
        progress, split = self.progress, self.valid_split
        truth = split.labels[:, self.learner.watched].astype(np.float64)
        for count in range(1, progress.phase.dendrites + 1):
            if count not in progress.gains:
                best = progress.best[count - 1], progress.best[count]
                scores = self._best_scores(count - 1), self._best_scores(count)
                found = judge(self.settings, best, truth, scores, split.weights)
                progress.gains[count] = Gain(**self.ranks.from_first(vars(found)))
                self._note(gain_line(count, found))

    def _best_scores(self, count: int) -> FloatArray:
        """Return the validation scores (n, watched) of the best weights with so many dendrites per Linear."""
        self.growth.load(self.store.load_best(count, self.progress.best_epoch[count]))
        return self.learner.scores(self.valid_split)

    def _phase_over(self) -> bool:
        progress = self.progress
        if progress.step:
            return False  # an epoch that has begun is finished
        if progress.phase_epoch >= progress.phase.epochs:
            return True
        if progress.phase.trains == "candidates":
            return False
        return progress.stale >= self.settings.train.patience or self._switched()

    def _switched(self) -> bool:
        return self.progress.phase.name == "neuron" and self.growth.count > 0

    def _run_phase(self) -> None:
        phase = self.progress.phase
        frozen = frozen_parameters(self.growth.model, self.settings.train.freeze_layers)
        parameters = trained_parameters(self.growth, phase, frozen)
        optimizer = build_optimizer(parameters, lr=phase.lr, weight_decay=self.settings.train.weight_decay)
        restore_optimizer(optimizer, parameters, self._optimizer_state)
        if self.ranks.size > 1:
            check_same(self.ranks, hashlib.sha256(save(self.growth.state())).hexdigest())
        self.learner.begin_phase()
        self._tell("phase")
        tensors = partial(optimizer_tensors, optimizer, parameters)
        while not self._phase_over():
            self._train_epoch(optimizer, tensors)
            self._close_epoch()
            switched = self._switched()
            if self._phase_over() and self.progress.phase_epoch < phase.epochs:
                why = "the history rule" if switched else "patience"
                early = f"{phase.name} phase ended by {why} after epoch {self.progress.phase_epoch}"
                self.progress.stopped_early.append(early)
                self._note(early)
            self._save({} if switched else tensors())
            self.heed_stop()

    # -- epochs ---------------------------------------------------------------------------------

    def _train_epoch(self, optimizer: torch.optim.Optimizer, optimizer_state: Callable[[], dict[str, Tensor]]) -> None:
        """Train what is left of an epoch, with checkpoints on the way."""
        progress = self.progress
        if progress.step == 0:
            self._seed()
        started = time.perf_counter()
        self.learner.begin_epoch(progress.epoch)
        progress.epoch_seconds += time.perf_counter() - started
        self.growth.model.train()
        own, sizes = self.settings.train, self.learner.train.tokens.lengths
        for batch in training_batches(sizes, own.batch_size, own.seed, progress.epoch)[progress.step :]:
            started = time.perf_counter()
            lr = self._rate(progress.step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with self._named_epoch():
                loss = self.learner.step(optimizer, batch, progress.phase)
            progress.stepped(loss, len(batch), time.perf_counter() - started)
            self._tell("step", step=progress.step, loss=loss, rows_per_second=self._speed())
            asked, due = self._agreed(self.stop.number, self._checkpoint_is_due())
            if asked or due:
                self._save(optimizer_state())
            if asked:
                raise Stopped(asked)

    def _seed(self) -> None:
        """Seed the epoch that begins: what is drawn in it depends on nothing before it."""
        seed = self.settings.train.seed * _EPOCH_STRIDE + self.progress.epoch + 1
        seed_everything(seed + _RANK_STRIDE * self.ranks.rank)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch, counted from 0."""
        progress = self.progress
        return rate(self.settings.train, progress.phase, progress.phase_epoch * self.steps + step, self.steps)

    def _speed(self) -> float:
        return self.progress.epoch_rows / max(self.progress.epoch_seconds, 1e-9)

    def _close_epoch(self) -> None:
        """Validate, keep the best weights, and report; the epoch's time includes the validation."""
        progress, phase = self.progress, self.progress.phase
        started = time.perf_counter()
        with self._named_epoch():
            found = self.validate()
        score = found.score(self.settings.train.metric)
        seconds = progress.epoch_seconds + time.perf_counter() - started
        loss, speed, lr = progress.epoch_loss / progress.epoch_rows, self._speed(), self._rate(self.steps - 1)
        progress.seconds += seconds
        progress.close_epoch()
        best = self._keep_best(score)
        own = self.settings.dendrites
        if phase.name == "neuron" and own.enabled and own.switch == "history":
            progress.tracked.append(found.ap)
            self.growth.observe(found.ap)
        row = {
            "epoch": progress.epoch,
            "phase": phase.name,
            "phase_epoch": progress.phase_epoch,
            "trains": phase.trains,
            "dendrites": phase.dendrites,
            "train_loss": loss,
            "valid_loss": found.loss,
            "valid_ap": found.ap,
            "valid_f1": found.f1,
            "lr": lr,
            "rows_per_second": speed,
            "seconds": seconds,
            "best": best,
        }
        progress.metrics.append(row)
        self.on_metrics(row)
        self._tell("epoch", step=self.steps, loss=loss, score=score, rows_per_second=speed)

    def validate(self) -> Validation:
        """Score the validation split with the current weights."""
        return self.learner.validate(self.valid_split)

    @contextmanager
    def _named_epoch(self) -> Iterator[None]:
        try:
            yield
        except DivergedError as error:
            error.where = f"epoch {self.progress.epoch + 1}"
            raise

    def _keep_best(self, score: float) -> bool:
        """Record a score, and the weights when they are the best with this many dendrites; whether with any number."""
        progress, count = self.progress, self.progress.phase.dendrites
        if progress.phase_best is None or score > progress.phase_best:
            progress.phase_best, progress.stale = score, 0
        else:
            progress.stale += 1
        if progress.phase.trains == "candidates":
            return False  # the network's function has not changed yet
        if count in progress.best and score <= progress.best[count]:
            return False
        progress.best[count], progress.best_epoch[count] = score, progress.epoch
        if self.ranks.first:
            self.store.save_best(self.growth.state(), count, progress.epoch)
        return all(score > other for dendrites, other in progress.best.items() if dendrites != count)

    # -- checkpoints ----------------------------------------------------------------------------

    def _checkpoint_is_due(self) -> bool:
        """Whether a step ends with a checkpoint; the last one does not, as the epoch's end has its own."""
        own, step = self.settings.train, self.progress.step
        if step == self.steps:
            return False
        by_steps = own.checkpoint_steps is not None and step % own.checkpoint_steps == 0
        waited = time.monotonic() - self._saved_at
        return by_steps or (own.checkpoint_seconds is not None and waited >= own.checkpoint_seconds)

    def _agreed(self, *values: int) -> list[int]:
        """Return the same decisions on every rank: the largest of their values."""
        return [max(each) for each in zip(*self.ranks.gather([int(v) for v in values]), strict=True)]

    def _save(self, optimizer: dict[str, Tensor]) -> None:
        rng = self.ranks.gather(rng_state(self.learner.device))
        if self.ranks.first:
            state = self.growth.state()
            if self._switched():  # a dendrite grown at the switch belongs to the next phase
                state = {n: t for n, t in state.items() if n in self.growth.neuron_parameters()}
            self.store.save(Checkpoint(self.progress, state, optimizer, rng))
        self._saved_at = time.monotonic()

    def _note(self, message: str) -> None:
        self._tell("note", message=message)

    def _tell(self, kind: Any, **values: Any) -> None:
        progress = self.progress
        self.on_event(
            TrainingEvent(
                kind=kind,
                phase=progress.phase.name,
                phase_index=progress.phase_number,
                epoch=progress.phase_epoch + (kind == "step"),
                epochs=progress.phase.epochs,
                steps=self.steps,
                metric=self.settings.train.metric,
                trains=progress.phase.trains,
                **values,
            )
        )
