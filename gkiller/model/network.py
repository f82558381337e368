"""The network, plain torch: an encoder, Linears with dendrites, pooling and a head, as config.json describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

import torch
from torch import Tensor, nn

from gkiller.model.layout import read_labels, settled
from gkiller.model.pretrained import ARCHITECTURES, encoder_config, load_encoder, new_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from gkiller.settings.definition import ModelSettings


ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
}
"""A dendrite's non-linearities, by the name that ``config.json`` records."""


class DendriticLinear(nn.Linear):
    r"""A Linear whose output units each carry D dendrites.

    With weights (W, b), dendrites (W_k, b_k), links C_kj from dendrite j to dendrite k, top weights
    T_k and activation s, all products with C and T element-wise per output unit::

        d_k = s(W_k x + b_k + sum_{j<k} C_kj * d_j)
        y   = W x + b + sum_k T_k * d_k

    This is the function of perforatedai 3.2.9's ``PAINeuronModule`` in its training state; a test compares the two.

    ``dendrites`` are D Linears; ``dendrite_links`` D - 1 parameters, of which the k-th, (k + 1, out), holds the rows
    C_{k+1,j}; ``dendrite_tops``, (D, out), the T_k, zero at the start.
    """

    def __init__(self, in_features: int, out_features: int, dendrites: int, activation: str) -> None:
        super().__init__(in_features, out_features)
        self.activation = activation
        self.dendrites = nn.ModuleList(nn.Linear(in_features, out_features) for _ in range(dendrites))
        self.dendrite_links = nn.ParameterList(nn.Parameter(torch.zeros(k, out_features)) for k in range(1, dendrites))
        self.dendrite_tops = nn.Parameter(torch.zeros(dendrites, out_features))

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        output = super().forward(input)
        activate = ACTIVATIONS[self.activation]
        fired: list[Tensor] = []
        for k, dendrite in enumerate(self.dendrites):
            drive = dendrite(input)
            for j, earlier in enumerate(fired):
                drive = drive + self.dendrite_links[k - 1][j] * earlier
            fired.append(activate(drive))
            output = output + self.dendrite_tops[k] * fired[-1]
        return output

    def extra_repr(self) -> str:
        """Show the dendrites in the module's repr."""
        return f"{super().extra_repr()}, dendrites={len(self.dendrites)}, activation={self.activation}"


def add_dendrites(model: nn.Module, counts: dict[str, int], activation: str) -> None:
    """Replace the named Linears by `DendriticLinear` modules of fresh weights, in place; 0 leaves one as it is.

    Raises:
        KeyError: an unknown activation.
        AttributeError: no module of that name.
        TypeError: the module of that name is not a plain Linear.
    """
    if activation not in ACTIVATIONS:
        raise KeyError(activation)
    for name, count in counts.items():
        linear = model.get_submodule(name)
        if type(linear) is not nn.Linear:
            raise TypeError(f"{name} is a {type(linear).__name__}, not a Linear")
        if count:
            parent, _, leaf = name.rpartition(".")
            grown = DendriticLinear(linear.in_features, linear.out_features, count, activation)
            setattr(model.get_submodule(parent), leaf, grown.to(linear.weight.device))


Pooling = Literal["mean", "mean_max", "cls"]
_CODE = (
    *("auto_map", "custom_pipelines", "trust_remote_code", "attn_implementation", "_attn_implementation"),
    *("_attn_implementation_internal", "experts_implementation", "_experts_implementation"),
)
"""Keys with which transformers can be asked to fetch and run code."""


