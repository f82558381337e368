"""Every graph computes the trained network's logits."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import onnx
import pytest
from deployment_helpers import LENGTH, ONE, SIX, network, tokens, torch_logits

from gkiller.deployment.lean import NONE, Rewrites, Scheme, build, byte_scale, quantized_columns
from gkiller.deployment.probes import score_tokens, session, sigmoid
from gkiller.deployment.quantize import export_plain, find_ranges
from gkiller.deployment.weights import network_of
from gkiller.errors import ExportError
from gkiller.model.network import ToxicityClassifier
from gkiller.storage.environment import read_cpu
from gkiller.tokens.batches import end_to_end

SHAPES = [(1, 2), (1, LENGTH), (3, 5), (7, LENGTH), (16, 9)]
NAMES = [field.name for field in fields(Rewrites)]
TOLERANCE = 1e-5


def logits(running: Any, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return running.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def furthest(graph: Any, model: ToxicityClassifier) -> np.float32:
    running = session(graph)
    return max(
        np.abs(logits(running, *batch) - torch_logits(model, *batch)).max()
        for seed, shape in enumerate(SHAPES)
        for batch in [tokens(*shape, seed)]
    )


def static(model: ToxicityClassifier, scheme: Scheme) -> Any:
    graph_of = network_of(model, LENGTH)
    random = np.random.default_rng(5)
    rows = end_to_end([random.integers(0, 60, random.integers(2, LENGTH + 1)) for _ in range(200)], pad=0)  # type: ignore[misc]
    return build(graph_of, scheme, ranges=find_ranges(graph_of, rows))


@pytest.mark.parametrize("pooling", ["mean", "mean_max", "cls"])
@pytest.mark.parametrize("dendrites", [0, 1, 2])
@pytest.mark.parametrize("labels", [ONE, SIX])
def test_lean_graph_computes_the_network(pooling: str, dendrites: int, labels: tuple[Any, ...]) -> None:
    model = network(labels, dendrites, pooling=pooling)
    assert furthest(build(network_of(model, LENGTH)), model) <= TOLERANCE


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu"])
def test_every_dendrite_activation(activation: str) -> None:
    model = network(dendrites=3, activation=activation)
    assert furthest(build(network_of(model, LENGTH)), model) <= TOLERANCE


@pytest.mark.parametrize("name", [*NAMES, "none", "all"])
@pytest.mark.parametrize("pooling", ["mean_max", "cls"])
def test_every_rewrite_leaves_the_function_as_it_is(name: str, pooling: str) -> None:
    model = network(dendrites=2, pooling=pooling)
    chosen = {"none": NONE, "all": Rewrites(*[True] * len(NAMES))}.get(name) or replace(NONE, **{name: True})
    assert furthest(build(network_of(model, LENGTH), rewrites=chosen), model) <= TOLERANCE


@pytest.mark.parametrize("act", ["relu", "gelu_new"])
def test_other_feed_forward_activations(act: str) -> None:
    from transformers import BertModel

    model = network()
    config = model.bert.config
    config.hidden_act = act
    fresh = BertModel(config, add_pooling_layer=False)  # type: ignore[arg-type]
    fresh.load_state_dict(network(dendrites=0).bert.state_dict())
    model.bert = fresh.eval()
    assert furthest(build(network_of(model, LENGTH)), model) <= TOLERANCE


def test_dendrites_on_some_linears_keep_the_product_of_the_others_apart() -> None:
    model = network(patterns=("*.query", "encoder.layer.1.*"))
    graph = build(network_of(model, LENGTH))
    assert furthest(graph, model) <= TOLERANCE
    splits = [node for node in graph.graph.node if node.op_type == "Split"]
    assert len(splits) == 1  # layer 1 alone has equally many dendrites on query, key and value


def test_an_unknown_activation_is_refused() -> None:
    model = network()
    model.bert.config.hidden_act = "silu"
    with pytest.raises(ExportError, match="silu"):
        network_of(model, LENGTH)


@pytest.mark.parametrize("dendrites", [0, 1])
def test_the_last_position_saves_work(dendrites: int) -> None:
    model = network(dendrites=dendrites, pooling="cls")
    graph = build(network_of(model, LENGTH))
    [query, *_] = [n for n in graph.graph.node if n.op_type == "MultiHeadAttention"][-1].input
    made_by = {output: node.op_type for node in graph.graph.node for output in node.output}
    assert made_by[query] == "Unsqueeze"


@pytest.mark.parametrize("rewrites", [NONE, Rewrites()])
def test_padding_changes_nothing(rewrites: Rewrites) -> None:
    model = network(SIX, pooling="mean_max")
    running = session(build(network_of(model, LENGTH), rewrites=rewrites))
    ids, mask = tokens(1, 6)
    mask[:] = 1
    alone = logits(running, ids, mask)
    more = np.concatenate([ids, np.full((1, LENGTH - 6), 3)], axis=1)
    padded = logits(running, more, np.pad(mask, ((0, 0), (0, LENGTH - 6))))
    np.testing.assert_allclose(padded, alone, atol=1e-6)


def test_the_interface_is_one_file_with_dynamic_shapes() -> None:
    graph = build(network_of(network(SIX), LENGTH))
    onnx.checker.check_model(graph, full_check=False)
    shape = ["rows", "tokens"]

    def dimensions(value: Any) -> Any:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert {i.name: dimensions(i) for i in graph.graph.input} == {"input_ids": shape, "attention_mask": shape}
    assert [(o.name, dimensions(o)) for o in graph.graph.output] == [("logits", ["rows", 6])]
    assert all(not tensor.external_data for tensor in graph.graph.initializer)


@pytest.fixture(scope="module")
def plain() -> Any:
    model = network(dendrites=2, pooling="mean_max")
    return model, export_plain(model, LENGTH)


def test_the_exporter_s_graph_computes_the_network_too(plain: tuple[ToxicityClassifier, Any]) -> None:
    model, graph = plain
    assert furthest(graph, model) <= TOLERANCE
    assert all(not tensor.external_data for tensor in graph.graph.initializer)


def test_lean_and_exported_graph_agree(plain: tuple[ToxicityClassifier, Any]) -> None:
    model, graph = plain
    exported, lean = session(graph), session(build(network_of(model, LENGTH)))
    for seed, shape in enumerate(SHAPES):
        ids, mask = tokens(*shape, seed)
        np.testing.assert_allclose(logits(exported, ids, mask), logits(lean, ids, mask), atol=TOLERANCE)


# -- fewer bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "mean_max", "cls"])
def test_float16_storage_is_near_and_smaller(pooling: str) -> None:
    model = network(pooling=pooling)
    whole, half = (build(network_of(model, LENGTH)), build(network_of(model, LENGTH), Scheme("fp16", "fp16")))
    assert furthest(half, model) < 0.1
    assert half.ByteSize() < 0.8 * whole.ByteSize()


MOST_BITS = 8 if {"avx512_vnni", "avx_vnni"} & set(read_cpu()[1]) else 7
"""Of a weight whose products this processor adds up exactly: without VNNI, sums of two are cut at 16 bits."""


@pytest.mark.parametrize("activations", ["static", "dynamic"])
@pytest.mark.parametrize("dendrites", [0, 2])
@pytest.mark.parametrize("join", [False, True])
def test_int8_is_near(activations: str, dendrites: int, join: bool) -> None:
    model = network(SIX, dendrites, pooling="cls")
    scheme = Scheme("int8", "int8", activations=activations, bits=MOST_BITS)  # type: ignore[arg-type]
    graph_of = network_of(model, LENGTH)
    random = np.random.default_rng(5)
    rows = end_to_end([random.integers(0, 60, random.integers(2, LENGTH + 1)) for _ in range(200)], pad=0)  # type: ignore[misc]
    ranges = find_ranges(graph_of, rows)
    graph = build(graph_of, scheme, replace(Rewrites(), join_dendrites=join), ranges=ranges)
    assert score_difference(graph, model) < 0.15


def score_difference(graph: Any, model: ToxicityClassifier) -> np.float64:
    running = session(graph)
    ids, mask = tokens(32, LENGTH)
    return np.abs(sigmoid(logits(running, ids, mask)) - sigmoid(torch_logits(model, ids, mask))).max()


def test_int8_stores_bytes() -> None:
    graph = static(network(), Scheme("int8", "int8"))
    kinds = {tensor.name.rpartition("_")[0]: tensor.data_type for tensor in graph.graph.initializer}
    for site in ("words", "layer.0.qkv", "layer.1.down"):
        assert kinds[site] == onnx.TensorProto.INT8


def test_a_static_score_does_not_depend_on_its_batch() -> None:
    running = session(static(network(), Scheme("int8", "int8")))
    ids, mask = tokens(16, LENGTH)
    together = logits(running, ids, mask)
    for row in range(len(ids)):
        length = int(mask[row].sum())
        alone = logits(running, ids[row : row + 1, :length], mask[row : row + 1, :length])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)


def test_ranges_of_a_share_lie_within_the_whole() -> None:
    graph_of = network_of(network(), LENGTH)
    random = np.random.default_rng(0)
    rows = end_to_end([random.integers(0, 60, 12) for _ in range(100)], pad=0)  # type: ignore[misc]
    whole, most = find_ranges(graph_of, rows), find_ranges(graph_of, rows, 0.99)
    assert whole.keys() == most.keys()
    assert all(whole[s][0] <= most[s][0] < most[s][1] <= whole[s][1] for s in whole)
    assert any(most[s][1] < whole[s][1] for s in whole)


def test_columns_are_quantized_to_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32) * np.arange(6)
    for bits, limit in ((8, 127), (7, 63)):
        whole, steps = quantized_columns(weight.astype(np.float32), bits, per_column=True)
        assert np.abs(whole).max() == limit
        assert np.all(np.abs(whole * steps - weight) <= steps / 2 + 1e-6)
    assert quantized_columns(weight, 8, per_column=False)[1].shape == ()


@pytest.mark.parametrize("found", [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_in_every_byte_scale(found: tuple[float, float]) -> None:
    step, zero = byte_scale(found)
    assert step > 0
    assert 0 <= int(zero) <= 255
    low, high = (0 - int(zero)) * step, (255 - int(zero)) * step
    assert low <= min(found[0], 0) + step
    assert high >= max(found[1], 0) - step


def test_scores_come_in_the_order_of_the_comments() -> None:
    model = network(SIX)
    running = session(build(network_of(model, LENGTH)))
    sequences = [[2, *range(5, 5 + n), 3] for n in (9, 1, 4, 0, 12)]
    together = score_tokens(running, end_to_end(sequences, pad=0), batch_size=2)
    for row, sequence in enumerate(sequences):
        alone = score_tokens(running, end_to_end([sequence], pad=0))
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)
