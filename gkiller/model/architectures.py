"""The encoders of transformers that gkiller reads, and what their configurations may say.

A configuration can come from anybody. Its keys are read one by one, within limits; no other key reaches
transformers, whose classes can allocate memory or fetch code for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from gkiller.model.layout import read_number, usable_positions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_SIZES: Final = {
    "vocab_size": 2_000_000,
    "hidden_size": 16_384,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "intermediate_size": 65_536,
    "max_position_embeddings": 65_536,
    "type_vocab_size": 1024,
}
"""The largest that are read; the smallest is 1."""
_DISTILBERT_NAMES: Final = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}
_SHARES: Final = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps")
_HIDDEN_ACTIVATIONS: Final = (
    *("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh"),
    *("gelu_accurate", "gelu_10", "quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "silu", "swish"),
    *("hardswish", "mish", "sigmoid", "tanh", "linear"),
)
_PLAIN: Final[dict[str, Any]] = {
    "is_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "position_embedding_type": "absolute",
    "quantization_config": None,
}
"""Keys that change the network: an encoder that gkiller reads lacks them or has these values."""
_DESCRIPTIVE: Final = (
    *("architectures", "bos_token_id", "classifier_dropout", "eos_token_id", "id2label", "label2id"),
    *("is_encoder_decoder", "model_type", "output_attentions", "output_hidden_states", "problem_type"),
    *("return_dict", "tie_word_embeddings", "use_cache"),
)
_SHARED_WITHOUT_TYPES: Final = {key: most for key, most in _SIZES.items() if key != "type_vocab_size"}


@dataclass(frozen=True)
class Architecture:
    """An encoder of transformers."""

    stem: str  # its class in transformers is <stem>Model, its configuration <stem>Config
    # the keys of its sizes, each with the largest that is read
    sizes: Mapping[str, int] = field(default_factory=lambda: _SIZES)
    shares: tuple[str, ...] = _SHARES  # the keys of numbers in 0..1
    plain: Mapping[str, Any] = field(default_factory=lambda: _PLAIN)  # keys with the one value that is read
    activation: str = "hidden_act"  # the key of the feed-forward non-linearity; the dropouts are keys too
    dropout: str = "hidden_dropout_prob"
    attention_dropout: str = "attention_probs_dropout_prob"
    pooler: bool = True  # whether it has a pooler on the first token
    padding: int | None = None  # the one pad_token_id that its class can work with; None when any will do

    @property
    def written(self) -> frozenset[str]:
        """The keys of a configuration that a model directory keeps."""
        return frozenset({*self.sizes, *self.shares, *self.plain, *_DESCRIPTIVE, self.activation, "pad_token_id"})

    def class_of(self, kind: Literal["Config", "Model"]) -> Any:
        """Return the class in transformers."""
        import transformers

        return getattr(transformers, self.stem + kind)

    def pooler_argument(self, *, pooler: bool) -> dict[str, bool]:
        """Return the argument of the class that says whether to have a pooler.

        Raises:
            ValueError: it is to have one, and the architecture has none.
        """
        if self.pooler:
            return {"add_pooling_layer": pooler}
        if pooler:
            raise ValueError(f"{self.stem} has no pooler, which the pooling 'cls' needs")
        return {}


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "bert": Architecture("Bert"),
    "distilbert": Architecture(
        "DistilBert",
        sizes={_DISTILBERT_NAMES.get(key, key): most for key, most in _SHARED_WITHOUT_TYPES.items()},
        shares=("dropout", "attention_dropout", "initializer_range"),
        plain={**_PLAIN, "sinusoidal_pos_embds": False},
        activation="activation",
        dropout="dropout",
        attention_dropout="attention_dropout",
        pooler=False,
    ),
    # Its class counts positions, and pads its tables, from a padding id of 1 whatever the configuration says, and reads
    # 32 buckets of its table of relative positions.
    "mpnet": Architecture(
        "MPNet", sizes=_SHARED_WITHOUT_TYPES, plain={**_PLAIN, "relative_attention_num_buckets": 32}, padding=1
    ),
    "roberta": Architecture("Roberta"),
}
"""By model_type."""


def encoder_config(content: Mapping[str, Any]) -> PreTrainedConfig:
    """Make an encoder's configuration of the keys that matter to the network.

    Raises:
        ValueError: the architecture is not one of `ARCHITECTURES`; a key is missing, out of its range, or
            changes the network.
    """
    architecture = architecture_of(content)
    for key, plain in architecture.plain.items():
        if content.get(key, plain) != plain:
            raise ValueError(f"{key} {content[key]!r} makes it another network than {architecture.stem}'s encoder")
    kept: dict[str, Any] = {key: _size(content, key, most) for key, most in architecture.sizes.items()}
    kept |= {key: read_number(content[key], key) for key in architecture.shares if key in content}
    hidden, heads = _sized(kept, "hidden_size"), _sized(kept, "num_attention_heads")
    if hidden[1] % heads[1]:
        raise ValueError(f"{hidden[0]} {hidden[1]} is no multiple of {heads[0]}")
    kept[architecture.activation] = content.get(architecture.activation)
    if kept[architecture.activation] not in _HIDDEN_ACTIVATIONS:
        raise ValueError(f"{architecture.activation} {kept[architecture.activation]!r} is unknown")
    kept["pad_token_id"] = _padding(content, architecture, kept["vocab_size"])
    if usable_positions({**kept, "model_type": content["model_type"]}) < 1:
        raise ValueError("max_position_embeddings leaves no position for a token")
    config: PreTrainedConfig = architecture.class_of("Config")(**kept)
    return config


def new_encoder(config: PreTrainedConfig, *, pooler: bool) -> PreTrainedModel:
    """Return an encoder of random weights (torch's global generator).

    Raises:
        ValueError: a pooler is requested, and the architecture has none.
    """
    architecture = ARCHITECTURES[config.model_type]
    model: PreTrainedModel = architecture.class_of("Model")(config, **architecture.pooler_argument(pooler=pooler))
    return model


def architecture_of(content: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a configuration; a ValueError unless it is one of `ARCHITECTURES`."""
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"the model_type is {str(kind)[:80]!r}, and not one of {known}")
    return ARCHITECTURES[kind]


def _sized(kept: Mapping[str, Any], key: str) -> tuple[str, int]:
    """Return the architecture's own name of a size, and the size."""
    name = key if key in kept else _DISTILBERT_NAMES[key]
    return name, kept[name]


def _padding(content: Mapping[str, Any], architecture: Architecture, vocab_size: int) -> int | None:
    pad = content.get("pad_token_id", architecture.padding or 0)
    if pad is None and usable_positions({**content, "pad_token_id": 0}) == content["max_position_embeddings"]:
        return None
    if type(pad) is not int or not 0 <= pad < vocab_size:
        raise ValueError(f"pad_token_id {str(pad)[:80]!r} is not in the vocabulary")
    if architecture.padding is not None and pad != architecture.padding:
        raise ValueError(f"pad_token_id {pad} is not {architecture.stem}'s {architecture.padding}")
    return pad


def _size(content: Mapping[str, Any], key: str, limit: int) -> int:
    value = content.get(key)
    if type(value) is not int or not 1 <= value <= limit:
        raise ValueError(f"{key} {str(value)[:80]!r} is not in 1..{limit:,}")
    return value
