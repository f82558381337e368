"""What the dendrites of a model do: how strong they are, and how it scores without them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gkiller.data.batches import scoring_batches, tokenize
from gkiller.model.dendritic import DendriticLinear
from gkiller.model.directory import LoadedModel
from gkiller.model.growth import dendritic_modules
from gkiller.model.scoring import score_texts

if TYPE_CHECKING:
    from gkiller.inference.batches import LongText


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
    return {
        name: score_texts(variant, texts, batch_size, long_text=long_text)
        for name, variant in variants.items()
    }
