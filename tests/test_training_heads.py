"""A training that goes on from the whole of a model: what it starts with scores as the model does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deployment_helpers import LENGTH, ONE, SIX, labelled, network, save, tokens, torch_logits
from toy import tiny_settings, vocabulary

from gkiller.deployment.deploy import copy_deployed, export_onnx
from gkiller.deployment.parity import parity_rows
from gkiller.errors import ModelFormatError
from gkiller.model.directory import load_model
from gkiller.model.layout import GRAPHS
from gkiller.settings import DeploymentSettings
from gkiller.training.network import new_network


@pytest.fixture(params=["weights", "graph alone"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any] | Path:
    """Save a network, with its weights or its graph alone; returns the network and where it is."""

    def make(labels: Any, **shape: Any) -> Any:
        loaded = save(tmp_path / "model", network(labels, dendrites=0, **shape), labels)
        if request.param == "weights":
            return loaded.model, loaded.path
        export_onnx(loaded, parity_rows(loaded, labelled(labels), 40), DeploymentSettings())
        copy_deployed(load_model(loaded.path), GRAPHS["fp32"], tmp_path / "copy")
        return loaded.model, tmp_path / "copy"

    return make


def begun(place: Path | str, labels: Any, *overrides: Any) -> np.ndarray[Any, Any]:
    """The logits that a training begins with, on some rows; one column per label."""
    pairs = (f"model.encoder={place}", "model.head=kept", "model.pooling=mean_max", *overrides)
    torch.manual_seed(9)
    model = new_network(tiny_settings(*pairs).model, labels, len(vocabulary()))
    return torch_logits(model.eval(), *tokens(6, LENGTH))


@pytest.mark.parametrize("labels", [ONE, SIX], ids=["one label", "six labels"])
def test_it_begins_with_the_model_s_scores(saved: Callable[..., Any], labels: tuple[Any, ...]) -> None:
    model, place = saved(labels)
    expected = torch_logits(model, *tokens(6, LENGTH))
    np.testing.assert_allclose(begun(place, labels), expected, atol=1e-4)
    assert np.abs(begun(place, labels, "model.head=fresh") - expected).max() > 0.1


@pytest.mark.parametrize("labels", [("spam", SIX[2], SIX[0]), (SIX[4],)], ids=["some", "one"])
def test_labels_are_matched_by_name(saved: Callable[..., Any], labels: tuple[Any, ...]) -> None:
    model, place = saved(SIX)
    expected = torch_logits(model, *tokens(6, LENGTH))
    found = begun(place, labels)
    for column, label in enumerate(labels):
        if label in SIX:
            np.testing.assert_allclose(found[:, column], expected[:, SIX.index(label)], atol=1e-4)
    if "spam" in labels:
        fresh = begun(place, labels, "model.head=fresh")
        np.testing.assert_array_equal(found[:, 0], fresh[:, 0])


def test_one_label_s_head_is_kept_among_several(saved: Callable[..., Any]) -> None:
    model, place = saved(ONE)
    found = begun(place, ("spam", *ONE))
    np.testing.assert_allclose(found[:, 1:], torch_logits(model, *tokens(6, LENGTH)), atol=1e-4)


def test_what_has_no_such_head_is_refused(saved: Callable[..., Any], tmp_path: Path) -> None:
    _, place = saved(SIX)
    with pytest.raises(ModelFormatError, match=r"toxicity, .* and none of spam, ham.*as the model does"):
        begun(place, ("spam", "ham"))
    with pytest.raises(ModelFormatError, match=r"pooling 'mean_max', and model.pooling is 'mean'"):
        begun(place, SIX, "model.pooling=mean")
    with pytest.raises(ModelFormatError, match="an encoder without a head"):
        begun("fresh", SIX)
    network(ONE, dendrites=0).bert.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ModelFormatError, match="an encoder without a head"):
        begun(tmp_path / "encoder", SIX)
