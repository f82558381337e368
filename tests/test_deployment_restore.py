"""Reading weights back out of lean graphs: the inverse of the writer, for every form of a graph."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from deployment_helpers import LENGTH, SIX, labelled, network, save, tokens, torch_logits
from onnx import numpy_helper
from toy import tiny_settings

from gkiller import assets
from gkiller.deployment.deploy import copy_deployed, export_onnx, quantize
from gkiller.deployment.lean import Scheme, build
from gkiller.deployment.parity import parity_rows
from gkiller.deployment.quantize import find_ranges
from gkiller.deployment.weights import (
    LINEARS,
    NORMS,
    Network,
    deployed_encoder,
    encoder_state,
    network_of,
    read_deployed,
    read_network,
)
from gkiller.errors import ModelFormatError, ModelNotFoundError, ModelTamperedError
from gkiller.model.directory import LoadedModel, load_model
from gkiller.model.layout import CONFIG, GRAPHS, default_model
from gkiller.model.network import Description, read_description
from gkiller.settings import DeploymentSettings
from gkiller.storage.strict_json import parse_json
from gkiller.tokens.batches import tokenize

LOOSE = DeploymentSettings(int8_flips=1, int8_ap_loss=1, int8_f1_loss=1, int8_score_difference=1)
SHAPES = {
    "plain": {"dendrites": 0},
    "one dendrite": {"dendrites": 1},
    "three dendrites": {"dendrites": 3, "activation": "tanh"},
    "dendrites on the query alone": {"patterns": ("*.query",)},
    "cls": {"pooling": "cls", "labels": SIX},
    "cls, dendrites on the key": {"pooling": "cls", "patterns": ("*.key",), "layers": 1},
}
INT8 = [Scheme("int8", "int8"), Scheme("int8", "int8", bits=7), Scheme("int8", "int8", per_column=False)]


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)  # type: ignore[call-overload, untyped-decorator]
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    labels = request.param.get("labels", ("toxicity",))
    return save(tmp_path / "model", network(**request.param), labels)


def description(loaded: LoadedModel) -> Description:
    return read_description(parse_json((loaded.path / CONFIG).read_bytes()))


def folded(loaded: LoadedModel) -> Network:
    """The network as a graph has it: the token type is part of the positions."""
    written = network_of(loaded.model, loaded.max_length)
    return replace(written, positions=written.positions + written.types, types=np.zeros_like(written.types))


def matrices(network: Network) -> dict[str, tuple[np.ndarray[Any, Any], bool]]:
    """Every array of a network by its place, with whether int8 graphs store it as bytes."""
    found = {"words": (network.words.T, True), "positions": (network.positions, False)}

    def dense(place: Any, part: Any, whole: Any = True) -> None:
        found[place], found[f"{place}.bias"] = (part.weight, whole), (part.bias, False)
        for number, branch in enumerate(part.branches):
            found[f"{place}.{number}"] = (branch.weight, whole)
            for name in ("bias", "links", "top"):
                found[f"{place}.{number}.{name}"] = (getattr(branch, name), False)

    def norm(place: Any, part: Any) -> None:
        found[f"{place}.gamma"], found[f"{place}.beta"] = (part.gamma, False), (part.beta, False)

    norm("norm", network.norm)
    for number, layer in enumerate(network.layers):
        for part in LINEARS:
            dense(f"{number}.{part}", getattr(layer, part))
        for part in NORMS:
            norm(f"{number}.{part}", getattr(layer, part))
    if network.pooler is not None:
        dense("pooler", network.pooler)
    dense("head", network.head, whole=False)
    return found


def test_a_float32_graph_gives_back_every_number(loaded: LoadedModel) -> None:
    written = folded(loaded)
    graph = build(network_of(loaded.model, loaded.max_length)).SerializeToString()
    read = read_network(graph, description(loaded))
    wanted, found = matrices(written), matrices(read)
    assert wanted.keys() == found.keys()
    for place, (array, _) in wanted.items():
        np.testing.assert_array_equal(found[place][0], array, err_msg=place)
    plain = ("heads", "act", "pooling")
    assert [getattr(read, name) for name in plain] == [getattr(written, name) for name in plain]
    assert build(read).SerializeToString() == graph


@pytest.mark.parametrize("scheme", INT8, ids=["8 bits", "7 bits", "one scale"])
def test_an_int8_graph_gives_every_number_within_half_a_step(loaded: LoadedModel, scheme: Scheme) -> None:
    written = network_of(loaded.model, loaded.max_length)
    ranges = find_ranges(written, tokenize(loaded.tokenizer, labelled().rows.texts), 1.0)
    graph = build(written, scheme, ranges=ranges).SerializeToString()
    read = matrices(read_network(graph, description(loaded)))
    for place, (array, whole) in matrices(folded(loaded)).items():
        difference = np.abs(read[place][0] - array)
        if whole:
            limit = 2 ** ((8 if place == "words" else scheme.bits) - 1) - 1
            wide = scheme.per_column or place == "words"
            # Query, key and value are one matrix, and share its one scale.
            peak = np.abs(array).max(axis=0) if wide else peak_of(written, place, array)
            assert (difference <= 0.5 * peak / limit * (1 + 1e-5)).all(), place
            assert difference.max() > 0, place
        elif place == "positions":
            np.testing.assert_array_equal(read[place][0], array.astype(np.float16).astype(np.float32))
        else:
            assert not difference.any(), place


def peak_of(network: Network, place: str, array: np.ndarray[Any, Any]) -> np.float32:
    """The largest weight of the matrix that a place was written into, with one scale for all of it."""
    number, _, part = place.partition(".")
    if part.split(".")[0] not in ("query", "key", "value"):
        return np.abs(array).max()
    return max(
        np.abs(matrices(network)[f"{number}.{p}{part[len(part.split('.')[0]) :]}"][0]).max()
        for p in beside(network, int(number), part)
    )


def beside(network: Network, number: int, part: str) -> list[str]:
    name = part.split(".")[0]
    layer = network.layers[number]
    alone = network.pooling == "cls" and number == len(network.layers) - 1
    group = ["key", "value"] if alone else ["query", "key", "value"]
    joined = name in group and len({len(getattr(layer, p).branches) for p in group}) == 1
    return group if joined else [name]


def test_a_float16_graph_gives_float16_numbers(loaded: LoadedModel) -> None:
    written = network_of(loaded.model, loaded.max_length)
    read = matrices(read_network(build(written, Scheme("fp16", "fp16")).SerializeToString(), description(loaded)))
    for place, (array, whole) in matrices(folded(loaded)).items():
        half = whole or place == "positions"
        wanted = array.astype(np.float16).astype(np.float32) if half else array
        np.testing.assert_array_equal(read[place][0], wanted, err_msg=place)


def test_a_network_of_read_weights_computes_the_same(tmp_path: Path) -> None:
    loaded = save(tmp_path / "model", network(dendrites=0))
    read = read_network(build(network_of(loaded.model, LENGTH)).SerializeToString(), description(loaded))
    ids, mask = tokens(8, LENGTH)
    before = torch_logits(loaded.model, ids, mask)
    state = encoder_state(read, loaded.model.bert.config.type_vocab_size)
    assert state.keys() == loaded.model.bert.state_dict().keys()
    loaded.model.bert.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    np.testing.assert_allclose(torch_logits(loaded.model, ids, mask), before, atol=1e-5)


def change(graph: bytes, old: str, new: str | None = None, array: np.ndarray[Any, Any] | None = None) -> bytes:
    """A graph with a constant renamed, replaced, or gone when neither is given."""
    model = onnx.load_from_string(graph)
    constants = model.graph.initializer
    place, *_ = [number for number, tensor in enumerate(constants) if tensor.name.startswith(old)]
    kept = numpy_helper.to_array(constants[place]) if array is None else array
    name = new or constants[place].name
    del constants[place]
    if new is not None or array is not None:
        constants.append(numpy_helper.from_array(kept, name))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda graph: b"no graph", "no ONNX file"),
        (lambda graph: change(graph, "layer.0.mix.bias_"), "no weight 'layer.0.mix.bias'"),
        (lambda graph: change(graph, "integers_", new="layer.7.mix_1"), "more weights 'layer.7.mix'"),
        (lambda graph: change(graph, "head_", array=np.full((4, 4), np.nan, np.float32)), "finite"),
        (lambda graph: change(graph, "head_", array=np.zeros((4, 4), np.int64)), "finite"),
    ],
    ids=["garbage", "missing", "left over", "not finite", "another type"],
)
def test_other_graphs_are_refused(tmp_path: Path, damage: Callable[..., Any], message: str) -> None:
    loaded = save(tmp_path / "model", network(dendrites=0))
    graph = build(network_of(loaded.model, LENGTH)).SerializeToString()
    with pytest.raises(ValueError, match=message):
        read_network(damage(graph), description(loaded))


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any] | Path:
    """Ship a model of the toy vocabulary in a folder of the test's own; returns the trained one."""
    place = tmp_path / "assets" / "model"
    monkeypatch.setattr(assets, "default_model_path", lambda: place)

    def ship(precision: Any = "int8", plain: Any = False, **shape: Any) -> Any:
        loaded = save(tmp_path / "run" / "model", network(**shape))
        rows = parity_rows(loaded, labelled(), 40)
        if precision == "int8":
            quantize(loaded, rows, LOOSE)
        else:
            export_onnx(loaded, rows, LOOSE, plain=plain)
        copy_deployed(load_model(loaded.path), GRAPHS[precision], place)
        return loaded

    return ship


