"""ONNX graphs that somebody made to do harm."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_helpers import LABELS, graph, seal, write_model
from onnx import TensorProto, helper, numpy_helper
from toy import comment, toy_tokenizer

from gkiller import load
from gkiller.cli.main import main
from gkiller.errors import ModelFormatError
from gkiller.inference.graph import check_graph
from gkiller.inference.ort import onnxruntime
from gkiller.inference.session import Session

VOCABULARY = toy_tokenizer().get_vocab()
GOOD = graph(VOCABULARY)
GRAPH = "onnx/model.int8.onnx"


def changed(change: Callable[..., Any]) -> bytes:
    """A good graph, and a change of it."""
    model = onnx.load_from_string(GOOD)
    change(model)
    return model.SerializeToString()


def node(*given: Any, **named: Any) -> Callable[..., Any]:
    return lambda model: model.graph.node.append(helper.make_node(*given, **named))


def constant(model: Any, name: str, value: np.float32 | np.ndarray[Any, Any]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def forged(folder: Path, data: bytes) -> Path:
    model = write_model(folder / "model", fp32=False)
    (model / GRAPH).write_bytes(data)
    seal(model)
    return model


def body() -> Any:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    return helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "body", [value], [])


def function(model: Any) -> None:
    one = helper.make_node("Identity", ["x"], ["y"])
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [one], opset))


def outside(model: Any) -> None:
    [table] = [one for one in model.graph.initializer if one.name == "table"]
    table.ClearField("raw_data")
    table.external_data.add(key="location", value="/etc/passwd")
    table.data_location = TensorProto.EXTERNAL


def sparse(model: Any) -> None:
    model.graph.sparse_initializer.add()


def inside_a_lawful_operator(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", body()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (node("Loop", ["n", ""], ["y"], body=body()), "'Loop'"),
        (node("Scan", ["logits"], ["y"], body=body(), num_scan_inputs=1), "'Scan'"),
        (node("If", ["logits"], ["y"], then_branch=body(), else_branch=body()), "'If'"),
        (node("SequenceMap", ["logits"], ["y"], body=body()), "'SequenceMap'"),
        (node("ConstantOfShape", ["shape"], ["y"]), "'ConstantOfShape'"),
        (node("RandomNormal", [], ["y"], shape=[2**15, 2**16]), "'RandomNormal'"),
        (node("Constant", [], ["y"], value_float=1.0), "'Constant'"),
        (node("Relu", ["logits"], ["y"], domain="evil"), "'evil.Relu'"),
        (node("Relu", ["logits"], ["y"], domain="com.microsoft"), "'com.microsoft.Relu'"),
        (inside_a_lawful_operator, "a graph inside an operator"),
        (function, "functions of its own"),
        (outside, "weights in another file"),
        (sparse, "sparse weights"),
        (lambda model: model.training_info.add(), "a training of its own"),
    ],
)
def test_what_gkiller_does_not_export(tmp_path: Path, change: Callable[..., Any], said: str) -> None:
    with pytest.raises(ModelFormatError, match=said):
        load(forged(tmp_path, changed(change)))


def expand(model: Any) -> None:
    constant(model, "shape", np.array([2**15, 2**16]))
    node("Expand", ["bias", "shape"], ["y"])(model)


def expand_by_a_shape(model: Any) -> None:
    """The shape of what is reshaped to a constant is one."""
    constant(model, "to", np.array([2**15, 2**16]))
    node("Reshape", ["logits", "to"], ["fixed"])(model)
    node("Shape", ["fixed"], ["shape"])(model)
    node("Expand", ["bias", "shape"], ["y"])(model)


def products(model: Any) -> None:
    constant(model, "column", np.ones((2**14, 1), np.float32))
    constant(model, "row", np.ones((1, 2**14), np.float32))
    node("MatMul", ["column", "row"], ["y"])(model)


def repeated(model: Any) -> None:
    constant(model, "column", np.ones((2**14, 1), np.float32))
    constant(model, "row", np.ones((1, 2**14), np.float32))
    node("Add", ["column", "row"], ["y"])(model)


def doubled(model: Any) -> None:
    constant(model, "part0", np.ones(2**10, np.float32))
    for step in range(30):
        node("Concat", [f"part{step}"] * 2, [f"part{step + 1}"], axis=0)(model)


def of_fixed_size(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**40


def lies(model: Any) -> None:
    model.graph.initializer[0].dims[0] = 2**40


def lies_in_numbers(model: Any) -> None:
    model.graph.initializer.append(TensorProto(name="many", data_type=1, dims=[2**40], float_data=[1.0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (expand, "constants alone"),
        (expand_by_a_shape, "constants alone"),
        (products, "too many numbers"),
        (repeated, "too many numbers"),
        (doubled, "too many numbers"),
        (of_fixed_size, "fixed size"),
        (lies, "bytes"),
        (lies_in_numbers, "bytes"),
        (node("Relu", ["nowhere"], ["y"]), "no earlier one makes"),
        (node("Relu", ["logits"], ["bias"]), "there already"),
    ],
)
def test_sizes_before_a_session_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any], said: str
) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *a, **b: pytest.fail("a session was made"))
    with pytest.raises(ModelFormatError, match=said):
        load(forged(tmp_path, changed(change)))


def grown(model: Any) -> None:
    """Numbers that depend on the comment: 2^34 of them."""
    constant(model, "side", np.array(2**16))
    constant(model, "zero", np.array([0]))
    node("Shape", ["input_ids"], ["sizes"])(model)
    node("Slice", ["sizes", "zero", "middle"], ["rows_"])(model)
    node("Mul", ["rows_", "side"], ["much"])(model)
    node("Concat", ["much", "much"], ["shape"], axis=0)(model)
    node("Expand", ["one", "shape"], ["big"])(model)
    node("ReduceMax", ["big"], ["most"], keepdims=0)(model)
    constant(model, "one", np.ones((1, 1), np.float32))
    model.graph.node[7].output[0] = "plain"
    node("Add", ["plain", "most"], ["logits"])(model)


def test_sizes_while_scoring_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"the graph fails.*Expand"):
        load(forged(tmp_path, changed(grown)))


def one_for_all(model: Any) -> None:
    model.graph.node[7].output[0] = "plain"
    constant(model, "zero", np.array([0]))
    node("ReduceMax", ["plain", "zero"], ["logits"], keepdims=1)(model)


def test_one_answer_for_all_comments(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"\(1, 2\) to 2 comments"):
        load(forged(tmp_path, changed(one_for_all)))


def test_the_shape_is_checked_on_every_run() -> None:
    two = np.full((1, 2), 2), np.ones((1, 2), np.int64)
    session = Session(changed(one_for_all), "here", len(LABELS), [two])
    assert session.run(*two).shape == (1, 2)
    for tokens in (2, 100):  # on the main thread, and on another
        with pytest.raises(ModelFormatError, match=r"\(1, 2\) to 3 comments"):
            session.run(np.full((3, tokens), 2), np.ones((3, tokens), np.int64))


def small_table(model: Any) -> None:
    [table] = [one for one in model.graph.initializer if one.name == "table"]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:-1], "table"))


def test_a_table_smaller_than_the_vocabulary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = forged(tmp_path, changed(small_table))
    assert main(["predict", "hello", "--model", str(model)]) == 22
    assert "the graph fails" in capsys.readouterr().err
    session = Session(changed(small_table), "here", len(LABELS), [])
    last = np.full((1, 2), len(VOCABULARY) - 1)
    with pytest.raises(ModelFormatError, match="the graph fails"):
        session.run(last, np.ones_like(last))


# -- the bytes ------------------------------------------------------------------------------------


def test_a_second_graph_would_be_merged() -> None:
    second = onnx.ModelProto()
    second.graph.node.append(helper.make_node("Loop", ["n"], ["y"]))
    with pytest.raises(ValueError, match="there twice"):
        check_graph(GOOD + second.SerializeToString())


@pytest.mark.parametrize("tag", [b"\xba\x80\x00", b"\xba\x80\x80\x80\x10"], ids=["padded", "above 32 bits"])
def test_a_field_number_that_readers_take_differently(tag: bytes) -> None:
    with pytest.raises(ValueError, match=r"no ONNX file|unknown field"):
        check_graph(GOOD + tag + b"\x00")


@given(st.data())
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(data: Any) -> None:
    content = bytearray(GOOD[: data.draw(st.integers(0, len(GOOD)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_graph(bytes(content))
    except ValueError:
        return
    try:
        onnx.ModelProto().ParseFromString(bytes(content))
    except DecodeError:  # in a part that is not looked into, such as the operator sets
        with pytest.raises(Exception, match="INVALID_PROTOBUF"):
            onnxruntime.InferenceSession(bytes(content))


def test_as_many_entries_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkiller.inference.graph.MAX_FIELDS", 50)
    with pytest.raises(ValueError, match="more than 50 entries"):
        check_graph(GOOD)


# -- signals --------------------------------------------------------------------------------------


def slow(nodes: int, width: int, operator: str = "MatMul", value: float | None = None) -> bytes:
    """A lawful graph of one operator after the other, each with the same constant."""

    def change(model: Any) -> None:
        constant(model, "again", np.eye(width, dtype=np.float32) if value is None else np.float32(value))
        constant(model, "widen", np.zeros((4, width), np.float32))
        node("MatMul", ["embedded", "widen"], ["step0"])(model)
        for step in range(nodes):
            node(operator, [f"step{step}", "again"], [f"step{step + 1}"])(model)
        node("ReduceMax", [f"step{nodes}"], ["most"], keepdims=0)(model)
        model.graph.node[7].output[0] = "plain"
        node("Add", ["plain", "most"], ["logits"])(model)

    return changed(change)


def test_weights_are_packed_anew_for_each_use(tmp_path: Path) -> None:
    """Opening this graph of 4 MB took two minutes."""
    check_graph(slow(24, 256))
    with pytest.raises(ModelFormatError, match="the same weights too often"):
        load(forged(tmp_path, slow(40_000, 1024)))


_SIGNALLED = """
import sys
from gkiller.cli.main import main
from gkiller.inference import graph
from gkiller.inference.session import Session
graph._USES = 1 << 40
before = Session.{method}
def announced(self, first, *rest):
    if {when}:
        sys.stdout.write("ready\\n"); sys.stdout.flush()
    return before(self, first, *rest)
