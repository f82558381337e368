"""The network: pooling, heads, probabilities."""

from typing import Any

import pytest
import torch
from toy import tiny_settings, vocabulary

from gkiller.model.network import ToxicityClassifier, build_classifier, parameter_count

VOCABULARY = len(vocabulary())


def network(*overrides: Any, labels: Any = ("toxicity",), seed: Any = 0) -> ToxicityClassifier:
    torch.manual_seed(seed)
    return build_classifier(tiny_settings(*overrides).model, labels, VOCABULARY).eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[2, 9, 8, 7, 3], [2, 5, 3, 0, 0]])
    return ids, (ids != 0).long()


def tokens_of(model: ToxicityClassifier, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model.bert(input_ids=ids, attention_mask=mask)[0]


@pytest.mark.parametrize("pooling", ["mean", "mean_max", "cls"])
@pytest.mark.parametrize(("labels", "outputs"), [(("a",), 2), (("a", "b", "c"), 3)])
def test_shapes(pooling: str, labels: tuple[Any, ...], outputs: int) -> None:
    model = network(f"model.pooling={pooling}", labels=labels)
    with torch.no_grad():
        logits = model(*batch())
        scores = model.probabilities(logits)
    assert logits.shape == (2, outputs)
    assert scores.shape == (2, len(labels))
    assert bool(((scores > 0) & (scores < 1)).all())


def test_mean_and_maximum_are_over_the_real_tokens() -> None:
    model = network("model.pooling=mean_max")
    ids, mask = batch()
    with torch.no_grad():
        tokens = tokens_of(model, ids, mask)
        mean = torch.stack([tokens[0].mean(0), tokens[1, :3].mean(0)])
        most = torch.stack([tokens[0].amax(0), tokens[1, :3].amax(0)])
        expected = model.classifier(torch.cat([mean, most], dim=-1))
        torch.testing.assert_close(model(ids, mask), expected)


def test_mean_alone() -> None:
    model = network("model.pooling=mean")
    ids, mask = batch()
    with torch.no_grad():
        tokens = tokens_of(model, ids, mask)
        expected = model.classifier(torch.stack([tokens[0].mean(0), tokens[1, :3].mean(0)]))
        torch.testing.assert_close(model(ids, mask), expected)


def test_cls_is_the_pooler() -> None:
    model = network("model.pooling=cls")
    ids, mask = batch()
    with torch.no_grad():
        first = tokens_of(model, ids, mask)[:, 0]
        expected = model.classifier(torch.tanh(model.bert.pooler.dense(first)))  # type: ignore[operator, union-attr]
        torch.testing.assert_close(model(ids, mask), expected)
    assert network("model.pooling=mean").bert.pooler is None


@pytest.mark.parametrize("pooling", ["mean", "mean_max", "cls"])
def test_padding_does_not_matter(pooling: str) -> None:
    model = network(f"model.pooling={pooling}", labels=("a", "b"))
    ids, mask = batch()
    with torch.no_grad():
        alone = model(ids[1:, :3], mask[1:, :3])
        torch.testing.assert_close(model(ids, mask)[1:], alone, rtol=1e-5, atol=1e-6)


def test_probabilities() -> None:
    two, several = network(), network(labels=("a", "b"))
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.5]])
    torch.testing.assert_close(two.probabilities(logits), logits.softmax(-1)[:, 1:])
    torch.testing.assert_close(several.probabilities(logits), logits.sigmoid())
    assert two.probabilities(logits.to(torch.bfloat16)).dtype == torch.float32


def test_the_shape_is_what_the_settings_say() -> None:
    model = network("model.layers=2", "model.hidden=24", "model.heads=3", "model.ffn=40", "model.dropout=0.3")
    config = model.bert.config
    found = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    assert found == (2, 24, 3)
    assert (config.intermediate_size, config.max_position_embeddings, config.vocab_size) == (40, 16, VOCABULARY)
    assert (config.hidden_dropout_prob, model.dropout.p, config.attention_probs_dropout_prob) == (0.3, 0.3, 0)


def test_weights_depend_on_the_seed_alone() -> None:
    first, second, other = (network(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_bert_tiny_has_the_size_that_is_claimed() -> None:
    overrides = ("model.layers=2", "model.hidden=128", "model.ffn=512", "model.max_length=512")
    torch.manual_seed(0)
    settings = tiny_settings(*overrides, "model.pooling=cls").model
    with torch.device("meta"):
        model = build_classifier(settings, ("toxicity",), 30_522)
    assert parameter_count(model) == 4_386_178
