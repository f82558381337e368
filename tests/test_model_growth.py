"""Growing with perforatedai, and folding what it grew into plain modules."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy import tiny_settings, vocabulary

from gkiller.errors import DendritePatternError, FoldMismatchError
from gkiller.model.dendrites.growth import (
    Growth,
    check_fold,
    chosen_linears,
    dendrite_counts,
    dendritic_modules,
    folded,
)
from gkiller.model.dendrites.perforated import PerforatedGrowth
from gkiller.model.network import ACTIVATIONS, DendriticLinear, ToxicityClassifier, build_classifier

PER_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def network(*overrides: Any, labels: Any = ("toxicity",)) -> ToxicityClassifier:
    torch.manual_seed(0)
    settings = tiny_settings("model.layers=2", *overrides)
    return build_classifier(settings.model, labels, len(vocabulary()))


def grow(
    model: ToxicityClassifier,
    *,
    patterns: Any = ("*",),
    activation: Any = "sigmoid",
    most: Any = 3,
    seed: Any = 0,
    patience: Any = 2,
) -> PerforatedGrowth:
    names = chosen_linears(model, patterns)
    return PerforatedGrowth(model, names, activation=activation, patience=patience, most=most, seed=seed)


def fill(growth: PerforatedGrowth, seed: int = 5) -> None:
    """Give every dendrite weights that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in growth.all_dendrites().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, len(vocabulary()), (4, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([[9], [4], [1], [7]])).long()
    return ids, mask


def logits(model: ToxicityClassifier) -> torch.Tensor:
    model.eval()
    with torch.inference_mode():
        return model(*tokens())


# -- which Linears ------------------------------------------------------------------------------


def test_all_twelve_linears_of_bert_tiny_by_default() -> None:
    expected = [f"bert.encoder.layer.{layer}.{name}" for layer in (0, 1) for name in PER_LAYER]
    assert chosen_linears(network(), ("*",)) == expected


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (("encoder.layer.1.*",), 6),
        (("bert.encoder.layer.1.*",), 6),
        (("*.output.dense",), 4),
        (("*.query", "*.key"), 4),
        (("*.query", "encoder.layer.0.*"), 7),
        (("encoder.layer.0.intermediate.dense",), 1),
    ],
)
def test_patterns_choose_fewer(patterns: tuple[Any, ...], count: int) -> None:
    chosen = chosen_linears(network(), patterns)
    assert len(chosen) == len(set(chosen)) == count


def test_pooler_and_head_are_never_chosen() -> None:
    assert len(chosen_linears(network("model.pooling=cls"), ("*",))) == 12


def test_a_pattern_without_a_match_names_the_nearest() -> None:
    with pytest.raises(DendritePatternError) as caught:
        chosen_linears(network(), ("*.query", "encoder.layer.1.attention.self.qeury"))
    assert "encoder.layer.1.attention.self.query" in caught.value.remedy
    assert caught.value.where == "dendrites.patterns"


# -- wrapping and growing -----------------------------------------------------------------------


def test_wrapping_changes_neither_function_nor_names() -> None:
    model = network()
    before, names = logits(model), [name for name, _ in model.named_parameters()]
    with grow(model) as growth:
        assert growth.count == 0
        assert torch.equal(logits(growth.model), before)
        assert sorted(growth.neuron_parameters()) == sorted(names)
        assert growth.dendrite_parameters() == {}
        assert sorted(growth.state()) == sorted(names)


def test_layer_norm_and_embeddings_are_tracked_not_wrapped() -> None:
    with grow(network()) as growth:
        kinds: dict[Any, Any] = {}
        for name, module in growth.model.named_modules():
            kinds.setdefault(type(module).__name__, []).append(name)
        assert sorted(kinds["PAINeuronModule"]) == sorted(growth.grown())
        assert len(kinds["PAINeuronModule"]) == 12
        assert len(kinds["TrackedNeuronModule"]) == 8  # three embeddings, their LayerNorm, two a layer
        assert all("embeddings" in n or "LayerNorm" in n for n in kinds["TrackedNeuronModule"])


