"""Partial fine-tuning: the embeddings and lowest layers stand still, and their outputs are computed once.

What the lowest layers say of each token of each comment is kept in a file as float16, about 1.5 kB a token of a
base-size encoder. A training step then reads it and computes the upper layers alone. There is no dropout below them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gkiller.errors import DivergedError, SettingsError
from gkiller.storage.files import atomic_directory, remove_leftovers, require_space, writing
from gkiller.storage.sealed import SealBrokenError, seal, unseal
from gkiller.tokens.batches import scoring_batches
from gkiller.training.runtime import mixed_precision, resolve_precision

if TYPE_CHECKING:
    from gkiller.model.network import ToxicityClassifier
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
