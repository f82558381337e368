"""The encoders of transformers that gkiller reads, from a directory or from the Hugging Face hub, and their tokenizers.

A configuration can come from anybody. Its keys are read one by one, within limits; no other key reaches
transformers, whose classes can allocate memory or fetch code for it. The hub is queried once, with a time limit, before
transformers starts: it would otherwise retry for most of a minute. With ``HF_HUB_OFFLINE`` set it is not queried, and
the local cache is read instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from tokenizers import Tokenizer

from gkiller.assets import tokenizer_path
from gkiller.errors import GkillerError, HubUnavailableError, ModelFormatError, ModelNotFoundError, is_fault_of_input
from gkiller.model.layout import TOKENIZER, default_model, is_default, read_number, settled, usable_positions
from gkiller.private import quiet_transformers, silence_hub
from gkiller.tokens.wordpiece import parse_tokenizer, read_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from gkiller.settings.definition import ModelSettings


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


TIMEOUT_SECONDS: Final = 10.0
_OTHER_WAYS: Final = (
    "check the id and the connection, name a local directory, set HF_HUB_OFFLINE=1 to use the local cache, "
    "or use model.encoder=fresh"
)
_AGREE: Final = "the directory must hold an encoder's config.json and the model.safetensors that belongs to it"


@dataclass(frozen=True)
class Architecture:
    """An encoder of transformers."""

    stem: str  # its class in transformers is <stem>Model, its configuration <stem>Config
    sizes: Mapping[str, int] = field(default_factory=lambda: _SIZES)  # keys, each with the largest that is read
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
        """Return the argument of the class that says whether to have a pooler; a ValueError where it cannot."""
        if pooler and not self.pooler:
            raise ValueError(f"{self.stem} has no pooler, which the pooling 'cls' needs")
        return {"add_pooling_layer": pooler} if self.pooler else {}


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


def architecture_of(content: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a configuration; a ValueError unless it is one of `ARCHITECTURES`."""
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(f"the model_type is {str(kind)[:80]!r}, and not one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind]


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
    kept: dict[str, Any] = {key: content.get(key) for key in architecture.sizes}
    for key, most in architecture.sizes.items():
        if type(kept[key]) is not int or not 1 <= kept[key] <= most:
            raise ValueError(f"{key} {str(kept[key])[:80]!r} is not in 1..{most:,}")
    kept |= {key: read_number(content[key], key) for key in architecture.shares if key in content}
    hidden, heads = (key if key in kept else _DISTILBERT_NAMES[key] for key in ("hidden_size", "num_attention_heads"))
    if kept[hidden] % kept[heads]:
        raise ValueError(f"{hidden} {kept[hidden]} is no multiple of {heads}")
    activation = kept[architecture.activation] = content.get(architecture.activation)
    if activation not in _HIDDEN_ACTIVATIONS:
        raise ValueError(f"{architecture.activation} {activation!r} is unknown")
    kept["pad_token_id"] = _padding(content, architecture, kept["vocab_size"])
    if usable_positions({**kept, "model_type": content["model_type"]}) < 1:
        raise ValueError("max_position_embeddings leaves no position for a token")
    config: PreTrainedConfig = architecture.class_of("Config")(**kept)
    return config


def _padding(content: Mapping[str, Any], architecture: Architecture, vocab_size: int) -> int | None:
    pad = content.get("pad_token_id", architecture.padding or 0)
    if pad is None and usable_positions({**content, "pad_token_id": 0}) == content["max_position_embeddings"]:
        return None
    if type(pad) is not int or not 0 <= pad < vocab_size:
        raise ValueError(f"pad_token_id {str(pad)[:80]!r} is not in the vocabulary")
    if architecture.padding is not None and pad != architecture.padding:
        raise ValueError(f"pad_token_id {pad} is not {architecture.stem}'s {architecture.padding}")
    return pad


def new_encoder(config: PreTrainedConfig, *, pooler: bool) -> PreTrainedModel:
    """Return an encoder of random weights (torch's global generator); a ValueError where it has no pooler to give."""
    architecture = ARCHITECTURES[config.model_type]
    model: PreTrainedModel = architecture.class_of("Model")(config, **architecture.pooler_argument(pooler=pooler))
    return model


def is_local(reference: str) -> bool:
    """Whether a model reference names a path rather than a hub repository (``org/name``)."""
    return Path(reference).exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1


def load_encoder(settings: ModelSettings, vocab_size: int) -> PreTrainedModel:
    """Load the encoder that the settings name, in float32 on the CPU; a tiny model's is BERT, a giant's any.

    Raises:
        ModelNotFoundError: the local path holds no encoder, or the name cannot be one.
        ModelFormatError: it is of another architecture, has no safetensors file, its weights do not fit its
            configuration, or it is too small for the tokenizer or for ``max_length``.
        HubUnavailableError: the hub cannot be reached, or does not have it.
    """
    reference, revision = _locate(settings)
    with loading(settings.encoder):
        bert, report = _load(reference, revision, settings)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    faults = [f"the encoder lacks weights, first {missing[0]}"] if missing else []
    for key, found, wanted in sorted(report["mismatched_keys"]):
        faults.append(f"{key} has the shape {list(found)}, and config.json asks for {list(wanted)}")
    if faults:
        raise ModelFormatError(faults[0], where=settings.encoder, remedy=_AGREE)
    check_fits(bert.config, settings, vocab_size)
    return bert


def _locate(settings: ModelSettings) -> tuple[str, str]:
    """Return what transformers calls an encoder, and its revision: the commit where the hub names it."""
    revision = settings.revision or "main"
    if not is_local(settings.encoder):
        return settings.encoder, resolve_commit(settings.encoder, settings.revision) or revision
    path = Path(settings.encoder).expanduser()
    if not (path / "config.json").is_file():
        what = "no encoder there: config.json is missing" if path.is_dir() else "no such directory"
        remedy = "name a directory with config.json and model.safetensors, a hub id, or 'fresh'"
        raise ModelNotFoundError(what, where=settings.encoder, remedy=remedy)
    return str(path), revision


def resolve_commit(repository: str, revision: str | None) -> str | None:
    """Ask the hub which commit is meant; None when offline by choice.

    Raises:
        ModelNotFoundError: the name cannot be a repository's.
        HubUnavailableError: the hub cannot be reached, or does not have it.
    """
    from huggingface_hub import HfApi, constants, errors

    silence_hub()
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        found = HfApi().model_info(repository, revision=revision, timeout=TIMEOUT_SECONDS)
    except errors.HFValidationError as error:
        raise ModelNotFoundError(
            f"neither a directory nor a hub id: {_brief(error)}",
            where=repository,
            remedy="name a directory, a hub id such as org/name, or 'fresh'",
        ) from error
    except _transport_errors() as error:
        fault = "refused" if isinstance(error, errors.HfHubHTTPError) else "cannot be reached"
        what = f"{constants.ENDPOINT} {fault}: {_brief(error)}"
        raise HubUnavailableError(what, where=repository, remedy=_OTHER_WAYS) from error
    commit: str | None = found.sha
    return commit


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return what a failed request raises; huggingface_hub has changed its HTTP library before."""
    modules = (sys.modules.get(library) for library in ("httpx", "httpx2"))
    return (OSError, *(module.HTTPError for module in modules if module is not None))


@contextmanager
def loading(where: str) -> Iterator[None]:
    """Keep transformers quiet; what it raises becomes a `ModelFormatError`, or a `HubUnavailableError` for a hub id."""
    with quiet_transformers():
        try:
            yield
        except (OSError, ValueError) as error:
            if not is_local(where):
                what = f"the hub gave no encoder: {_brief(error)}"
                raise HubUnavailableError(what, where=where, remedy=_OTHER_WAYS) from error
            what, remedy = f"the encoder cannot be read: {_brief(error)}", f"{_AGREE}; pickled .bin files are not read"
            raise ModelFormatError(what, where=where, remedy=remedy) from error
        except BaseException as error:
            # tokenizers raises Exception itself, and a panic of its Rust code is not even that.
            if isinstance(error, GkillerError) or not is_fault_of_input(error):
                raise
            what = f"the encoder cannot be read: {_brief(error)}"
            raise ModelFormatError(what, where=where, remedy=_AGREE) from error


def _load(reference: str, revision: str, settings: ModelSettings) -> tuple[PreTrainedModel, dict[str, Any]]:
    import torch
    from transformers import PreTrainedConfig

    # Read as plain values: the classes of transformers can allocate memory or fetch code for them.
    content, _ = PreTrainedConfig.get_config_dict(reference, revision=revision)
    kind = _known_type(content.get("model_type"), settings)
    architecture = ARCHITECTURES[kind]
    if settings.pooling == "cls" and not architecture.pooler:
        what = f"a {kind} encoder has no pooler, which the pooling 'cls' needs"
        raise ModelFormatError(what, where=settings.encoder, remedy="set model.pooling to mean or mean_max")
    config = encoder_config({**architecture.class_of("Config")().to_dict(), **content})
    setattr(config, architecture.dropout, settings.dropout)
    setattr(config, architecture.attention_dropout, settings.attention_dropout)
    loaded: Any = architecture.class_of("Model").from_pretrained(
        reference,
        config=config,
        revision=revision,
        **architecture.pooler_argument(pooler=settings.pooling == "cls"),
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # the report names them; the exception would not
        dtype=torch.float32,
    )
    return cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)


def _known_type(kind: Any, settings: ModelSettings) -> str:
    """Return an encoder's model_type, where a model of ``settings.arch`` can be trained from it."""
    readable = isinstance(kind, str) and kind in ARCHITECTURES
    if kind == "bert" or (settings.arch == "giant" and readable):
        return str(kind)
    known = "'bert' models" if settings.arch == "tiny" else f"giants of {', '.join(ARCHITECTURES)}"
    remedy = "choose a BERT encoder, such as google/bert_uncased_L-2_H-128_A-2"
    if settings.arch == "tiny" and readable:
        remedy += ", or fine-tune this one with --arch giant"
    what = f"the encoder's model_type is {str(kind)[:80]!r}, and gkiller trains {known}"
    raise ModelFormatError(what, where=settings.encoder, remedy=remedy)


def check_fits(config: PreTrainedConfig, settings: ModelSettings, vocab_size: int) -> None:
    """Raise `ModelFormatError` for an encoder that is too small for the tokenizer or for ``max_length``."""
    if vocab_size > config.vocab_size:
        what = f"the tokenizer has {vocab_size} pieces and the encoder knows {config.vocab_size}"
        raise ModelFormatError(what, where=settings.encoder, remedy="use the tokenizer that came with the encoder")
    positions = usable_positions(config.to_dict())
    if settings.max_length > positions:
        what = f"model.max_length {settings.max_length} is more than the encoder's {positions} positions"
        raise ModelFormatError(what, where=settings.encoder, remedy=f"set model.max_length to {positions} or less")


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def load_tokenizer(settings: ModelSettings) -> Tokenizer:
    """Load ``model.tokenizer`` when set; else the pretrained encoder's own; else gkiller's.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: it is not a tokenizer that BERT can use.
        HubUnavailableError: the hub cannot be reached.
    """
    settings = settled(settings)
    file: Path | None = None
    if settings.tokenizer is not None:
        file = Path(settings.tokenizer).expanduser()
    elif is_default(settings.encoder):
        file = default_model() / TOKENIZER
    elif settings.encoder == "fresh":
        file = tokenizer_path()
    elif is_local(settings.encoder) and (own := Path(_locate(settings)[0]) / TOKENIZER).is_file():
        file = own
    return read_tokenizer(file, settings.max_length) if file else load_own_tokenizer(settings)


def load_own_tokenizer(settings: ModelSettings) -> Tokenizer:
    """Let transformers read the tokenizer that came with an encoder, which can be an older vocab.txt."""
    from transformers import AutoTokenizer

    reference, revision = _locate(settings)
    with loading(settings.encoder):
        found: Any = AutoTokenizer.from_pretrained(reference, revision=revision, trust_remote_code=False)
    own = getattr(found, "backend_tokenizer", None)
    # Where it finds no vocabulary, transformers makes a tokenizer that knows the special tokens alone.
    if own is None or own.get_vocab_size() <= len(own.get_added_tokens_decoder()):
        what = "the encoder came without a tokenizer.json or vocab.txt"
        remedy = "set model.tokenizer to the tokenizer.json that belongs to it"
        raise ModelFormatError(what, where=settings.encoder, remedy=remedy)
    return parse_tokenizer(own.to_str(), settings.encoder, settings.max_length)
