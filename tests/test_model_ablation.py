"""What dendrites do: measured by silencing them, and by replacing them with their mean."""

from typing import Any

import numpy as np
import pytest
import torch
from toy import tiny_settings, toy_tokenizer, vocabulary

from gkiller.model.dendrites.growth import chosen_linears, dendritic_modules
from gkiller.model.directory import LoadedModel
from gkiller.model.network import add_dendrites, build_classifier
from gkiller.scoring.models import score_texts
from gkiller.tokens.wordpiece import parse_tokenizer
from gkiller.training.phases import ablated_scores, top_weight_mean, with_mean_dendrites, without_dendrites

TEXTS = ["good work on the map", "you idiot", "thank you for the careful edit", "fool", "so clown now"]


def loaded(tops: Any, pattern: str = "*", dendrites: int = 1) -> LoadedModel:
    """A network with dendrites; ``tops`` fills their top weights."""
    torch.manual_seed(1)
    model = build_classifier(tiny_settings().model, ("toxicity", "insult"), len(vocabulary()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # fresh weights are too small to show anything
    plain = {name: parameter.clone() for name, parameter in model.named_parameters()}
    add_dendrites(model, dict.fromkeys(chosen_linears(model, (pattern,)), dendrites), "sigmoid")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in plain:
                parameter.copy_(plain[name])
        for module in dendritic_modules(model).values():
            tops(module.dendrite_tops)
    tokenizer = parse_tokenizer(toy_tokenizer().to_str(), "a test", 16)
    return LoadedModel(model.eval(), tokenizer, ("toxicity", "insult"), {}, 16)


def test_mean_top_weight() -> None:
    assert top_weight_mean(loaded(lambda tops: tops.fill_(-0.25))) == pytest.approx(0.25)
    assert top_weight_mean(loaded(torch.Tensor.zero_)) == 0.0


def test_without_dendrites_is_the_plain_network() -> None:
    plain, grown = loaded(torch.Tensor.zero_), loaded(torch.Tensor.normal_)
    silent = score_texts(without_dendrites(grown), TEXTS)
    np.testing.assert_array_equal(silent, score_texts(plain, TEXTS))
    assert np.abs(silent - score_texts(grown, TEXTS)).max() > 1e-3  # and it took something away


def test_the_model_itself_is_not_changed() -> None:
    grown = loaded(torch.Tensor.normal_)
    before = score_texts(grown, TEXTS)
    ablated_scores(grown, TEXTS)
    np.testing.assert_array_equal(score_texts(grown, TEXTS), before)
    assert all(not module._forward_hooks for module in grown.model.modules())


def test_constant_dendrites_are_their_mean() -> None:
    """A dendrite that gives the same for every input is a bias: replacing it by its mean costs nothing."""
    grown = loaded(torch.Tensor.normal_)
    with torch.no_grad():
        for module in dendritic_modules(grown.model).values():
            module.dendrites[0].weight.zero_()  # type: ignore[operator]
            module.dendrites[0].bias.fill_(0.7)  # type: ignore[operator]
    scores = ablated_scores(grown, TEXTS)
    np.testing.assert_allclose(scores["mean"], scores["whole"], atol=1e-5)
    assert np.abs(scores["zeroed"] - scores["whole"]).max() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_the_mean_is_over_real_tokens(batch_size: int) -> None:
    """One chosen Linear in the first layer: its inputs do not depend on any dendrite."""
    grown = loaded(torch.Tensor.normal_, pattern="encoder.layer.0.attention.self.value", dendrites=2)
    [(name, module)] = dendritic_modules(grown.model).items()
    outputs = []
    with torch.inference_mode():
        for text in TEXTS:
            ids = torch.tensor([grown.tokenizer.encode(text).ids])
            x = grown.model.bert.embeddings(ids)[0]  # type: ignore[operator]
            outputs.append(module(x) - torch.nn.functional.linear(x, module.weight, module.bias))
    expected = torch.cat(outputs).mean(0)
    constant = with_mean_dendrites(grown, TEXTS, batch_size)
    [(_, replaced)] = dendritic_modules(constant.model).items()
    torch.testing.assert_close((replaced.bias - module.bias).detach(), expected, rtol=1e-4, atol=1e-5)
    assert not replaced.dendrite_tops.any()
    assert name == "bert.encoder.layer.0.attention.self.value"


def test_a_model_without_dendrites() -> None:
    grown = loaded(torch.Tensor.zero_)
    scores = ablated_scores(grown, TEXTS)
    np.testing.assert_array_equal(scores["whole"], scores["zeroed"])
    np.testing.assert_array_equal(scores["whole"], scores["mean"])