class ToxicityClassifier(nn.Module):
    """An encoder with a linear head.

    One label is a two-class head (logits of shape (rows, 2): not toxic, toxic); L > 1 labels are L
    independent logits. Parameters are named as in Hugging Face's ``BertForSequenceClassification``; an
    encoder of another architecture is called ``bert`` too, and its parameters have their own names in it.
    The pooling "mean" averages the token vectors under the mask, "mean_max" appends their maximum, "cls" is
    BERT's pooler on the first token.
    """

    def __init__(self, bert: PreTrainedModel, labels: int, pooling: Pooling) -> None:
        super().__init__()
        self.bert = bert
        self.pooling = pooling
        self.labels = labels
        self.dropout = nn.Dropout(getattr(bert.config, ARCHITECTURES[bert.config.model_type].dropout))
        width = bert.config.hidden_size * (2 if pooling == "mean_max" else 1)
        self.classifier = nn.Linear(width, 2 if labels == 1 else labels)
        nn.init.normal_(self.classifier.weight, std=bert.config.initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids and mask, both int64 of shape (rows, tokens), to logits (rows, outputs)."""
        return self.classify(self.bert(input_ids=input_ids, attention_mask=attention_mask), attention_mask)

    def classify(self, encoded: Any, attention_mask: Tensor) -> Tensor:
        """Map what the encoder gives, and the mask, to logits (rows, outputs)."""
        pooled = encoded.pooler_output if self.pooling == "cls" else self._pool(encoded[0], attention_mask)
        return cast(Tensor, self.classifier(self.dropout(pooled)))

    def _pool(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Pool token vectors (rows, tokens, hidden) over the real tokens, at least one a row."""
        mask = attention_mask.unsqueeze(-1)
        mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1)
        if self.pooling == "mean":
            return mean
        return torch.cat([mean, tokens.masked_fill(mask == 0, -torch.inf).amax(1)], dim=-1)

    def label_logits(self, logits: Tensor) -> Tensor:
        """Return one logit per label, (rows, labels): the sigmoid of each is its score."""
        # A softmax over two is a sigmoid of the difference.
        return logits[:, 1:] - logits[:, :1] if self.labels == 1 else logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits into scores of shape (rows, labels)."""
        return logits.float().softmax(-1)[:, 1:] if self.labels == 1 else logits.float().sigmoid()


def new_classifier(config: PreTrainedConfig, labels: int, pooling: Pooling) -> ToxicityClassifier:
    """Return a classifier of random weights (torch's global generator) around a configuration."""
    return ToxicityClassifier(new_encoder(config, pooler=pooling == "cls"), labels, pooling)


def parameter_count(model: nn.Module) -> int:
    """Return how many numbers inference uses."""
    return sum(parameter.numel() for parameter in model.parameters())


def build_classifier(settings: ModelSettings, labels: Sequence[str], vocab_size: int) -> ToxicityClassifier:
    """Build the network that the settings ask for; errors as `load_encoder`."""
    from transformers import BertConfig

    settings = settled(settings)
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
    return ToxicityClassifier(load_encoder(settings, vocab_size), len(labels), settings.pooling)


@dataclass(frozen=True)
class Description:
    """A network, ready to be built; ``dendrites`` are counts by module name."""

    config: PreTrainedConfig
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

    @property
    def least_tensors(self) -> int:
        """A number below that of the network's tensors, which takes no memory to find."""
        layers: int = self.config.num_hidden_layers
        return layers * 16 + sum(self.dendrites.values()) * 2

    def shapes(self, tensors: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, without allocating any.

        Raises:
            ValueError: the file has too few ``tensors`` for the network, or a module with dendrites is not a Linear.
        """
        if self.least_tensors > tensors:
            raise ValueError(f"the network needs more than {self.least_tensors} tensors, and the file has {tensors}")
        with torch.device("meta"):
            encoder = new_encoder(self.config, pooler=self.pooling == "cls")
            network = ToxicityClassifier(encoder, len(self.labels), self.pooling)
        shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
        linears = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
        for name, count in self.dendrites.items():
            if name not in linears:
                raise ValueError(f"{name} has dendrites and is not a Linear of the network")
            outputs, inputs = linears[name].out_features, linears[name].in_features
            for k in range(count):
                shapes[f"{name}.dendrites.{k}.weight"] = (outputs, inputs)
                shapes[f"{name}.dendrites.{k}.bias"] = (outputs,)
                if k:
                    shapes[f"{name}.dendrite_links.{k - 1}"] = (k, outputs)
            shapes[f"{name}.dendrite_tops"] = (count, outputs)
        return shapes


def read_description(content: Mapping[str, Any]) -> Description:
    """Read ``config.json``; a ValueError where it has an architecture, a size, a value or a key that is not read."""
    own = content.get("gkiller")
    if not isinstance(own, dict):
        raise ValueError("config.json has no block 'gkiller'")
    for key in _CODE:
        if key in content:
            raise ValueError(f"config.json has the key {key!r}, which can bring code along")
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
        config=encoder_config(content),
        labels=read_labels(own.get("labels")),
        pooling=cast(Pooling, pooling),
        activation=activation,
        dendrites=dendrites,
    )