def test_a_pattern_wraps_only_what_it_names() -> None:
    with grow(network(), patterns=("*.query",)) as growth:
        growth.grow(0.5)
        assert sorted(growth.grown()) == [f"bert.encoder.layer.{i}.attention.self.query" for i in (0, 1)]
        assert dendrite_counts(growth.state()) == dict.fromkeys(growth.grown(), 1)


def test_new_dendrites_leave_the_function_as_it_was() -> None:
    model = network()
    before = logits(model)
    with grow(model) as growth:
        for _ in range(2):
            growth.grow(0.5)
            assert torch.equal(logits(growth.model), before)
            assert all(not tensor.any() for name, tensor in growth.state().items() if name.endswith("_tops"))


def test_new_dendrites_have_the_asked_spread_and_depend_on_the_seed() -> None:
    found = []
    for seed in (0, 0, 1):
        with PerforatedGrowth(
            (model := network()),
            chosen_linears(model, ("*",)),
            activation="tanh",
            patience=2,
            most=1,
            seed=seed,
            init_std=0.2,
        ) as growth:
            growth.grow(0.5)
            found.append(torch.cat([p.flatten() for n, p in growth.state().items() if ".dendrites." in n]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert found[0].std().item() == pytest.approx(0.2, rel=0.05)


def test_growing_keeps_the_neurons_and_the_older_dendrites() -> None:
    with grow(network()) as growth:
        growth.grow(0.5)
        fill(growth)
        before = growth.state()
        growth.grow(0.5)
        after = growth.state()
        for name, tensor in before.items():
            kept = after[name][:1] if name.endswith(".dendrite_tops") else after[name]
            assert torch.equal(kept, tensor), name


def test_newest_dendrites_are_what_the_next_phase_trains() -> None:
    with grow(network(), patterns=("*.query",)) as growth:
        for _ in range(3):
            growth.grow(0.5)
        own = {n.rpartition("query.")[2] for n in growth.dendrite_parameters()}
        assert own == {"dendrites.2.weight", "dendrites.2.bias", "dendrite_links.1", "dendrite_tops"}
        everything = {n.rpartition("query.")[2] for n in growth.all_dendrites()}
        assert len(everything) == 3 * 2 + 2 + 1


# -- folding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_fold_computes_what_perforatedai_computes(activation: str) -> None:
    with grow(network(), activation=activation) as growth:
        for count in (1, 2, 3):
            growth.grow(0.5)
            fill(growth, seed=count)
            plain = folded(growth.model, growth.state(), activation)
            assert check_fold(growth, plain) <= 1e-6
            difference = (logits(growth.model) - logits(plain)).abs().max().item()
            assert difference <= 1e-6
            assert not any("PAI" in type(m).__name__ for m in plain.modules())
            assert {len(m.dendrites) for m in dendritic_modules(plain).values()} == {count}


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_one_wrapped_linear_equals_dendritic_linear(activation: str) -> None:
    with grow(network(), activation=activation, patterns=("encoder.layer.0.intermediate.dense",)) as growth:
        for _ in range(3):
            growth.grow(0.5)
        fill(growth)
        [(name, wrapped)] = growth.grown().items()
        plain = DendriticLinear(16, 16, 3, activation)
        state = growth.state()
        own = {n.removeprefix(f"{name}."): t for n, t in state.items() if n.startswith(name)}
        plain.load_state_dict(own)
        x = torch.randn(5, 7, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            np.testing.assert_allclose(wrapped(x).numpy(), plain(x).numpy(), atol=1e-6)


def test_fold_without_dendrites() -> None:
    growth = Growth(network(labels=("a", "b")))
    plain = folded(growth.model, growth.state(), "sigmoid")
    assert check_fold(growth, plain) == 0.0
    assert dendritic_modules(plain) == {}


@pytest.mark.parametrize("kind", ["dendrites.0.weight", "dendrite_tops", "attention.self.value.weight"])
def test_a_wrong_fold_is_refused(kind: str) -> None:
    with grow(network()) as growth:
        growth.grow(0.5)
        fill(growth)
        state = growth.state()
        name = next(name for name in state if name.endswith(kind))
        # A constant would not show: LayerNorm makes every input's sum 0.
        state[name] = state[name] + torch.randn(state[name].shape, generator=torch.Generator().manual_seed(0))
        with pytest.raises(FoldMismatchError, match="differ"):
            check_fold(growth, folded(growth.model, state, "sigmoid"))


def test_the_wrong_activation_is_refused() -> None:
    with grow(network(), activation="tanh") as growth:
        growth.grow(0.5)
        fill(growth)
        with pytest.raises(FoldMismatchError):
            check_fold(growth, folded(growth.model, growth.state(), "relu"))


def test_nan_logits_are_no_match() -> None:
    growth = Growth(network())
    plain = folded(growth.model, growth.state(), "sigmoid")
    with torch.no_grad():
        plain.classifier.bias.fill_(float("nan"))
    with pytest.raises(FoldMismatchError):
        check_fold(growth, plain)


def test_check_fold_leaves_the_training_mode() -> None:
    growth = Growth(network())
    growth.model.train()
    check_fold(growth, folded(growth.model, growth.state(), "sigmoid"))
    assert growth.model.training


def test_folding_draws_nothing_from_the_generator() -> None:
    growth = Growth(network())
    before = torch.get_rng_state()
    folded(growth.model, growth.state(), "sigmoid")
    assert torch.equal(torch.get_rng_state(), before)


# -- states -------------------------------------------------------------------------------------


def test_state_is_a_copy() -> None:
    growth = Growth(network())
    state = growth.state()
    with torch.no_grad():
        growth.model.classifier.bias.add_(1)
    assert not state["classifier.bias"].any()


def test_load_brings_a_state_back() -> None:
    with grow(network()) as growth:
        growth.grow(0.5)
        fill(growth, 1)
        before, shown = growth.state(), logits(growth.model)
        fill(growth, 2)
        assert not torch.equal(logits(growth.model), shown)
        growth.load(before)
        assert torch.equal(logits(growth.model), shown)


def test_load_of_fewer_dendrites_silences_the_others() -> None:
    with grow(network()) as growth:
        base, without = growth.state(), logits(growth.model)
        growth.grow(0.5)
        fill(growth)
        one, with_one = growth.state(), logits(growth.model)
        growth.grow(0.5)
        fill(growth)
        growth.load(one)
        assert torch.equal(logits(growth.model), with_one)
        growth.load(base)
        assert torch.equal(logits(growth.model), without)


def test_load_is_strict_about_names() -> None:
    with grow(network()) as growth:
        state = growth.state()
        with pytest.raises(KeyError, match="nobody"):
            growth.load({**state, "nobody.weight": torch.zeros(1)})
        del state["classifier.bias"]
        with pytest.raises(KeyError, match=r"classifier\.bias"):
            growth.load(state)
    plain = Growth(network())
    with pytest.raises(RuntimeError):
        plain.load({})


def test_a_plain_network_does_not_grow() -> None:
    growth = Growth(network())
    assert growth.observe(0.5) is False
    assert growth.grown() == growth.dendrite_parameters() == growth.all_dendrites() == {}
    with pytest.raises(RuntimeError):
        growth.grow(0.5)
    assert isinstance(growth.model.bert.encoder.layer[0].intermediate.dense, nn.Linear)  # type: ignore[index, union-attr]


# -- the history rule ---------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_history_switches_after_patience_epochs_without_gain(patience: int) -> None:
    scores = [0.5, 0.6, 0.7, *[0.65] * 10]
    with grow(network(), patience=patience) as growth:
        switched = next(i for i, score in enumerate(scores) if growth.observe(score))
        assert growth.count == 1
    assert switched == 2 + patience


def test_history_does_not_switch_while_scores_rise() -> None:
    with grow(network(), patience=2) as growth:
        assert not any(growth.observe(0.3 + 0.05 * i) for i in range(10))
        assert growth.count == 0


def test_observing_changes_no_weight() -> None:
    with grow(network(), patience=1) as growth:
        before = growth.state()
        while not growth.observe(0.5):
            pass
        after = growth.state()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