Session.{method} = announced
sys.exit(main({arguments!r}))
"""
_STAGES = {
    "opening": ("_open", "True", 1, lambda: slow(40_000, 1024)),  # two minutes
    "one call": ("_answer", "True", 1, lambda: slow(10_000, 1 << 19, "Pow", 1.5)),  # two minutes
    "many calls": ("run", "True", 2, lambda: slow(400, 1024)),  # they wait for their turn
}


def stopped(program: str, number: Any) -> int:
    """Start a program, send it a signal once it is ready, and return its exit code."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("stage", _STAGES)
def test_a_signal_stops(tmp_path: Path, number: Any, code: int, stage: str) -> None:
    method, when, threads, made = _STAGES[stage]
    model = forged(tmp_path, made())
    texts = [f"{comment(i, rude=False)} {comment(j, rude=True)}" for i in range(40) for j in range(50)]
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(dict.fromkeys(texts)), encoding="utf-8")
    arguments = ["predict", "--input", str(lines), "--model", str(model), "--threads", str(threads)]
    program = _SIGNALLED.format(method=method, when=when, arguments=arguments)
    assert stopped(program, number) == code


def test_no_call_goes_on_after_a_signal_while_its_thread_starts(
    onnx_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, ended = load(onnx_model)._session, threading.Event()

    def answer(ids: Any, mask: Any, stop: Any) -> None:
        while not stop.terminate:
            time.sleep(0.01)
        ended.set()

    def start(thread: Any, begin: Callable[..., Any] = threading.Thread.start) -> None:
        begin(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "_answer", answer)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        session.run(np.zeros((100, 128), np.int64), np.ones((100, 128), np.int64))
    assert ended.wait(60)