def test_the_shipped_encoder_is_the_trained_one(shipped: Callable[..., Any], tmp_path: Path) -> None:
    trained = shipped("fp32", dendrites=0).model.bert
    settings = tiny_settings("model.encoder=default", "model.dropout=0.3", "model.max_length=12").model
    encoder = deployed_encoder(default_model(), settings, 150)
    assert encoder.config.hidden_dropout_prob == 0.3
    assert encoder.config.max_position_embeddings == LENGTH
    ids, mask = (torch.from_numpy(array) for array in tokens(4, 12))
    with torch.inference_mode():
        pair = [one.eval()(input_ids=ids, attention_mask=mask)[0] for one in (encoder, trained)]
    torch.testing.assert_close(*pair, atol=1e-5, rtol=0)


def test_the_int8_graph_is_what_is_read_and_dendrites_stay_behind(shipped: Callable[..., Any]) -> None:
    trained = shipped(dendrites=1)
    read, _ = read_deployed(assets.default_model_path())
    encoder = deployed_encoder(default_model(), tiny_settings("model.encoder=default").model, 100)
    own = dict(trained.model.bert.named_parameters())
    for name, parameter in encoder.named_parameters():
        if "token_type" not in name and "position" not in name:
            peak = own[name].abs().max().item()
            assert (parameter - own[name]).abs().max().item() <= 0.5 * peak / 63 + 1e-6, name
    assert len(read.layers[0].up.branches) == 1
    assert not [name for name, _ in encoder.named_parameters() if "dendrite" in name]


