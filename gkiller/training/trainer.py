"""The training loop: phases, epochs, steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gkiller.data.batches import Tokens, scoring_batches, training_batches
from gkiller.errors import DivergedError, SingleClassError
from gkiller.evaluation.metrics import macro_score
from gkiller.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    Progress,
    optimizer_tensors,
    restore_optimizer,
)
from gkiller.training.correlation import capture, correlation_loss
from gkiller.training.events import TrainingEvent
from gkiller.training.losses import class_weights, task_loss
from gkiller.training.optim import build_optimizer, rate, trained_parameters
from gkiller.training.phases import first_phase, lengths, next_phase

if TYPE_CHECKING:
    from gkiller.model.growth import Growth
    from gkiller.settings.definition import Settings

Labels = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
EventCallback = Callable[[TrainingEvent], None]
MetricsCallback = Callable[[dict[str, Any]], None]
_EPOCH_STRIDE = 1_000_003  # a prime: seeds of neighbouring runs and epochs do not meet


@dataclass(frozen=True)
class Encoded:
    """A split ready for the network.

    Attributes:
        tokens: n comments.
        labels: (n, L) 0, 1, or NaN where unknown.
        weights: (n,) sample weights; they count in the validation metric, not in the loss.
    """

    tokens: Tokens
    labels: Labels
    weights: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Validation:
    """The validation split after an epoch: mean task loss, macro AP and macro F1 at 0.5."""

    loss: float
    ap: float
    f1: float

    def score(self, metric: str) -> float:
        """Return the figure that early stopping watches."""
        return self.ap if metric == "ap" else self.f1


class Trainer:
    """Trains one network through its phases.

    Args:
        settings: of the run.
        names: the labels.
        train: the training split.
        valid: the validation split; it chooses epochs, phases and dendrites.
        growth: the network.
        store: where checkpoints go.
        mask_token: id that hides a token, for token dropout; below 0 for none.
        special_tokens: ids that are never hidden.
        on_event: told of phases, steps and epochs.
        on_metrics: given a row of figures after each epoch.

    Raises:
        SingleClassError: no label has both classes in a split.
    """

    def __init__(
        self,
        settings: Settings,
        names: tuple[str, ...],
        train: Encoded,
        valid: Encoded,
        growth: Growth,
        store: CheckpointStore,
        *,
        mask_token: int,
        special_tokens: list[int],
        on_event: EventCallback,
        on_metrics: MetricsCallback,
    ) -> None:
        self.settings = settings
        self.train_split = train
        self.valid_split = valid
        self.growth = growth
        self.store = store
        self.on_event = on_event
        self.on_metrics = on_metrics
        self.device = next(growth.model.parameters()).device
        _require_both_classes(valid.labels, names)
        self.weights = class_weights(train.labels, names, settings.train.class_weights).to(self.device)
        self.mask_token = mask_token
        self.special = torch.tensor(special_tokens, device=self.device)
        self.steps = math.ceil(len(train.tokens) / settings.train.batch_size)
        self.lengths = lengths(settings, self.steps)
        self.progress = Progress(first_phase(settings, self.lengths))

    # -- phases ---------------------------------------------------------------------------------

    def run(self, checkpoint: Checkpoint | None = None) -> Progress:
        """Train from the start, or go on from a checkpoint; returns the finished progress.

        Raises:
            DivergedError: the loss is not finite.
        """
        optimizer = self._resume(checkpoint) if checkpoint else None
        while not self.progress.finished:
            if not self._phase_over():
                self._run_phase(optimizer)
            optimizer = None  # what a checkpoint holds is for its own phase only
            self._advance()
        return self.progress

    def _resume(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        self.progress = checkpoint.progress
        for score in self.progress.tracked:
            if self.growth.count == 0:
                self.growth.observe(score)
        while self.growth.count < self.progress.phase.dendrites:
            self.growth.grow(max(self.progress.best.values()))
        self.growth.load(checkpoint.weights)
        torch.set_rng_state(checkpoint.rng)
        self.on_event(self._event("note", message=f"resumed after epoch {self.progress.epoch}"))
        return checkpoint.optimizer

    def _advance(self) -> None:
        """Move on to the next phase, or finish."""
        progress = self.progress
        following = next_phase(self.settings, self.lengths, progress.phase, progress.best)
        if following is None:
            progress.finished = True
            self._save({})
            return
        if following.trains != "tops":  # top weights go on from the candidates just trained
            source = following.dendrites if following.name == "joint" else following.dendrites - 1
            self._start_from_best(source, following.dendrites)
        progress.start(following)

    def _start_from_best(self, source: int, dendrites: int) -> None:
        best = self.store.load_best(source, self.progress.best_epoch[source])
        while self.growth.count < dendrites:
            self.growth.grow(self.progress.best[source])
        self.growth.load(best)

    def _phase_over(self) -> bool:
        progress = self.progress
        if progress.phase_epoch >= progress.phase.epochs:
            return True
        if progress.phase.trains == "candidates":
            return False
        return progress.stale >= self.settings.train.patience or self._switched()

    def _switched(self) -> bool:
        return self.progress.phase.name == "neuron" and self.growth.count > 0

    def _run_phase(self, optimizer_state: dict[str, Tensor] | None) -> None:
        phase = self.progress.phase
        parameters = trained_parameters(self.growth, phase)
        optimizer = build_optimizer(parameters, phase, self.settings.train)
        if optimizer_state:
            restore_optimizer(optimizer, parameters, optimizer_state)
        self.on_event(self._event("phase"))
        while not self._phase_over():
            started = time.perf_counter()
            loss, speed = self._train_epoch(optimizer)
            self._close_epoch(optimizer, loss, speed, started)
            switched, early = self._switched(), ""
            if self._phase_over() and self.progress.phase_epoch < phase.epochs:
                why = "the history rule" if switched else "patience"
                early = f"{phase.name} phase ended by {why} after epoch {self.progress.phase_epoch}"
                self.progress.stopped_early.append(early)
            self._save({} if switched else optimizer_tensors(optimizer, parameters))
            if early:
                self.on_event(self._event("note", message=early))

    # -- epochs ---------------------------------------------------------------------------------

    def _train_epoch(self, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
        """Train one epoch; return mean loss and rows per second."""
        settings, progress = self.settings.train, self.progress
        torch.manual_seed(settings.seed * _EPOCH_STRIDE + progress.epoch + 1)
        self.growth.model.train()
        batches = training_batches(
            self.train_split.tokens.lengths, settings.batch_size, settings.seed, progress.epoch
        )
        total, rows, started = 0.0, 0, time.perf_counter()
        for step, chosen in enumerate(batches):
            lr = rate(settings, progress.phase, progress.phase_epoch * self.steps + step, self.steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = self._step(optimizer, chosen)
            total, rows = total + loss * len(chosen), rows + len(chosen)
            speed = rows / (time.perf_counter() - started)
            self.on_event(self._event("step", step=step + 1, loss=loss, rows_per_second=speed))
        return total / rows, speed

    def _step(self, optimizer: torch.optim.Optimizer, chosen: npt.NDArray[np.int64]) -> float:
        ids, mask = self._batch(self.train_split.tokens, chosen)
        ids = self._hide_tokens(ids, mask)
        targets = torch.from_numpy(self.train_split.labels[chosen]).to(self.device)
        if self.progress.phase.trains == "candidates":
            loss = self._correlation(ids, mask, targets)
        else:
            loss = task_loss(self._logits(ids, mask), targets, self.weights)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _diverged(f"the loss became {value} in epoch {self.progress.epoch + 1}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.train.clip_norm:
            moved = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(moved, self.settings.train.clip_norm)
        optimizer.step()
        return value

    def _correlation(self, ids: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        with capture(self.growth.grown()) as seen:
            loss = task_loss(self._logits(ids, mask), targets, self.weights)
        activation = self.settings.dendrites.activation
        return correlation_loss(loss, seen, mask, self.growth.all_dendrites(), activation)

    def _batch(self, tokens: Tokens, chosen: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        ids, mask = tokens.pad_batch(chosen)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def _hide_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        share = self.settings.train.token_dropout
        if share == 0 or self.mask_token < 0:
            return ids
        drawn = torch.rand(ids.shape, device=ids.device) < share
        hidden = drawn & mask.bool() & ~torch.isin(ids, self.special)
        return ids.masked_fill(hidden, self.mask_token)

    def _logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits: Tensor = self.growth.model(ids, mask)
        return logits

    # -- validation and checkpoints -------------------------------------------------------------

    def validate(self) -> Validation:
        """Score the validation split with the current weights."""
        model, split = self.growth.model, self.valid_split
        model.eval()
        logits = torch.zeros(len(split.tokens), model.classifier.out_features)
        with torch.inference_mode():
            for rows in scoring_batches(split.tokens.lengths, self.settings.evaluation.batch_size):
                logits[torch.from_numpy(rows)] = self._logits(*self._batch(split.tokens, rows)).float().cpu()
            if not bool(logits.isfinite().all()):
                raise _diverged(f"the validation scores became NaN in epoch {self.progress.epoch + 1}")
            loss = float(task_loss(logits, torch.from_numpy(split.labels), self.weights.cpu()))
            scores = model.probabilities(logits).double().numpy()
        truth, mass = split.labels, split.weights
        return Validation(
            loss, macro_score("ap", truth, scores, mass), macro_score("f1", truth, scores, mass)
        )

    def _close_epoch(
        self, optimizer: torch.optim.Optimizer, train_loss: float, speed: float, started: float
    ) -> None:
        """Validate, keep the best weights, and report; the epoch's time includes the validation."""
        progress, phase = self.progress, self.progress.phase
        found = self.validate()
        score = found.score(self.settings.train.metric)
        progress.epoch, progress.phase_epoch = progress.epoch + 1, progress.phase_epoch + 1
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        best = self._keep_best(score)
        if phase.name == "neuron" and self.settings.dendrites.enabled:
            self._watch_history(found.ap)
        self.on_metrics(
            {
                "epoch": progress.epoch,
                "phase": phase.name,
                "phase_epoch": progress.phase_epoch,
                "trains": phase.trains,
                "dendrites": phase.dendrites,
                "train_loss": train_loss,
                "valid_loss": found.loss,
                "valid_ap": found.ap,
                "valid_f1": found.f1,
                "lr": optimizer.param_groups[0]["lr"],
                "rows_per_second": speed,
                "seconds": seconds,
                "best": best,
            }
        )
        self.on_event(
            self._event("epoch", step=self.steps, loss=train_loss, score=score, rows_per_second=speed)
        )

    def _keep_best(self, score: float) -> bool:
        """Record a score; write the weights when they are the best with this many dendrites.

        Returns:
            Whether the score is the best of all so far, with any number of dendrites.
        """
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
        self.store.save_best(self.growth.state(), count, progress.epoch)
        return all(score > other for dendrites, other in progress.best.items() if dendrites != count)

    def _watch_history(self, ap: float) -> None:
        # Always AP: the tracker takes every score of exactly 0 for a gain, and F1 can be 0 for long.
        if self.settings.dendrites.switch == "history":
            self.progress.tracked.append(ap)
            self.growth.observe(ap)

    def _save(self, optimizer: dict[str, Tensor]) -> None:
        state = self.growth.state()
        if self._switched():  # a dendrite grown at the switch belongs to the next phase
            state = {n: t for n, t in state.items() if n in self.growth.neuron_parameters()}
        rng = torch.get_rng_state()
        self.store.save_epoch(Checkpoint(self.progress, state, optimizer, rng))

    def _event(self, kind: Any, **values: Any) -> TrainingEvent:
        progress = self.progress
        return TrainingEvent(
            kind=kind,
            phase=progress.phase.name,
            phase_index=progress.phase_number,
            epoch=progress.phase_epoch + (kind == "step"),
            epochs=progress.phase.epochs,
            steps=self.steps,
            metric=self.settings.train.metric,
            **values,
        )


def _diverged(what: str) -> DivergedError:
    return DivergedError(what, remedy="lower train.lr or dendrites.lr, or set train.clip_norm")


def _require_both_classes(labels: Labels, names: tuple[str, ...]) -> None:
    """Refuse, before an epoch is spent on it, a validation split that could measure nothing."""
    if not any((column == 0).any() and (column == 1).any() for column in labels.T):
        raise SingleClassError(
            "the validation split has only one class of " + ", ".join(names),
            where="valid",
            remedy="use a larger validation split (data.valid_share), or data that hold both classes",
        )
