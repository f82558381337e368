"""Score token sequences with onnxruntime, as the deployed model does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gkiller.data.batches import Tokens, scoring_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from gkiller.ort import onnxruntime

Scores = npt.NDArray[np.float64]


def session(graph: bytes | onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """Load a graph on the CPU.

    Args:
        graph: the file's content, or the graph itself.
        threads: that one call may use.
    """
    from gkiller.ort import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    content = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def score_tokens(
    running: onnxruntime.InferenceSession,
    tokens: Tokens,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Return the scores of n tokenized comments, float64 of shape (n, L).

    Args:
        running: a loaded graph.
        tokens: the comments.
        batch_size: comments per call; comments of similar length go together.
        progress: called with the comments done and n.
    """
    found: dict[int, npt.NDArray[np.float32]] = {}
    done = 0
    for rows in scoring_batches(tokens.lengths, batch_size):
        ids, mask = tokens.pad_batch(rows)
        [logits] = running.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        found.update(zip(rows.tolist(), logits, strict=True))
        done += len(rows)
        if progress is not None:
            progress(done, len(tokens))
    return sigmoid(np.stack([found[row] for row in range(len(tokens))]))


def sigmoid(logits: npt.NDArray[np.floating]) -> Scores:
    """Return the scores of logits."""
    # Both forms are exact; each is used where it cannot overflow.
    small = np.exp(-np.abs(logits.astype(np.float64)))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small))
