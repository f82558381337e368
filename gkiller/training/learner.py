"""One step on a batch, and one validation: what the training loop asks of a network and its data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gkiller.data.augment import augment
from gkiller.errors import DivergedError, SettingsError, SingleClassError
from gkiller.evaluation.metrics import macro_score
from gkiller.model.dendrites.growth import capture
from gkiller.tokens.batches import Tokens, scoring_batches, tokenize
from gkiller.training.losses import class_weights, correlation_loss, logit_loss, loss_mass, similarity_loss, task_loss
from gkiller.training.runtime import Ranks, mixed_precision
from gkiller.wording import did_you_mean

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from gkiller.model.dendrites.growth import Growth
    from gkiller.settings.definition import Settings
    from gkiller.training.network import LowerOutputs
    from gkiller.training.phases import Phase
    from gkiller.training.teachers import Lesson


Labels = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Augmented:
    """Comments, each seen by an epoch as it is or changed; which depends on seed and epoch alone."""

    texts: Sequence[str]
    tokens: Tokens
    tokenizer: Tokenizer
    kinds: tuple[str, ...]
    intensity: float  # share of the places in a comment that a change touches
    share: float
    seed: int

    def in_epoch(self, epoch: int) -> Tokens:
        """Return the n comments' tokens as an epoch, counted from 0, sees them."""
        seed = self.seed << 32 | epoch
        seen = augment(self.texts, self.kinds, self.share, seed, intensity=self.intensity)
        rows = [row for row, (text, was) in enumerate(zip(seen, self.texts, strict=True)) if text != was]
        return self.tokens.replaced(np.array(rows, np.int64), tokenize(self.tokenizer, [seen[row] for row in rows]))


@dataclass(frozen=True)
class Encoded:
    """A split ready for the network."""

    tokens: Tokens
    labels: Labels  # (n, L) 0, 1, or NaN where unknown
    weights: npt.NDArray[np.float64]  # (n,) sample weights; they count in the validation metric, not in the loss
    lower: LowerOutputs | None = None  # what the frozen layers say of the comments
    lesson: Lesson | None = None  # what teachers say of the comments


@dataclass(frozen=True)
class Validation:
    """The validation split after an epoch."""

    loss: float  # mean task loss
    ap: float
    f1: float

    def score(self, metric: str) -> float:
        """Return the figure that early stopping watches."""
        return self.ap if metric == "ap" else self.f1


