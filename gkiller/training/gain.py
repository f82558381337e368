"""What a dendrite gained on the validation split, and whether it stays."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from gkiller.data.dataset import FloatArray
from gkiller.evaluation.metrics import HALF, plan, rank, ratio, resample
from gkiller.evaluation.results import number
from gkiller.evaluation.significance import paired_difference
from gkiller.model.dendrites.growth import dendritic_modules
from gkiller.model.dendritic import DendriticLinear
from gkiller.model.directory import LoadedModel
from gkiller.scoring.network import score_texts
from gkiller.tokens.batches import scoring_batches, tokenize
from gkiller.wording import counted

if TYPE_CHECKING:
    from gkiller.settings.definition import Settings
    from gkiller.tokens.batches import LongText


RESAMPLES = 1000
_COLUMNS = {"ap": 1, "f1": 4}
"""Of the two validation metrics in `Plan.figures`, with one threshold."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Gain:
    """What one more dendrite per Linear gained on the validation split."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    metric: str  # "ap" or "f1", macro: the one that selects
    before: Finite
    after: Finite
    # lower end of the paired bootstrap interval of after - before; None where it is undefined
    low: Finite | None
    high: Finite | None
    confidence: Finite  # coverage of the interval
    kept: bool  # whether the dendrite stays
    reason: str

    @property
    def gain(self) -> float:
        """How much the score rose."""
        return self.after - self.before

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "gain": self.gain}

    def text(self) -> str:
        """Return it in words."""
        span = "none" if self.low is None else f"{self.low:+.4f} to {self.high:+.4f}"
        figures = f"{self.metric.upper()} {self.before:.4f} to {self.after:.4f}, gain {self.gain:+.4f}"
        verdict = "kept" if self.kept else "taken off"
        return f"{figures} ({self.confidence:.0%} interval {span}); {verdict}: {self.reason}"


def judge(
    settings: Settings,
    best: tuple[float, float],
    truth: FloatArray,
    scores: tuple[FloatArray, FloatArray],
    weights: FloatArray,
) -> Gain:
    """Decide whether a dendrite stays: by ``dendrites.min_gain``, or without it by the interval of its gain.

    Args:
        truth: (n, L) 0, 1 or NaN, of the labels that are watched.
        scores: before and after, each (n, L).
        weights: (n,).
    """
    metric, least = settings.train.metric, settings.dendrites.min_gain
    own = settings.evaluation
    ends = gain_interval(metric, truth, scores, weights, seed=own.bootstrap_seed, confidence=own.confidence)
    low, high = map(number, ends)
    if least is not None:
        kept = best[1] - best[0] > least
        reason = f"{'above' if kept else 'not above'} dendrites.min_gain ({least:g})"
    else:
        kept = low is not None and low > 0
        reason = f"the gain's paired interval is {'' if kept else 'not '}above 0"
    return Gain(metric, *best, low, high, own.confidence, kept, reason)


def gain_interval(
    metric: str,
    truth: FloatArray,
    scores: tuple[FloatArray, FloatArray],
    weights: FloatArray,
    *,
    seed: int,
    confidence: float,
) -> tuple[float, float]:
    """Return the paired bootstrap interval of a macro metric's gain; NaN where it is undefined.

    Args:
        metric: "ap" or "f1", the mean over the labels that have both classes.
        truth: (n, L) 0, 1 or NaN.
        scores: before and after, each (n, L).
        weights: (n,).
    """
    rankings = [[rank(truth[:, i], side[:, i], weights) for i in range(truth.shape[1])] for side in scores]
    plans = [plan(one, (HALF,), 2) for side in rankings for one in side if not one.one_class]
    whole = np.stack([one.figures(np.ones((1, len(truth)))) for one in plans])
    replicas = resample(plans, len(truth), RESAMPLES, seed)
    point, each = (_macro(figures[:, :, _COLUMNS[metric]]) for figures in (whole, replicas))
    found = paired_difference(point[::-1, 0], each[::-1], confidence)
    return found.low, found.high


def _macro(values: FloatArray) -> FloatArray:
    """Return the means over the labels of both sides, (2, R), of values (2 L, R)."""
    sides = values.reshape(2, -1, values.shape[1])
    return ratio(np.nansum(sides, axis=1), np.isfinite(sides).sum(1).astype(np.float64))


def kept_dendrites(gains: Mapping[int, Gain]) -> int:
    """Return how many dendrites per Linear the final model keeps: as many as each stays on the last."""
    count = 0
    while count + 1 in gains and gains[count + 1].kept:
        count += 1
    return count


def gain_line(count: int, gain: Gain) -> str:
    """Return in words what the ``count``-th dendrite gained."""
    return f"{counted(count, 'dendrite')} per Linear: {gain.text()}"


def top_weight_mean(loaded: LoadedModel) -> float:
    """Return the mean magnitude of all top weights; 0.0 without dendrites."""
    tops = [m.dendrite_tops.detach().abs().flatten() for m in dendritic_modules(loaded.model).values()]
    return float(torch.cat(tops).mean()) if tops else 0.0


def without_dendrites(loaded: LoadedModel) -> LoadedModel:
    """Return a copy whose dendrites' outputs are zero."""
    silent = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for module in dendritic_modules(silent).values():
            module.dendrite_tops.zero_()
    return replace(loaded, model=silent)


def with_mean_dendrites(loaded: LoadedModel, texts: Sequence[str], batch_size: int = 256) -> LoadedModel:
    """Return a copy whose dendrites always give their mean over the real tokens of ``texts``.

    If it scores as well as the whole model, the dendrites act as a bias and compute nothing.
    """
    constant = copy.deepcopy(loaded.model)
    means = _mean_outputs(loaded, texts, batch_size)
    with torch.no_grad():
        for name, module in dendritic_modules(constant).items():
            module.bias.add_(means[name].to(module.bias.dtype))
            module.dendrite_tops.zero_()
    return replace(loaded, model=constant)


def _mean_outputs(loaded: LoadedModel, texts: Sequence[str], batch_size: int) -> dict[str, Tensor]:
    """Return the dendrites' mean contribution to each module's output, by module: (units,), float64."""
    modules = dendritic_modules(loaded.model)
    sums = {n: torch.zeros(m.out_features, dtype=torch.float64) for n, m in modules.items()}
    real = torch.zeros(0, dtype=torch.bool)
    count = 0

    def recorder(name: str) -> object:
        def record(module: DendriticLinear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            neuron = torch.nn.functional.linear(inputs[0], module.weight, module.bias)
            sums[name] += (output - neuron)[real].double().sum(0)

        return record

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules.items()]  # type: ignore[arg-type]
    tokens = tokenize(loaded.tokenizer, texts)
    try:
        with torch.inference_mode():
            for rows in scoring_batches(tokens.lengths, batch_size):
                ids, mask = tokens.pad_batch(rows)
                real = torch.from_numpy(mask).bool()
                count += int(real.sum())
                loaded.model(torch.from_numpy(ids), torch.from_numpy(mask))
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / max(1, count) for name, total in sums.items()}


def ablated_scores(
    loaded: LoadedModel, texts: Sequence[str], batch_size: int = 256, *, long_text: LongText = "window"
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the scores of ``texts`` three ways: "whole", "zeroed" and "mean", each (n, L)."""
    variants = {
        "whole": loaded,
        "zeroed": without_dendrites(loaded),
        "mean": with_mean_dendrites(loaded, texts, batch_size),
    }
    return {name: score_texts(variant, texts, batch_size, long_text=long_text) for name, variant in variants.items()}
