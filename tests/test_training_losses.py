"""Class weights and the task loss, against scikit-learn, torch and arithmetic by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from gkiller.errors import SingleClassError
from gkiller.training.losses import class_weights, task_loss

NAN = float("nan")
label = st.sampled_from([0.0, 1.0, NAN])
logit = st.floats(-8, 8, width=32)


def table(rows: list[Any]) -> np.ndarray[Any, Any]:
    return np.array(rows, dtype=np.float32)


# -- class weights ------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=50).filter(lambda y: len(set(y)) == 2))
def test_balanced_is_scikit_learn_s(y: Any) -> None:
    expected = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=np.array(y))
    found = class_weights(table(y)[:, None], ["a"], "balanced")
    np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-6)


def test_unknown_labels_do_not_count() -> None:
    found = class_weights(table([[0], [0], [0], [1], [NAN], [NAN]]), ["a"], "balanced")
    np.testing.assert_allclose(found, [[4 / 6, 4 / 2]])


def test_each_label_has_its_own() -> None:
    rows = table([[0, 1], [0, 1], [1, 0], [0, NAN]])
    np.testing.assert_allclose(class_weights(rows, ["a", "b"], "balanced"), [[4 / 6, 4 / 2], [3 / 2, 3 / 4]], rtol=1e-6)


def test_a_label_of_one_class_gets_ones() -> None:
    found = class_weights(table([[0, 0], [1, 0]]), ["a", "b"], "balanced")
    np.testing.assert_allclose(found, [[1, 1], [1, 1]])


def test_none_is_ones() -> None:
    found = class_weights(table([[0], [0], [1]]), ["a"], "none")
    np.testing.assert_array_equal(found, [[1, 1]])
    assert found.dtype == torch.float32


@pytest.mark.parametrize("mode", ["balanced", "none"])
@pytest.mark.parametrize("rows", [[[0], [0]], [[1], [NAN]], [[NAN], [NAN]]])
def test_nothing_to_learn_from(rows: list[Any], mode: str) -> None:
    with pytest.raises(SingleClassError) as caught:
        class_weights(table(rows), ["toxicity"], mode)  # type: ignore[arg-type]
    assert "toxicity" in caught.value.what
    assert caught.value.where == "train"


# -- one label: weighted cross-entropy ----------------------------------------------------------


def test_one_label_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, 3.0], [2.0, -1.0]])
    targets = torch.tensor([[0.0], [1.0], [1.0]])
    weights = torch.tensor([[0.5, 4.0]])
    each = [math.log(2), math.log(1 + math.exp(-2)), math.log(1 + math.exp(3))]
    expected = (0.5 * each[0] + 4 * each[1] + 4 * each[2]) / (0.5 + 4 + 4)
    assert task_loss(logits, targets, weights).item() == pytest.approx(expected, rel=1e-6)


@given(
    st.lists(st.tuples(logit, logit, st.sampled_from([0, 1])), min_size=1, max_size=20),
    st.tuples(st.floats(0.125, 5), st.floats(0.125, 5)),
)
def test_one_label_is_scikit_learn_s_log_loss(rows: Any, weights: Any) -> None:
    logits = torch.tensor([row[:2] for row in rows])
    truth = np.array([row[2] for row in rows])
    scores = logits.double().softmax(-1).numpy()
    expected = log_loss(truth, scores, sample_weight=np.take(weights, truth), labels=[0, 1])
    found = task_loss(logits, torch.from_numpy(truth[:, None].astype(np.float32)), torch.tensor([weights]))
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


# -- several labels: weighted binary cross-entropy ------------------------------------------------


def test_several_labels_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, -3.0]])
    targets = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    weights = torch.tensor([[0.5, 2.0], [1.0, 3.0]])
    each = [2.0 * math.log(2), 0.5 * math.log(1 + math.e), 3.0 * math.log(1 + math.exp(3))]
    assert task_loss(logits, targets, weights).item() == pytest.approx(sum(each) / 3, rel=1e-6)


@given(st.lists(st.tuples(logit, logit, logit, label, label, label), min_size=1, max_size=12))
def test_several_labels_are_the_mean_of_the_known(rows: Any) -> None:
    logits = torch.tensor([row[:3] for row in rows])
    targets = torch.tensor([row[3:] for row in rows])
    weights = torch.tensor([[0.5, 2.0], [1.0, 3.0], [0.7, 1.3]])
    losses = []
    for z, y in zip(logits.double().tolist(), targets.tolist(), strict=True):
        for i in range(3):
            if y[i] in (0, 1):
                p = 1 / (1 + math.exp(-z[i]))
                losses.append(-float(weights[i, int(y[i])]) * math.log(p if y[i] else 1 - p))
    expected = sum(losses) / len(losses) if losses else 0.0
    assert task_loss(logits, targets, weights).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


# -- unknown labels -----------------------------------------------------------------------------


@given(st.integers(1, 3), st.data())
def test_unknown_labels_have_no_gradient(labels: Any, data: Any) -> None:
    rows = data.draw(st.integers(1, 6))
    targets = torch.tensor(
        data.draw(st.lists(st.lists(label, min_size=labels, max_size=labels), min_size=rows, max_size=rows))
    )
    outputs = 2 if labels == 1 else labels
    logits = torch.randn(rows, outputs, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = task_loss(logits, targets, torch.ones(labels, 2))
    assert math.isfinite(loss.item())
    loss.backward()
    unknown = targets.isnan().expand(rows, outputs) if labels == 1 else targets.isnan()
    assert not logits.grad[unknown].any()
    assert bool((logits.grad[~unknown] != 0).all())


def test_what_an_unknown_label_s_logit_is_does_not_matter() -> None:
    targets, weights = torch.tensor([[1.0, NAN], [0.0, 1.0]]), torch.ones(2, 2)
    logits = torch.tensor([[0.3, 0.1], [0.2, 0.4]])
    other = logits.clone()
    other[0, 1] = 50.0
    assert torch.equal(task_loss(logits, targets, weights), task_loss(other, targets, weights))


def test_half_precision_logits_are_not_rounded_further() -> None:
    logits = torch.tensor([[0.1, 0.2]], dtype=torch.bfloat16)
    assert task_loss(logits, torch.tensor([[1.0]]), torch.ones(1, 2)).dtype == torch.float32
