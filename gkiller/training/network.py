"""Partial fine-tuning: the embeddings and lowest layers stand still, and their outputs are computed once.

What the lowest layers say of each token of each comment is kept in a file as float16, about 1.5 kB a token of a
base-size encoder. A training step then reads it and computes the upper layers alone. There is no dropout below them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gkiller.deployment.restore import deployed_encoder, read_deployed
from gkiller.deployment.weights import head_of
from gkiller.errors import DivergedError, ModelFormatError, SettingsError
from gkiller.model.directory import load_model
from gkiller.model.layout import META, deployed_directory, is_default, settled
from gkiller.model.network import ToxicityClassifier, build_classifier
from gkiller.storage.files import atomic_directory, remove_leftovers, require_space, writing
from gkiller.storage.sealed import SealBrokenError, seal, unseal
from gkiller.tokens.batches import scoring_batches
from gkiller.training.runtime import mixed_precision, resolve_precision

if TYPE_CHECKING:
    import torch

    from gkiller.model.network import ToxicityClassifier
    from gkiller.settings.definition import ModelSettings, Settings
    from gkiller.tokens.batches import Tokens


_SEAL: Final = "outputs.json"

_FILE: Final = "outputs.f16"

_VERSION: Final = 1

_BYTES: Final = 2


@dataclass(frozen=True)
class LowerOutputs:
    """What the frozen layers say of n comments."""

    # float16 (total tokens, hidden), mapped from a file; comment i has the rows of Tokens.ids
    values: npt.NDArray[np.float16]
    tokens: Tokens
    count: int

    def logits(self, model: ToxicityClassifier, rows: npt.NDArray[np.int64], device: torch.device) -> Tensor:
        """Return the logits of some comments, computed from the upper layers on."""
        lengths, starts = self.tokens.lengths[rows], self.tokens.starts
        mask = np.arange(int(lengths.max(initial=1))) < lengths[:, None]
        hidden = np.zeros((*mask.shape, self.values.shape[1]), dtype=np.float32)
        hidden[mask] = np.concatenate([self.values[starts[row] : starts[row + 1]] for row in rows])
        inputs = torch.from_numpy(hidden).to(device), torch.from_numpy(mask.astype(np.int64)).to(device)
        with _only(model.bert, slice(self.count, None), embedded=True):
            return model.classify(model.bert(inputs_embeds=inputs[0], attention_mask=inputs[1]), inputs[1])


def frozen_parameters(model: ToxicityClassifier, count: int) -> frozenset[str]:
    """Return the names of what stands still with ``count`` layers frozen: the encoder below the others.

    Raises:
        SettingsError: the encoder has fewer layers.
    """
    if not count:
        return frozenset()
    layers = _holder(model.bert).layer
    if count > len(layers):
        raise SettingsError(
            f"train.freeze_layers is {count}, and the encoder has {len(layers)} layers",
            where="train.freeze_layers",
            remedy=f"set it to {len(layers)} or less",
        )
    upper = {id(parameter) for parameter in layers[count:].parameters()}
    return frozenset(
        name
        for name, parameter in model.named_parameters()
        if name.startswith("bert.") and not name.startswith("bert.pooler.") and id(parameter) not in upper
    )


def lower_outputs(
    model: ToxicityClassifier, tokens: Tokens, count: int, folder: Path, batch_size: int, precision: str = "fp32"
) -> LowerOutputs:
    """Return what the lowest layers say of comments: from the folder where it is there, else computed.

    Args:
        precision: of the matrix products; see `mixed_precision`.

    Raises:
        OutputError: there is no room for it on the disk, or it cannot be written.
        DivergedError: an output is too large for float16.
    """
    place = folder / _fingerprint(model, tokens, count, precision)
    shape = (len(tokens.ids), int(model.bert.config.hidden_size))
    if not _whole(place):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        require_space(folder, shape[0] * shape[1] * _BYTES)
        with atomic_directory(place) as temporary:
            _compute(model, tokens, count, temporary / _FILE, shape, batch_size, precision)
            seal(temporary, _SEAL, {"format_version": _VERSION})
    return LowerOutputs(np.memmap(place / _FILE, np.float16, "r", shape=shape), tokens, count)


def _compute(
    model: ToxicityClassifier,
    tokens: Tokens,
    count: int,
    path: Path,
    shape: tuple[int, int],
    batch_size: int,
    precision: str,
) -> None:
    device = next(model.parameters()).device
    values = np.memmap(path, np.float16, "w+", shape=shape)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), mixed_precision(precision, device), _only(model.bert, slice(count)):
        for rows in scoring_batches(tokens.lengths, batch_size):
            ids, mask = (torch.from_numpy(part).to(device) for part in tokens.pad_batch(rows))
            found = model.bert(input_ids=ids, attention_mask=mask)[0].half().cpu().numpy()
            for row, outputs in zip(rows, found, strict=True):
                start, stop = tokens.starts[row], tokens.starts[row + 1]
                values[start:stop] = outputs[: stop - start]
            if not np.isfinite(found[mask.cpu().numpy() == 1]).all():
                raise DivergedError(
                    "an output of the frozen layers is too large for float16",
                    where="train.freeze_layers",
                    remedy="fine-tune all layers: train.freeze_layers=0",
                )
    model.train(was_training)
    values.flush()


def _whole(place: Path) -> bool:
    """Whether a directory of outputs is there and every byte of it is as it was written."""
    try:
        unseal(place, _SEAL, version=_VERSION, keep={}, exact=True)
    except (SealBrokenError, OSError):
        return False
    return True


def _fingerprint(model: ToxicityClassifier, tokens: Tokens, count: int, precision: str) -> str:
    numbers = resolve_precision(precision, next(model.parameters()).device)
    digest = hashlib.sha256(f"{model.bert.config.model_type} {count} {numbers} {torch.__version__}".encode())
    digest.update(tokens.ids.tobytes() + tokens.starts.tobytes())
    parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    for name in sorted(frozen_parameters(model, count)):
        digest.update(name.encode() + parameters[name].detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _holder(bert: Any) -> Any:
    """Return the module that has an encoder's layers in ``layer``."""
    return bert.transformer if bert.config.model_type == "distilbert" else bert.encoder


