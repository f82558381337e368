"""How a network grows during training: what the training loop sees, as a network that never grows; and folding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn

from gkiller.errors import DendritePatternError, FoldMismatchError
from gkiller.model.layout import usable_positions
from gkiller.model.network import DendriticLinear, ToxicityClassifier, add_dendrites, new_classifier
from gkiller.wording import did_you_mean

State = dict[str, Tensor]
ENCODER = "bert."
FOLD_TOLERANCE = 1e-5


class Growth:
    """A network in training, without dendrites; `PerforatedGrowth` grows some.

    States are always in the names and shapes of the folded model, whatever the training modules look like.

    Attributes:
        model: the network in training; growing may put a new object here.
        count: dendrites per chosen Linear.
    """

    def __init__(self, model: ToxicityClassifier) -> None:
        self.model = model
        self.count = 0

    def observe(self, score: float) -> bool:
        """Tell the history rule a neuron epoch's validation score; True when it says to switch."""
        return False

    def grow(self, score: float) -> None:
        """Give every chosen Linear one more dendrite; ``score`` is the best validation score so far."""
        raise RuntimeError("a network without dendrites does not grow")

    def neuron_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything that is not a dendrite, by folded name."""
        return dict(self.model.named_parameters())

    def dendrite_parameters(self) -> dict[str, nn.Parameter]:
        """Return the newest dendrites' weights and links and all top weights, by folded name."""
        return {}

    def all_dendrites(self) -> dict[str, nn.Parameter]:
        """Return every dendrite's weights, links and top weights in use, by folded name."""
        return {}

    def grown(self) -> dict[str, nn.Module]:
        """Return the modules that carry dendrites, by folded name."""
        return {}

    def state(self) -> State:
        """Return a copy of the current weights, by folded name, on the CPU."""
        parameters = {**self.neuron_parameters(), **self.all_dendrites()}
        return {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}

    def load(self, state: State) -> None:
        """Take over weights; dendrites that the state does not have are silenced (top weight 0)."""
        self.model.load_state_dict(state)


def chosen_linears(model: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Return the names of the encoder's Linears that grow dendrites, in the network's order.

    Shell patterns match with or without the leading "bert."; "*" is all (12 in BERT-Tiny). A DendritePatternError for a
    pattern that matches none.
    """
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(f"{ENCODER}encoder.")
    ]
    matching = {
        pattern: [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n.removeprefix(ENCODER), pattern)]
        for pattern in patterns
    }
    for pattern, found in matching.items():
        if not found:
            what = f"{pattern!r} matches none of the encoder's Linears"
            remedy = did_you_mean(pattern, [name.removeprefix(ENCODER) for name in names])
            raise DendritePatternError(what, where="dendrites.patterns", remedy=remedy)
    return [name for name in names if any(name in found for found in matching.values())]


def dendrite_counts(state: State) -> dict[str, int]:
    """Return the dendrites of each module that has some, read off a folded state."""
    return {
        name.removesuffix(".dendrite_tops"): tensor.shape[0]
        for name, tensor in state.items()
        if name.endswith(".dendrite_tops")
    }


def folded(model: ToxicityClassifier, state: State, activation: str) -> ToxicityClassifier:
    """Return a plain classifier (CPU, evaluation mode) of a folded state, configured as ``model``."""
    with torch.random.fork_rng(devices=[]):
        plain = new_classifier(model.bert.config, model.labels, model.pooling)
        add_dendrites(plain, dendrite_counts(state), activation)
    plain.load_state_dict(state)
    return plain.eval()


def check_fold(growth: Growth, plain: ToxicityClassifier) -> float:
    """Return the largest difference of the folded model's logits from the training model's, on random tokens.

    ``growth`` must hold the weights that ``plain`` was folded from; a FoldMismatchError beyond `FOLD_TOLERANCE`.
    """
    config = plain.bert.config
    generator = torch.Generator().manual_seed(0)
    length = min(32, usable_positions(config.to_dict()))
    ids = torch.randint(0, config.vocab_size, (8, length), generator=generator)
    mask = (torch.arange(length) < torch.randint(1, length + 1, (8, 1), generator=generator)).long()
    training = growth.model
    device = next(training.parameters()).device
    was_training = training.training
    training.eval()
    with torch.inference_mode():
        expected = training(ids.to(device), mask.to(device)).float().cpu()
        found = plain(ids, mask)
    training.train(was_training)
    difference = float((expected - found).abs().max())
    if not difference <= FOLD_TOLERANCE:
        what = f"the folded model's logits differ from the training model's by {difference:.2e}"
        remedy = f"at most {FOLD_TOLERANCE:.0e} is allowed; please report this as a fault of gkiller"
        raise FoldMismatchError(what, remedy=remedy)
    return difference


def dendritic_modules(model: nn.Module) -> dict[str, DendriticLinear]:
    """Return a plain model's modules with dendrites, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, DendriticLinear)}


@dataclass
class Captured:
    """What the wrapped Linears saw and gave in one forward pass, by module name."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def record(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Take what a forward hook is given."""
        self.inputs[name], self.outputs[name] = inputs[0].detach(), output


@contextmanager
def capture(modules: Mapping[str, nn.Module]) -> Iterator[Captured]:
    """Record the input and output of each module while the context lasts."""
    seen = Captured()
    handles = [module.register_forward_hook(partial(seen.record, name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
