"""The network: a BERT encoder, pooling and a head of one or several labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from gkiller.errors import HubUnavailableError, ModelFormatError, ModelNotFoundError

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel

    from gkiller.settings.definition import ModelSettings

Pooling = Literal["mean", "mean_max", "cls"]


class ToxicityClassifier(nn.Module):
    """BERT with a linear head.

    One label is a two-class head (logits of shape (rows, 2): not toxic, toxic); L > 1 labels are L
    independent logits. Parameters are named as in Hugging Face's ``BertForSequenceClassification``.

    Args:
        bert: the encoder; it has a pooler only when ``pooling`` is "cls".
        labels: how many labels the head scores.
        pooling: "mean" averages the token vectors under the mask, "mean_max" puts their maximum beside the
            mean, "cls" is BERT's pooler on [CLS].
    """

    def __init__(self, bert: BertModel, labels: int, pooling: Pooling) -> None:
        super().__init__()
        self.bert = bert
        self.pooling = pooling
        self.labels = labels
        self.dropout = nn.Dropout(bert.config.hidden_dropout_prob)
        width = bert.config.hidden_size * (2 if pooling == "mean_max" else 1)
        self.classifier = nn.Linear(width, 2 if labels == 1 else labels)
        nn.init.normal_(self.classifier.weight, std=bert.config.initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids and mask, both int64 of shape (rows, tokens), to logits (rows, outputs)."""
        encoded = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        pooled = encoded.pooler_output if self.pooling == "cls" else self._pool(encoded[0], attention_mask)
        return cast(Tensor, self.classifier(self.dropout(pooled)))

    def _pool(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Pool token vectors (rows, tokens, hidden) over the real tokens, at least one a row."""
        mask = attention_mask.unsqueeze(-1)
        mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1)
        if self.pooling == "mean":
            return mean
        return torch.cat([mean, tokens.masked_fill(mask == 0, -torch.inf).amax(1)], dim=-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits into scores of shape (rows, labels)."""
        if self.labels == 1:
            return logits.float().softmax(-1)[:, 1:]
        return logits.float().sigmoid()


def new_classifier(config: BertConfig, labels: int, pooling: Pooling) -> ToxicityClassifier:
    """Return a classifier of random weights (torch's global generator) around a configuration."""
    from transformers import BertModel

    return ToxicityClassifier(BertModel(config, add_pooling_layer=pooling == "cls"), labels, pooling)


def parameter_count(model: nn.Module) -> int:
    """Return how many numbers inference uses."""
    return sum(parameter.numel() for parameter in model.parameters())


def build_classifier(settings: ModelSettings, labels: Sequence[str], vocab_size: int) -> ToxicityClassifier:
    """Build the network that the settings ask for.

    Args:
        settings: which encoder, and its shape when it is a fresh one.
        labels: the labels that the head scores.
        vocab_size: of the tokenizer.

    Raises:
        ModelNotFoundError: the local path holds no encoder.
        ModelFormatError: it is not BERT, has no safetensors file, lacks weights, or is too small for
            the tokenizer or for ``max_length``.
        HubUnavailableError: the hub cannot be reached.
    """
    from transformers import BertConfig

    if settings.encoder == "fresh":
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=settings.hidden,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=settings.ffn,
            max_position_embeddings=settings.max_length,
            hidden_dropout_prob=settings.dropout,
            attention_probs_dropout_prob=settings.attention_dropout,
        )
        return new_classifier(config, len(labels), settings.pooling)
    bert = _pretrained(settings)
    _check_fits(bert.config, settings, vocab_size)
    return ToxicityClassifier(bert, len(labels), settings.pooling)


def is_local(reference: str) -> bool:
    """Whether a model reference names a path rather than a hub repository (``org/name``)."""
    return Path(reference).exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1


def _pretrained(settings: ModelSettings) -> BertModel:
    from huggingface_hub.errors import HFValidationError
    from transformers import AutoConfig, BertModel

    where = settings.encoder
    path = Path(where).expanduser()
    local = is_local(where)
    if local and not (path / "config.json").is_file():
        raise ModelNotFoundError(
            "no encoder there: config.json is missing",
            where=where,
            remedy="name a directory with config.json and model.safetensors, a hub id, or 'fresh'",
        )
    reference = str(path) if local else where
    try:
        config = AutoConfig.from_pretrained(reference, revision=settings.revision or "main")
        if config.model_type != "bert":
            raise ModelFormatError(
                f"the encoder is a {config.model_type!r} model, and gkiller trains 'bert' ones",
                where=where,
                remedy="choose a BERT encoder, such as google/bert_uncased_L-2_H-128_A-2",
            )
        config.hidden_dropout_prob = settings.dropout
        config.attention_probs_dropout_prob = settings.attention_dropout
        loaded: Any = BertModel.from_pretrained(
            reference,
            config=config,
            revision=settings.revision or "main",
            add_pooling_layer=settings.pooling == "cls",
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, HFValidationError) as error:
        raise _load_error(where, local, error) from error
    bert, report = loaded
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelFormatError(f"the encoder lacks weights, first {missing[0]}", where=where)
    return cast("BertModel", bert)


def _load_error(where: str, local: bool, error: Exception) -> ModelFormatError | HubUnavailableError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if local:
        return ModelFormatError(
            f"the encoder cannot be read: {first_line}",
            where=where,
            remedy="gkiller reads safetensors only, never pickled .bin files",
        )
    return HubUnavailableError(
        f"the hub gave no encoder: {first_line}",
        where=where,
        remedy="check the id and the connection, name a local directory, or use model.encoder=fresh",
    )


def _check_fits(config: BertConfig, settings: ModelSettings, vocab_size: int) -> None:
    if vocab_size > config.vocab_size:
        raise ModelFormatError(
            f"the tokenizer has {vocab_size} pieces and the encoder knows {config.vocab_size}",
            where=settings.encoder,
            remedy="use the tokenizer that came with the encoder",
        )
    if settings.max_length > config.max_position_embeddings:
        raise ModelFormatError(
            f"model.max_length {settings.max_length} is more than the encoder's "
            f"{config.max_position_embeddings} positions",
            where=settings.encoder,
            remedy=f"set model.max_length to {config.max_position_embeddings} or less",
        )
