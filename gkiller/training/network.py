"""What a training begins with: encoder and head, and of an encoder's frozen layers the outputs, computed once.

With ``train.freeze_layers`` the embeddings and the lowest layers stand still. What they say of each token of each
comment is kept in a file as float16, about 1.5 kB a token of a base-size encoder. A training step reads it and computes
the upper layers alone. There is no dropout below them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gkiller.deployment.weights import deployed_encoder, head_of, read_deployed
from gkiller.errors import DivergedError, ModelFormatError, SettingsError
from gkiller.model.directory import load_model
from gkiller.model.layout import META, deployed_directory, is_default, settled
from gkiller.model.network import ToxicityClassifier, build_classifier
from gkiller.storage.files import make_directory, remove_leftovers
from gkiller.tokens.batches import scoring_batches
from gkiller.training.checkpoint import new_arrays, read_arrays
from gkiller.training.runtime import mixed_precision, resolve_precision

if TYPE_CHECKING:
    from gkiller.settings.definition import ModelSettings, Settings
    from gkiller.tokens.batches import Tokens

_FILE: Final = "outputs.f16"


def new_network(settings: ModelSettings, labels: Sequence[str], vocab_size: int) -> ToxicityClassifier:
    """Return the network to train: the encoder and the head that the settings name.

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
        _keep_head(model, labels, settings.encoder)
    return model


def network_facts(settings: Settings, model: ToxicityClassifier) -> dict[str, Any]:
    """Return what the training of a giant, or from the encoder of a graph, begins from; else nothing."""
    if settings.model.arch == "tiny" and deployed_directory(settings.model.encoder) is None:
        return {}
    digest = hashlib.sha256()
    for name, parameter in sorted(model.bert.named_parameters()):
        digest.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
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


def _keep_head(model: ToxicityClassifier, labels: Sequence[str], encoder: str) -> None:
    """Give a network's head the weights of the encoder's model for the labels that both score; others stay.

    Raises:
        ModelError: there is no model of gkiller, it cannot be read, pools in another way or scores none of the labels.
    """
    if (graph := deployed_directory(encoder)) is not None:
        network, description = read_deployed(graph)
        head, known, pooling = network.head, description.labels, description.pooling
    elif (Path(encoder).expanduser() / META).is_file():
        loaded = load_model(Path(encoder).expanduser())
        head, known, pooling = head_of(loaded.model), loaded.labels, loaded.model.pooling
    else:
        remedy = "name a model of gkiller with --encoder, or set model.head to fresh"
        raise ModelFormatError("an encoder without a head", where=encoder, remedy=remedy)
    if pooling != model.pooling:
        what = f"the head is for the pooling {pooling!r}, and model.pooling is {model.pooling!r}"
        raise ModelFormatError(what, where=encoder, remedy=f"set model.pooling to {pooling}, or model.head to fresh")
    shared = [label for label in labels if label in known]
    if not shared:
        what = f"the model scores {', '.join(known)}, and none of {', '.join(labels)}"
        remedy = "name the label columns as the model does, or set model.head to fresh"
        raise ModelFormatError(what, where=encoder, remedy=remedy)
    rows = [known.index(label) for label in shared]
    weight, bias = (torch.tensor(array[rows]) for array in (head.weight.T, head.bias))
    places = [labels.index(label) for label in shared]
    if model.labels == 1:  # two logits, whose difference is the label's
        weight, bias, places = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2, [0, 1]
    with torch.no_grad():
        model.classifier.weight[places] = weight
        model.classifier.bias[places] = bias


@dataclass(frozen=True)
class LowerOutputs:
    """What the frozen layers say of n comments."""

    values: npt.NDArray[np.float16]  # (total tokens, hidden), mapped from a file; comment i has the rows of Tokens.ids
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
        what = f"train.freeze_layers is {count}, and the encoder has {len(layers)} layers"
        raise SettingsError(what, where="train.freeze_layers", remedy=f"set it to {len(layers)} or less")
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

    Raises:
        OutputError: there is no room for it on the disk, or it cannot be written.
        DivergedError: an output is too large for float16.
    """
    place = folder / _fingerprint(model, tokens, count, precision)
    if (found := read_arrays(place)) is None:
        make_directory(folder)
        remove_leftovers(folder)
        shape = len(tokens.ids), int(model.bert.config.hidden_size)
        with new_arrays(place, {_FILE: shape}) as temporary:
            values = np.memmap(temporary / _FILE, np.float16, "w+", shape=shape)
            _compute(model, tokens, count, values, batch_size, precision)
            values.flush()
            del values  # Windows moves no directory with a mapped file
        found = {_FILE: np.memmap(place / _FILE, np.float16, "r", shape=shape)}
    return LowerOutputs(found[_FILE], tokens, count)


def _compute(
    model: ToxicityClassifier,
    tokens: Tokens,
    count: int,
    values: npt.NDArray[np.float16],
    batch_size: int,
    precision: str,
) -> None:
    """Fill ``values``, (total tokens, hidden), with what the lowest layers say."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    with torch.inference_mode(), mixed_precision(precision, device), _only(model.bert, slice(count)):
        for rows in scoring_batches(tokens.lengths, batch_size):
            ids, mask = (torch.from_numpy(part).to(device) for part in tokens.pad_batch(rows))
            found = model.bert(input_ids=ids, attention_mask=mask)[0].half().cpu().numpy()
            for row, outputs in zip(rows, found, strict=True):
                start, stop = tokens.starts[row], tokens.starts[row + 1]
                values[start:stop] = outputs[: stop - start]
            if not np.isfinite(found[mask.cpu().numpy() == 1]).all():
                what = "an output of the frozen layers is too large for float16"
                remedy = "fine-tune all layers: train.freeze_layers=0"
                raise DivergedError(what, where="train.freeze_layers", remedy=remedy)
    model.train(was_training)


def _fingerprint(model: ToxicityClassifier, tokens: Tokens, count: int, precision: str) -> str:
    numbers = resolve_precision(precision, next(model.parameters()).device)
    digest = hashlib.sha256(f"{model.bert.config.model_type} {count} {numbers} {torch.__version__}".encode())
    digest.update(tokens.ids.tobytes() + tokens.starts.tobytes())
    parameters = dict(model.named_parameters())
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