@contextmanager
def _only(bert: Any, part: slice, *, embedded: bool = False) -> Iterator[None]:
    """Let an encoder have some of its layers alone, and take embedded tokens as they are, in the block."""
    holder = _holder(bert)
    layers, embeddings = holder.layer, bert.embeddings
    holder.layer = layers[part]
    if embedded:
        bert.embeddings = _AsGiven()
    try:
        yield
    finally:
        holder.layer, bert.embeddings = layers, embeddings


class _AsGiven(nn.Module):
    """Takes the place of embeddings: gives back what is embedded already."""

    def forward(self, *given: Any, inputs_embeds: Tensor | None = None, **rest: Any) -> Any:
        """Return the embedded tokens, which DistilBERT passes second and the others by name."""
        return given[1] if inputs_embeds is None else inputs_embeds


def new_network(settings: ModelSettings, labels: Sequence[str], vocab_size: int) -> ToxicityClassifier:
    """Return the network to train: encoder and head that the settings name.

    Args:
        settings: which encoder, and its shape when it is a fresh one.

    Raises:
        ModelError: the encoder or the head cannot be had, or does not fit.
        HubUnavailableError: the hub cannot be reached.
    """
    settings = settled(settings)
    if (directory := deployed_directory(settings.encoder)) is not None:
        encoder = deployed_encoder(directory, settings, vocab_size)
        model = ToxicityClassifier(encoder, len(labels), settings.pooling)
    else:
        model = build_classifier(settings, labels, vocab_size)
    if settings.head == "kept":
        keep_head(model, labels, settings.encoder)
    return model


def network_facts(settings: Settings, model: ToxicityClassifier) -> dict[str, Any]:
    """Return what the training of a giant, or from the encoder of a graph, begins from; else nothing."""
    if settings.model.arch == "tiny" and deployed_directory(settings.model.encoder) is None:
        return {}
    digest = hashlib.sha256()
    for name, parameter in sorted(model.bert.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().numpy().tobytes())
    config = model.bert.config
    return {
        "arch": settings.model.arch,
        "model_type": config.model_type,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "encoder_sha256": digest.hexdigest(),
        "frozen_layers": settings.train.freeze_layers,
        "default": is_default(settings.model.encoder),
    }


Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """What a model makes of a pooled vector."""

    weight: Array  # (labels, width)
    bias: Array  # (labels,)
    labels: tuple[str, ...]
    pooling: str


def stored_head(encoder: str) -> Head:
    """Read the head of the model that an encoder is taken from, with one logit per label.

    Args:
        encoder: as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, or it cannot be read.
    """
    if (graph := deployed_directory(encoder)) is not None:
        network, description = read_deployed(graph)
        head, labels, pooling = network.head, description.labels, description.pooling
    else:
        directory = Path(encoder).expanduser()
        if not (directory / META).is_file():
            raise ModelFormatError(
                "an encoder without a head",
                where=encoder,
                remedy="name a model of gkiller with --encoder, or set model.head to fresh",
            )
        loaded = load_model(directory)
        head, labels, pooling = head_of(loaded.model), loaded.labels, loaded.model.pooling
    return Head(head.weight.T, head.bias, labels, pooling)


def keep_head(model: ToxicityClassifier, labels: Sequence[str], encoder: str) -> None:
    """Give a network's head the weights of a model for the labels that both score; others stay as they are.

    Args:
        encoder: which model, as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, it cannot be read, it pools in another way or scores none of
            the labels.
    """
    head = stored_head(encoder)
    if head.pooling != model.pooling:
        raise ModelFormatError(
            f"the head is for the pooling {head.pooling!r}, and model.pooling is {model.pooling!r}",
            where=encoder,
            remedy=f"set model.pooling to {head.pooling}, or model.head to fresh",
        )
    known = [label for label in labels if label in head.labels]
    if not known:
        raise ModelFormatError(
            f"the model scores {', '.join(head.labels)}, and none of {', '.join(labels)}",
            where=encoder,
            remedy="name the label columns as the model does, or set model.head to fresh",
        )
    rows = [head.labels.index(label) for label in known]
    weight, bias = (torch.tensor(array[rows]) for array in (head.weight, head.bias))
    with torch.no_grad():
        if model.labels == 1:  # two logits, whose difference is the label's
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
            places = [0, 1]
        else:
            places = [labels.index(label) for label in known]
        model.classifier.weight[places] = weight
        model.classifier.bias[places] = bias
