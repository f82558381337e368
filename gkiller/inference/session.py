"""The ONNX graph: two inputs, one output, one thread a call, bounded memory."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from gkiller.errors import GkillerError, ModelFormatError
from gkiller.inference.graph import check_graph
from gkiller.inference.ort import onnxruntime as ort
from gkiller.model.layout import REMEDY_DAMAGED
from gkiller.tokens.batches import Read
from gkiller.wording import counted, one_line

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"
WORKING_BYTES = (2 << 30) + (64 << 20) * (os.cpu_count() or 1)
"""What all graphs of a process may use at a time, besides their weights. A batch of 512 tokens takes 50 MB in
a network of BERT-Large's size."""
Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Stop: TypeAlias = ort.RunOptions
"""Setting its ``terminate`` ends the calls that were given it."""
Result = TypeVar("Result")
_AGAIN = "export the model again with: gkiller export"
_FATAL_ONLY = 4
_QUICK_TOKENS = 64  # a call of no more, padding included, runs on the main thread itself: another costs as much
_PATIENCE = 2.0  # seconds that a stopped call has to end in, after the operator that is at work


class Session:
    """Runs the graph; a ModelFormatError for one that is not as gkiller exports it.

    Every call computes on one thread alone: several threads may call it at once, none spins while nothing is to do,
    and the result does not depend on how many there are. An interrupt ends a call after the operator that is at work;
    the working memory bounds how long that takes.
    """

    def __init__(self, graph: bytes, where: str, labels: int, probes: Sequence[tuple[Ids, Ids]]) -> None:
        self._where, self._labels = where, labels
        try:
            check_graph(graph)
        except ValueError as error:
            raise self._fault(f"not a graph that gkiller exports: {one_line(error)}") from error
        options = _options()
        self._session = aside(lambda: self._open(graph, options), lambda: options.set_load_cancellation_flag(True))
        self._check_names()
        for number, (ids, mask) in enumerate(probes):
            logits = self._answer_aside(ids, mask, Stop())
            if number == 0:
                self._check_finite(logits)

    def _open(self, graph: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
        try:
            return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            what = f"not a graph that onnxruntime {ort.__version__} can run: {one_line(error)}"
            raise self._fault(what) from error

    def _check_names(self) -> None:
        inputs = sorted(value.name for value in self._session.get_inputs())
        outputs = [value.name for value in self._session.get_outputs()]
        if inputs != sorted(INPUTS) or outputs != [OUTPUT]:
            found = f"{', '.join(inputs)} to {', '.join(outputs)}"
            raise self._fault(f"the graph maps {found}, not {', '.join(INPUTS)} to {OUTPUT}", _AGAIN)

    def run(self, ids: Ids, mask: Ids, stop: Stop | None = None) -> Logits:
        """Return finite float32 logits of shape (rows, L) for ids and mask of shape (rows, tokens).

        On the main thread, an interrupt ends the call, as ``stop`` does.
        """
        stop = stop or Stop()
        logits = (self._answer_aside if ids.size > _QUICK_TOKENS else self._answer)(ids, mask, stop)
        self._check_finite(logits)
        return logits

    def _answer_aside(self, ids: Ids, mask: Ids, stop: Stop) -> Logits:
        return aside(lambda: self._answer(ids, mask, stop), functools.partial(end, stop))

    def _answer(self, ids: Ids, mask: Ids, stop: Stop) -> Logits:
        try:
            logits: Logits = self._session.run([OUTPUT], {INPUTS[0]: ids, INPUTS[1]: mask}, stop)[0]
        except Exception as error:  # onnxruntime's own errors have no other class in common
            raise self._fault(f"the graph fails: {one_line(error)}") from error
        if np.shape(logits) != (len(ids), self._labels) or logits.dtype != np.float32:
            kind = f"{getattr(logits, 'dtype', '')} of shape {np.shape(logits)}"
            asked = f"{counted(len(ids), 'comment')}, not {self._labels} finite float32 each"
            raise self._fault(f"the graph answers {kind} to {asked}", _AGAIN)
        return logits

    def _check_finite(self, logits: Logits) -> None:
        if not np.isfinite(logits).all():
            remedy = "export the model again, or try --precision fp32"
            raise self._fault("the graph's answer is not a finite number", remedy)

    def _fault(self, what: str, remedy: str = REMEDY_DAMAGED) -> ModelFormatError:
        return ModelFormatError(what, where=self._where, remedy=remedy)


def aside(work: Callable[[], Result], give_up: Callable[[], None]) -> Result:
    """Do what takes no signals on another thread, so that the main thread takes them; else just do it."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except (GkillerError, MemoryError, RuntimeError, ValueError) as error:
            answer.set_exception(error)
        finally:
            answer.cancel()  # does nothing to one that is there

    thread = threading.Thread(target=run, name="gkiller-run", daemon=True)
    try:
        thread.start()
        return answer.result()
    except BaseException:  # a signal may also strike while the thread starts
        give_up()
        wait([answer], _PATIENCE)
        raise


def end(stop: Stop) -> None:
    """End the calls that were given it."""
    stop.terminate = True


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # A memory pattern is kept for every shape that was met, and batches have hundreds of shapes.
    options.enable_mem_pattern = False
    options.log_severity_level = _FATAL_ONLY
    _bound_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


@functools.cache
def _bound_memory() -> None:
    """Let all sessions share one bounded arena; onnxruntime has one such allocator a process."""
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(WORKING_BYTES, -1, -1, -1))


@dataclass(frozen=True)
class Scored:
    """Scores of n comments."""

    scores: Scores  # (n, L), in 0..1
    windows: Ids  # (n,), pieces that each comment was read in
    truncated: npt.NDArray[np.bool_]  # (n,), whether its end was left unread


@dataclass(frozen=True)
class Work:
    """A chunk on its way through the network."""

    read: Read  # of its different comments
    parts: list[Ids]
    answers: Sequence[Logits | Future[Logits]]
    back: npt.NDArray[np.int64]
    labels: int
    ending: Stop

    def result(self) -> Scored:
        """Wait for the scores: of each comment, the highest of its windows."""
        logits = np.zeros((len(self.read.tokens), self.labels), np.float32)
        try:
            for rows, answer in zip(self.parts, self.answers, strict=True):
                logits[rows] = answer.result() if isinstance(answer, Future) else answer
        except BaseException:
            self.stop()
            raise
        scores = sigmoid(self.read.highest(logits))
        return Scored(scores[self.back], self.read.count[self.back], self.read.truncated[self.back])

    def stop(self) -> None:
        """Let go of what has no answer yet, so that no thread is waited for."""
        self.ending.terminate = True
        for answer in self.answers:
            if isinstance(answer, Future):
                answer.cancel()


def sigmoid(logits: npt.NDArray[np.floating]) -> Scores:
    """Return probabilities in 0..1, without overflow: 1 / (1 + exp(-x)) by way of tanh."""
    half: Scores = np.tanh(np.asarray(logits, np.float64) / 2)
    return 0.5 + half / 2