def test_a_pooler_that_was_not_shipped_is_random_and_one_too_many_is_left(shipped: Callable[..., Any]) -> None:
    shipped(dendrites=0)
    settings = tiny_settings("model.encoder=default", "model.pooling=cls").model
    torch.manual_seed(3)
    first = deployed_encoder(default_model(), settings, 100).pooler.dense.weight  # type: ignore[union-attr]
    torch.manual_seed(3)
    assert torch.equal(first, deployed_encoder(default_model(), settings, 100).pooler.dense.weight)  # type: ignore[arg-type, union-attr]
    shipped(dendrites=0, pooling="cls")
    trained = load_model(assets.default_model_path().parents[1] / "run").model.bert.pooler.dense  # type: ignore[union-attr]
    kept = deployed_encoder(default_model(), settings, 100).pooler.dense  # type: ignore[union-attr]
    torch.testing.assert_close(kept.bias, trained.bias, atol=0, rtol=0)  # type: ignore[union-attr]
    plain = tiny_settings("model.encoder=default", "model.pooling=mean").model
    assert deployed_encoder(default_model(), plain, 100).pooler is None


def test_what_does_not_fit_is_refused(shipped: Callable[..., Any]) -> None:
    settings = tiny_settings("model.encoder=default").model
    with pytest.raises(ModelNotFoundError, match=r"this build has no default model .*gkiller train"):
        deployed_encoder(default_model(), settings, 100)
    shipped(dendrites=0)
    with pytest.raises(ModelFormatError, match=r"tokenizer has 9999 pieces"):
        deployed_encoder(default_model(), settings, 9999)
    long = tiny_settings("model.encoder=default", "model.max_length=17").model
    with pytest.raises(ModelFormatError, match=r"17 is more than the encoder's 16 positions"):
        deployed_encoder(default_model(), long, 100)
    (assets.default_model_path() / GRAPHS["int8"]).write_bytes(b"damaged")
    with pytest.raises(ModelTamperedError):
        deployed_encoder(default_model(), settings, 100)
    shipped("fp32", plain=True, dendrites=0)
    with pytest.raises(ModelFormatError, match="not the lean graph"):
        deployed_encoder(default_model(), settings, 100)
