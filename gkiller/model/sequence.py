"""Sequence classifiers of transformers, from a directory or the hub, as networks of one logit per label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from gkiller import assets
from gkiller.data.labels import CANONICAL_LABELS, canonical_name
from gkiller.errors import LabelMismatchError, ModelFormatError, ModelNotFoundError
from gkiller.model.layout import DEFAULT, find_model, is_default, usable_positions
from gkiller.model.pretrained import is_local, loading, resolve_commit
from gkiller.storage.files import sha256_file

_HUB_FILES: Final = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "spiece.model")
_POSITIVE: Final = ("toxic", "toxicity", "hate", "abusive", "offensive", "positive", "label_1", "1")


class SequenceClassifier(nn.Module):
    """A sequence classifier of transformers with one logit per label: of a two-class softmax the positive class's."""

    def __init__(self, network: nn.Module, columns: Sequence[int], *, softmax: bool) -> None:
        super().__init__()
        self.network = network
        self.columns = list(columns)
        self.softmax = softmax

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ids and mask, int64 (rows, tokens), to logits (rows, L)."""
        logits: Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
        return self._chosen(logits)

    def with_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and the last layer's token vectors (rows, tokens, hidden)."""
        found: Any = self.network(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return self._chosen(found.logits), found.hidden_states[-1]

    def _chosen(self, logits: Tensor) -> Tensor:
        chosen = logits[:, self.columns]
        # A softmax over two classes is a sigmoid of their difference.
        return chosen - logits[:, [1 - place for place in self.columns]] if self.softmax else chosen


@dataclass(frozen=True)
class Outputs:
    """What a classifier's outputs mean."""

    names: tuple[str, ...]  # of all outputs
    columns: dict[str, int]  # the output of each requested label that it has
    softmax: bool  # whether they are two classes rather than independent labels


def outputs_of(config: Any, labels: Sequence[str]) -> Outputs:
    """Return what a classifier's outputs mean for the requested labels, by its configuration."""
    names = tuple(str(config.id2label[place]) for place in range(config.num_labels))
    multi = config.problem_type == "multi_label_classification"
    return Outputs(names, label_columns(names, labels, multi=multi), len(names) == 2 and not multi)


def read_outputs(reference: str, labels: Sequence[str]) -> Outputs:
    """Return what a classifier's outputs mean, without its weights; errors as `loading`."""
    from transformers import AutoConfig

    with loading(reference):
        return outputs_of(AutoConfig.from_pretrained(reference, trust_remote_code=False), labels)


def load_classifier(reference: str, labels: Sequence[str]) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """Load a sequence classifier from a directory or the hub, and the requested labels that it has, in their order.

    Raises:
        LabelMismatchError: it has none of the labels.
        ModelFormatError, HubUnavailableError: it cannot be read.
    """
    from transformers import AutoModelForSequenceClassification

    with loading(reference):
        network: Any = AutoModelForSequenceClassification.from_pretrained(
            reference, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    found = outputs_of(network.config, labels)
    if not found.columns:
        raise no_label(found.names, labels, reference, "compare on data that have one of its labels")
    columns = list(found.columns.values())
    return SequenceClassifier(network.eval(), columns, softmax=found.softmax), tuple(found.columns)


def no_label(names: Sequence[str], labels: Sequence[str], where: str, remedy: str) -> LabelMismatchError:
    """Return the error of a classifier that has none of the requested labels."""
    what = f"the classifier's outputs are {', '.join(names)}, and the data have {', '.join(labels)}"
    return LabelMismatchError(what, where=where, remedy=remedy)


def label_columns(names: Sequence[str], labels: Sequence[str], *, multi: bool) -> dict[str, int]:
    """Return the output of each requested label that a classifier has.

    An output belongs to a label when its name, or the canonical form of it, is the label's. A single output,
    and the positive one of two classes, is the first label's whatever it is called, unless that is another
    label of gkiller's vocabulary. With ``multi`` two outputs are two labels rather than two classes.
    """
    known = {canonical_name(name): place for place, name in reversed(list(enumerate(names)))}
    found = {label: known[label] for label in labels if label in known}
    if len(names) > 2 or (len(names) == 2 and multi):
        return found
    if not found and known.keys() & set(CANONICAL_LABELS):
        return {}
    if len(names) == 1:
        return {next(iter(found), labels[0]): 0}
    hits = [place for place, name in enumerate(names) if name.lower() in _POSITIVE]
    place = hits[0] if len(hits) == 1 else 1
    return {next(iter(found), labels[0]): next(iter(found.values()), place)}


def is_classifier(directory: Path) -> bool:
    """Whether a directory holds a sequence classifier of transformers rather than a bare encoder."""
    from transformers import PreTrainedConfig

    content, _ = PreTrainedConfig.get_config_dict(str(directory))
    names = content.get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def read_tokenizer(folder: Path) -> tuple[str, int, int]:
    """Read a transformers model's tokenizer.json as text, the padding id, and the most tokens that the network takes.

    Raises:
        ModelFormatError: the tokenizer has no fast form.
    """
    from transformers import AutoTokenizer, PreTrainedConfig

    found: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    fast = getattr(found, "backend_tokenizer", None)
    if fast is None:
        remedy = "save it with a fast tokenizer of transformers"
        raise ModelFormatError("its tokenizer has no tokenizer.json form", where=str(folder), remedy=remedy)
    content, _ = PreTrainedConfig.get_config_dict(str(folder))
    most = int(found.model_max_length)
    return fast.to_str(), int(found.pad_token_id or 0), min(most, usable_positions(content) or most)


def is_gkiller(reference: str) -> bool:
    """Whether a reference is a gkiller model, a run that has one, or "default", in this build or not."""
    if is_default(reference):
        return True
    try:
        find_model(reference)
    except ModelNotFoundError:
        return False
    return True


def name_of(path: Path) -> str:
    """Return what a model is called in a table: its run's name, else its directory's, or "default"."""
    path = path.resolve()
    if path == assets.default_model_path().resolve():
        return DEFAULT
    return path.parent.name if path.name == "model" else path.name


def fetch(reference: str) -> Path:
    """Return a directory with a model of transformers: the local one, or the hub's, in its cache.

    Raises:
        ModelNotFoundError: there is no such directory.
        HubUnavailableError: the hub does not have it, or cannot be reached.
    """
    if is_local(reference):
        path = Path(reference).expanduser()
        if not (path / "config.json").is_file():
            what = "neither a gkiller model nor one of transformers: config.json is missing"
            remedy = "name a run, a model directory, or a hub id such as org/name"
            raise ModelNotFoundError(what, where=reference, remedy=remedy)
        return path
    commit = resolve_commit(reference, None)
    from huggingface_hub import snapshot_download

    with loading(reference):
        return Path(snapshot_download(reference, revision=commit, allow_patterns=list(_HUB_FILES)))


def fetch_classifier(reference: str, *, what: str, remedy: str) -> Path:
    """Return a directory with a sequence classifier of transformers, as `fetch`.

    Raises:
        ModelFormatError: it is an encoder without a classifier, as ``what`` and ``remedy`` say, or cannot be read.
    """
    folder = fetch(reference)
    with loading(reference):
        trained = is_classifier(folder)
    if not trained:
        raise ModelFormatError(what, where=reference, remedy=remedy)
    return folder


def weights_digest(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of a transformers model's weights, configuration and tokenizer, by file."""
    names = ("config.json", "tokenizer.json", "vocab.txt", "merges.txt", "tokenizer_config.json")
    files = (*sorted(folder.glob("*.safetensors")), *map(folder.joinpath, names))
    return {path.name: sha256_file(path) for path in files if path.is_file()}
