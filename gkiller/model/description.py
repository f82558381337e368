"""The network that a model directory's ``config.json`` describes, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import torch

from gkiller.model.classifier import Pooling, ToxicityClassifier, new_classifier
from gkiller.model.dendritic import ACTIVATIONS, add_dendrites
from gkiller.model.layout import read_labels, read_number

if TYPE_CHECKING:
    from transformers import BertConfig

_SIZES = {
    "vocab_size": 2_000_000,
    "hidden_size": 16_384,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "intermediate_size": 65_536,
    "max_position_embeddings": 65_536,
    "type_vocab_size": 1024,
}
"""The largest that are read; the smallest is 1."""
_SHARES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps")
_HIDDEN_ACTIVATIONS = (
    *("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh"),
    *("gelu_accurate", "gelu_10", "quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "silu", "swish"),
    *("hardswish", "mish", "sigmoid", "tanh", "linear"),
)
_PLAIN = {
    "is_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "position_embedding_type": "absolute",
    "quantization_config": None,
}
"""Keys that make another network of it; an encoder that gkiller reads has these values, or not the key."""
_CODE = (
    *("auto_map", "custom_pipelines", "trust_remote_code", "attn_implementation", "_attn_implementation"),
    *("_attn_implementation_internal", "experts_implementation", "_experts_implementation"),
)
"""Keys with which transformers can be asked to fetch and run code."""
_DESCRIPTIVE = (
    *("architectures", "bos_token_id", "classifier_dropout", "eos_token_id", "id2label", "label2id"),
    *("is_encoder_decoder", "model_type", "output_attentions", "output_hidden_states", "problem_type"),
    *("return_dict", "tie_word_embeddings", "use_cache"),
)
WRITTEN = frozenset({*_SIZES, *_SHARES, *_PLAIN, *_DESCRIPTIVE, "hidden_act", "pad_token_id"})
"""The keys of a BERT configuration that a model directory keeps."""


@dataclass(frozen=True)
class Description:
    """A network, ready to be built.

    Attributes:
        config: BERT's configuration, made of the keys that matter to the network.
        labels: in the order of the head's outputs.
        pooling: how token vectors become one.
        activation: the dendrites' non-linearity.
        dendrites: how many, by module name.
    """

    config: BertConfig
    labels: tuple[str, ...]
    pooling: Pooling
    activation: str
    dendrites: dict[str, int]

    def build(self) -> ToxicityClassifier:
        """Return the network with random weights; torch's generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            model = new_classifier(self.config, len(self.labels), self.pooling)
            add_dendrites(model, self.dendrites, self.activation)
        return model

    def shapes(self, tensors: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, without building anything.

        Args:
            tensors: how many there are in the file. Nothing is listed for a description that needs more.

        Raises:
            ValueError: there are too few for so many layers and dendrites, or a dendrite is on no Linear.
        """
        least = self.config.num_hidden_layers * 16 + sum(self.dendrites.values()) * 2
        if least > tensors:
            raise ValueError(f"the network needs more than {least} tensors, and the file has {tensors}")
        linears, others = self._linears(), self._others()
        shapes = dict(others)
        for name, (outputs, inputs) in linears.items():
            shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
        for name, count in self.dendrites.items():
            if name not in linears:
                raise ValueError(f"{name} has dendrites and is not a Linear of the network")
            outputs = linears[name][0]
            for k in range(count):
                shapes[f"{name}.dendrites.{k}.weight"] = linears[name]
                shapes[f"{name}.dendrites.{k}.bias"] = (outputs,)
                if k:
                    shapes[f"{name}.dendrite_links.{k - 1}"] = (k, outputs)
            shapes[f"{name}.dendrite_tops"] = (count, outputs)
        return shapes

    def _linears(self) -> dict[str, tuple[int, int]]:
        """Return the outputs and inputs of the network's Linears, by name."""
        hidden, wide = self.config.hidden_size, self.config.intermediate_size
        layer = {f"attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
        layer |= {"attention.output.dense": (hidden, hidden)}
        layer |= {"intermediate.dense": (wide, hidden), "output.dense": (hidden, wide)}
        linears = {
            f"bert.encoder.layer.{number}.{name}": shape
            for number in range(self.config.num_hidden_layers)
            for name, shape in layer.items()
        }
        if self.pooling == "cls":
            linears["bert.pooler.dense"] = (hidden, hidden)
        outputs = 2 if len(self.labels) == 1 else len(self.labels)
        linears["classifier"] = (outputs, hidden * 2 if self.pooling == "mean_max" else hidden)
        return linears

    def _others(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the embeddings and LayerNorms, by name."""
        config, embeddings = self.config, "bert.embeddings"
        rows = {
            "word": config.vocab_size,
            "position": config.max_position_embeddings,
            "token_type": config.type_vocab_size,
        }
        found: dict[str, tuple[int, ...]] = {
            f"{embeddings}.{name}_embeddings.weight": (count, config.hidden_size)
            for name, count in rows.items()
        }
        norms = [f"{embeddings}.LayerNorm"]
        for number in range(config.num_hidden_layers):
            layer = f"bert.encoder.layer.{number}"
            norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for norm in norms:
            found |= {f"{norm}.weight": (config.hidden_size,), f"{norm}.bias": (config.hidden_size,)}
        return found


def read_description(content: Mapping[str, Any]) -> Description:
    """Read ``config.json``.

    Raises:
        ValueError: it is not a BERT encoder's, or asks for a size, a value or code that is not read.
    """
    own = content.get("gkiller")
    if not isinstance(own, dict):
        raise ValueError("config.json has no block 'gkiller'")
    for key in _CODE:
        if key in content:
            raise ValueError(f"config.json has the key {key!r}, which can bring code along")
    if content.get("model_type") != "bert":
        raise ValueError(f"config.json describes a {content.get('model_type')!r} model, not 'bert'")
    pooling, activation = own.get("pooling"), own.get("activation")
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling {pooling!r} is unknown")
    dendrites = own.get("dendrites")
    if not isinstance(dendrites, dict):
        raise ValueError(f"dendrites {dendrites!r} are not counts by module")
    for name, count in dendrites.items():
        if type(count) is not int or not 1 <= count <= 1000:
            raise ValueError(f"{name} cannot have {count!r} dendrites")
    if activation is None and not dendrites:
        activation = next(iter(ACTIVATIONS))
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is unknown")
    return Description(
        config=bert_config(content),
        labels=read_labels(own.get("labels")),
        pooling=cast(Pooling, pooling),
        activation=activation,
        dendrites=dendrites,
    )


def bert_config(content: Mapping[str, Any]) -> BertConfig:
    """Make BERT's configuration of the keys that matter to the network; no other reaches transformers.

    Raises:
        ValueError: a key is missing or out of its range, or makes another network of it.
    """
    from transformers import BertConfig

    for key, plain in _PLAIN.items():
        if content.get(key, plain) != plain:
            raise ValueError(f"{key} {content[key]!r} makes it another network than BERT's encoder")
    kept: dict[str, Any] = {key: _size(content, key, limit) for key, limit in _SIZES.items()}
    kept |= {key: _share(content, key) for key in _SHARES if key in content}
    if kept["hidden_size"] % kept["num_attention_heads"]:
        raise ValueError(f"hidden_size {kept['hidden_size']} is no multiple of num_attention_heads")
    kept["hidden_act"] = content.get("hidden_act")
    if kept["hidden_act"] not in _HIDDEN_ACTIVATIONS:
        raise ValueError(f"hidden_act {kept['hidden_act']!r} is unknown")
    pad = content.get("pad_token_id", 0)
    if pad is not None and (type(pad) is not int or not 0 <= pad < kept["vocab_size"]):
        raise ValueError(f"pad_token_id {pad!r} is not in the vocabulary")
    return BertConfig(**kept, pad_token_id=pad)


def _share(content: Mapping[str, Any], key: str) -> float:
    return read_number(content[key], key)


def _size(content: Mapping[str, Any], key: str, limit: int) -> int:
    value = content.get(key)
    if type(value) is not int or not 1 <= value <= limit:
        raise ValueError(f"{key} {str(value)[:80]!r} is not in 1..{limit:,}")
    return value
