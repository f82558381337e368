"""Networks as torch modules with one logit per label: gkiller's models, and classifiers of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gkiller.benchmark.systems import Ids, Logits, Network, SystemSpec
from gkiller.data.labels import canonical_name
from gkiller.deployment.graph import ScoringNetwork
from gkiller.errors import LabelMismatchError, ModelFormatError
from gkiller.files import write_text
from gkiller.model.directory import load_model
from gkiller.model.layout import usable_positions
from gkiller.model.pretrained import loading

_POSITIVE = ("toxic", "toxicity", "hate", "abusive", "offensive", "positive", "label_1", "1")


class SequenceClassifier(nn.Module):
    """A sequence classifier of transformers whose outputs are one logit per label, (rows, L).

    Args:
        network: the classifier.
        columns: for each label its output; of a two-class softmax the positive class.
        softmax: whether the outputs are two classes rather than independent labels.
    """

    def __init__(self, network: nn.Module, columns: Sequence[int], *, softmax: bool) -> None:
        super().__init__()
        self.network = network
        self.columns = list(columns)
        self.softmax = softmax

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ids and mask, int64 (rows, tokens), to logits (rows, L)."""
        logits: Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
        chosen = logits[:, self.columns]
        # A softmax over two classes is a sigmoid of their difference.
        return chosen - logits[:, [1 - place for place in self.columns]] if self.softmax else chosen


def open_network(spec: SystemSpec, threads: int) -> Network:
    """Load a system's torch network; it uses so many threads."""
    torch.set_num_threads(threads)
    module = module_of(spec).eval()

    def network(ids: Ids, mask: Ids) -> Logits:
        with torch.inference_mode():
            logits: Logits = module(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
        return logits

    return network


def module_of(spec: SystemSpec) -> nn.Module:
    """Return a system's network with one logit per label."""
    if spec.kind == "transformers":
        module, _ = load_classifier(spec.path, spec.labels)
        return module
    return ScoringNetwork(load_model(spec.path).model)


def load_classifier(reference: str, labels: Sequence[str]) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """Load a sequence classifier of transformers from a directory or the hub; safetensors alone are read.

    Args:
        reference: a directory or a hub id.
        labels: those wanted.

    Returns:
        The network, and the wanted labels that it has, in the order of its outputs.

    Raises:
        LabelMismatchError: it has none of the labels.
        ModelFormatError, HubUnavailableError: it cannot be read.
    """
    from transformers import AutoModelForSequenceClassification

    with loading(reference):
        network: Any = AutoModelForSequenceClassification.from_pretrained(
            reference, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    config = network.config
    names = [str(config.id2label[place]) for place in range(config.num_labels)]
    found = label_columns(names, labels, multi=config.problem_type == "multi_label_classification")
    if not found:
        raise LabelMismatchError(
            f"the classifier's outputs are {', '.join(names)}, and the data have {', '.join(labels)}",
            where=reference,
            remedy="compare on data that have one of its labels",
        )
    softmax = len(names) == 2 and config.problem_type != "multi_label_classification"
    return SequenceClassifier(network.eval(), list(found.values()), softmax=softmax), tuple(found)


def label_columns(names: Sequence[str], labels: Sequence[str], *, multi: bool) -> dict[str, int]:
    """Return the output of each wanted label that a classifier has.

    An output belongs to a label when its name, or the canonical form of it, is the label's. A single output,
    and the positive one of two classes, is the first label's whatever it is called.

    Args:
        names: of the outputs.
        labels: those wanted.
        multi: whether two outputs are two labels rather than two classes.
    """
    known = {canonical_name(name): place for place, name in reversed(list(enumerate(names)))}
    found = {label: known[label] for label in labels if label in known}
    if len(names) == 1:
        return {labels[0]: 0}
    if len(names) == 2 and not multi:
        place = next(iter(found.values()), None)
        if place is None:
            hits = [place for place, name in enumerate(names) if name.lower() in _POSITIVE]
            place = hits[0] if len(hits) == 1 else 1
        return {next(iter(found), labels[0]): place}
    return found


def is_classifier(directory: Path) -> bool:
    """Whether a directory holds a sequence classifier of transformers rather than a bare encoder."""
    from transformers import PreTrainedConfig

    content, _ = PreTrainedConfig.get_config_dict(str(directory))
    names = content.get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def save_tokenizer(folder: Path, path: Path) -> tuple[int, int]:
    """Write the tokenizer.json of a transformers model.

    Args:
        folder: of the model.
        path: where to; its directory is made.

    Returns:
        The padding id, and the most tokens that the network takes.

    Raises:
        ModelFormatError: the tokenizer has no fast form.
    """
    from transformers import AutoTokenizer, PreTrainedConfig

    found: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    fast = getattr(found, "backend_tokenizer", None)
    if fast is None:
        raise ModelFormatError(
            "its tokenizer has no tokenizer.json form",
            where=str(folder),
            remedy="save it with a fast tokenizer of transformers",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, fast.to_str())
    content, _ = PreTrainedConfig.get_config_dict(str(folder))
    most = int(found.model_max_length)
    return int(found.pad_token_id or 0), min(most, usable_positions(content) or most)