class Learner:
    """Steps and measures a network that grows, on a training split of which some comments change in each epoch.

    Raises:
        SettingsError: the data have no such label to watch.
        SingleClassError: no label has both classes in the training split.
    """

    def __init__(
        self,
        settings: Settings,
        names: tuple[str, ...],
        growth: Growth,
        train: Encoded,
        *,
        ranks: Ranks,
        mask_token: int,
        special_tokens: list[int],
        augmented: Augmented | None = None,
    ) -> None:
        self.settings = settings
        self.watched = watched_labels(names, settings.train.metric_labels)
        self.growth = growth
        self.train = train
        self.ranks = ranks
        self.device = next(growth.model.parameters()).device
        self.weights = class_weights(train.labels, names, settings.train.class_weights).to(self.device)
        self.mask_token = mask_token
        self.special = torch.tensor(special_tokens, device=self.device)
        self.augmented = augmented
        self.forward: Callable[[Tensor, Tensor], Tensor] = growth.model

    def begin_phase(self) -> None:
        """Take up the network as it is now: its parameters, and which of them move, may have changed."""
        self.forward = self.ranks.wrap(self.growth.model)

    def begin_epoch(self, epoch: int) -> None:
        """Take up the training comments as an epoch, counted from 0, sees them."""
        if self.augmented is not None:
            self.train = replace(self.train, tokens=self.augmented.in_epoch(epoch))

    def step(self, optimizer: torch.optim.Optimizer, batch: Rows, phase: Phase) -> float:
        """Take one step on a batch, of which this rank computes its share; return the mean loss.

        Raises:
            DivergedError: the loss is not finite.
        """
        rows = self.ranks.share(batch)
        mine = rows if len(rows) else batch[:1]  # a rank without rows steps along with a loss of 0
        targets = torch.from_numpy(self.train.labels[mine]).to(self.device)
        if phase.trains == "candidates":
            parts = [(self._correlation(mine, targets), float(len(rows)))]
        else:
            with self._pooled() as pooled:
                parts = self._parts(self._train_logits(mine), pooled, mine, targets)
        loss, value = self._over_ranks([(part, mass if len(rows) else 0.0) for part, mass in parts])
        if not math.isfinite(value):
            raise diverged(f"the loss became {value}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.train.clip_norm:
            moved = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(moved, self.settings.train.clip_norm)
        optimizer.step()
        return value

    def _parts(self, logits: Tensor, pooled: list[Tensor], rows: Rows, targets: Tensor) -> list[tuple[Tensor, float]]:
        """Return the losses of a batch, which add up, each with the mass that its mean was divided by."""
        several, lesson = self.ranks.size > 1, self.train.lesson
        task = task_loss(logits, targets, self.weights)
        mass = loss_mass(targets, self.weights) if several else 1.0
        if lesson is None:
            return [(task, mass)]
        own = self.settings.distill
        parts: list[tuple[Tensor, float]] = []
        if own.label_weight:
            parts.append((own.label_weight * task, mass))
        if own.logit_weight:
            taught = torch.from_numpy(lesson.logits[rows]).to(self.device)
            each = logit_loss(self.growth.model.label_logits(logits.float()), taught)
            parts.append((own.logit_weight * each, float((~taught.isnan()).sum()) if several else 1.0))
        if own.hidden_weight:
            seen = [torch.from_numpy(np.asarray(states[rows])).to(self.device) for states in lesson.hidden]
            parts.append((own.hidden_weight * similarity_loss(pooled[0], seen), float(len(rows))))
        return parts

    @contextmanager
    def _pooled(self) -> Iterator[list[Tensor]]:
        """Record, where the teachers' hidden states are learnt, the vectors that the head is given."""
        seen: list[Tensor] = []
        if self.train.lesson is None or not self.settings.distill.hidden_weight:
            yield seen
            return
        dropout = self.growth.model.dropout
        handle = dropout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            yield seen
        finally:
            handle.remove()

    def _over_ranks(self, parts: list[tuple[Tensor, float]]) -> tuple[Tensor, float]:
        """Return the loss whose gradient, averaged over the ranks, is that of the whole batch; and its value.

        Each rank's losses are means over its own rows; the whole batch's are the means of these, weighted by
        the mass that each was divided by.
        """
        if self.ranks.size == 1:
            loss = _sum([part for part, _ in parts])
            return loss, float(loss.detach())
        facts = [fact for part, mass in parts for fact in (float(part.detach()) * mass, mass)]
        found = self.ranks.total(*facts)
        values, totals = found[::2], [max(total, 1e-12) for total in found[1::2]]
        scaled = [part * (mass * self.ranks.size / total) for (part, mass), total in zip(parts, totals, strict=True)]
        return _sum(scaled), sum(value / total for value, total in zip(values, totals, strict=True))

    def _correlation(self, rows: Rows, targets: Tensor) -> Tensor:
        ids, mask = self._hidden_batch(rows)
        with capture(self.growth.grown()) as seen, self._pooled() as pooled, self._autocast():
            logits = self.forward(ids, mask)
        loss = _sum([part for part, _ in self._parts(logits, pooled, rows, targets)])
        activation = self.settings.dendrites.activation
        return correlation_loss(loss, seen, mask, self.growth.all_dendrites(), activation)

    def _batch(self, tokens: Tokens, rows: Rows) -> tuple[Tensor, Tensor]:
        ids, mask = tokens.pad_batch(rows)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def _hidden_batch(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return ids and mask of training comments, some tokens hidden."""
        ids, mask = self._batch(self.train.tokens, rows)
        return self._hide_tokens(ids, mask), mask

    def _hide_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        share = self.settings.train.token_dropout
        if share == 0 or self.mask_token < 0:
            return ids
        drawn = torch.rand(ids.shape, device=ids.device) < share
        hidden = drawn & mask.bool() & ~torch.isin(ids, self.special)
        return ids.masked_fill(hidden, self.mask_token)

    def _train_logits(self, rows: Rows) -> Tensor:
        lower = self.train.lower
        with self._autocast():
            if lower is not None:
                return lower.logits(self.growth.model, rows, self.device)
            return self.forward(*self._hidden_batch(rows))

    def _autocast(self) -> torch.autocast:
        return mixed_precision(self.settings.train.precision, self.device)

    def validate(self, split: Encoded) -> Validation:
        """Measure a split with the current weights; a DivergedError where a logit is not finite."""
        logits = self._split_logits(split)
        loss = float(task_loss(logits, torch.from_numpy(split.labels), self.weights.cpu()))
        truth, mass, scores = split.labels[:, self.watched], split.weights, self._probabilities(logits)
        return Validation(loss, macro_score("ap", truth, scores, mass), macro_score("f1", truth, scores, mass))

    def scores(self, split: Encoded) -> npt.NDArray[np.float64]:
        """Return a split's scores with the current weights, (n, W) of the labels that are watched."""
        return self._probabilities(self._split_logits(split))

    def _probabilities(self, logits: Tensor) -> npt.NDArray[np.float64]:
        scores: npt.NDArray[np.float64] = self.growth.model.probabilities(logits).double().numpy()
        return scores[:, self.watched]

    def _split_logits(self, split: Encoded) -> Tensor:
        """Score a split, each rank some of its batches."""
        model = self.growth.model
        model.eval()
        logits = torch.zeros(len(split.tokens), model.classifier.out_features)
        with torch.inference_mode(), self._autocast():
            batches = scoring_batches(split.tokens.lengths, self.settings.evaluation.batch_size)
            for number, rows in enumerate(batches):
                if number % self.ranks.size == self.ranks.rank:
                    if split.lower is None:
                        found = model(*self._batch(split.tokens, rows))
                    else:
                        found = split.lower.logits(model, rows, self.device)
                    logits[torch.from_numpy(rows)] = found.float().cpu()
            logits = self.ranks.add(logits)
        if not bool(logits.isfinite().all()):
            raise diverged("the validation scores became NaN")
        return logits


def watched_labels(names: Sequence[str], watched: Sequence[str]) -> list[int]:
    """Return the places of the labels whose mean is the validation metric: all of them when none is named."""
    for label in watched:
        if label not in names:
            raise SettingsError(
                f"the data have no label '{label}'", where="train.metric_labels", remedy=did_you_mean(label, names)
            )
    return [place for place, name in enumerate(names) if not watched or name in watched]


def require_both_classes(labels: Labels, names: Sequence[str]) -> None:
    """Refuse, before an epoch is spent on it, a validation split that could measure nothing."""
    if not any((column == 0).any() and (column == 1).any() for column in labels.T):
        what = "the validation split has only one class of " + ", ".join(names)
        remedy = "use a larger validation split (data.valid_share), or data that hold both classes"
        raise SingleClassError(what, where="valid", remedy=remedy)


def _sum(losses: list[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def diverged(what: str) -> DivergedError:
    """Return the error of a training that no longer learns."""
    return DivergedError(what, remedy="lower train.lr or dendrites.lr, or set train.clip_norm")
