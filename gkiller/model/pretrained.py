"""Pretrained encoders and their tokenizers, from a directory or from the Hugging Face hub.

The hub is queried once, with a time limit, before transformers starts: it would otherwise retry for most of
a minute. With ``HF_HUB_OFFLINE`` set it is not queried, and the local cache is read instead.

The hub is asked once, with a time limit, before transformers starts: it would otherwise retry for most of a
minute. With ``HF_HUB_OFFLINE`` set nothing is asked, and the local cache is read instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tokenizers import Tokenizer

from gkiller.assets import tokenizer_path
from gkiller.errors import GkillerError, HubUnavailableError, ModelFormatError, ModelNotFoundError, is_fault_of_input
from gkiller.model.architectures import ARCHITECTURES, encoder_config
from gkiller.model.layout import TOKENIZER, default_model, is_default, settled, usable_positions
from gkiller.private import quiet_transformers, silence_hub
from gkiller.tokens.wordpiece import parse_tokenizer, read_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from gkiller.settings.definition import ModelSettings


TIMEOUT_SECONDS = 10.0
_OTHER_WAYS = (
    "check the id and the connection, name a local directory, set HF_HUB_OFFLINE=1 to use the local cache, "
    "or use model.encoder=fresh"
)
_AGREE = "the directory must hold an encoder's config.json and the model.safetensors that belongs to it"


def is_local(reference: str) -> bool:
    """Whether a model reference names a path rather than a hub repository (``org/name``)."""
    return Path(reference).exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1


def load_encoder(settings: ModelSettings, vocab_size: int) -> PreTrainedModel:
    """Load the encoder that the settings name, in float32 on the CPU.

    A tiny model's is BERT; a giant's is any of `gkiller.model.architectures.ARCHITECTURES`.

    Args:
        vocab_size: of the tokenizer.

    Raises:
        ModelNotFoundError: the local path holds no encoder, or the name cannot be one.
        ModelFormatError: it is of another architecture, has no safetensors file, its weights do not fit its
            configuration, or it is too small for the tokenizer or for ``max_length``.
        HubUnavailableError: the hub cannot be reached, or does not have it.
    """
    reference, revision = _locate(settings)
    with loading(settings.encoder):
        bert, report = _read(reference, revision, settings)
    _check_complete(report, settings.encoder)
    check_fits(bert.config, settings, vocab_size)
    return bert


def load_own_tokenizer(settings: ModelSettings) -> PreTrainedTokenizerFast:
    """Load the tokenizer that came with an encoder, as transformers reads it; errors as `load_encoder`."""
    from transformers import AutoTokenizer

    reference, revision = _locate(settings)
    with loading(settings.encoder):
        found = AutoTokenizer.from_pretrained(reference, revision=revision, trust_remote_code=False)
    return cast("PreTrainedTokenizerFast", found)


def _locate(settings: ModelSettings) -> tuple[str, str]:
    """Return what transformers calls an encoder, and its revision: the commit where the hub names it."""
    revision = settings.revision or "main"
    if not is_local(settings.encoder):
        return settings.encoder, resolve_commit(settings.encoder, settings.revision) or revision
    path = Path(settings.encoder).expanduser()
    if not (path / "config.json").is_file():
        raise ModelNotFoundError(
            "no encoder there: config.json is missing" if path.is_dir() else "no such directory",
            where=settings.encoder,
            remedy="name a directory with config.json and model.safetensors, a hub id, or 'fresh'",
        )
    return str(path), revision


def resolve_commit(repository: str, revision: str | None) -> str | None:
    """Ask the hub, once and with a time limit, which commit is meant; None when offline by choice.

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
    """Keep transformers quiet, and turn what it raises into errors with a place and a remedy.

    Raises:
        ModelFormatError: the files cannot be read as a model of transformers.
        HubUnavailableError: the hub does not have them.
    """
    with quiet_transformers():
        try:
            yield
        except (OSError, ValueError) as error:
            raise _load_error(where, error) from error
        except BaseException as error:
            # tokenizers raises Exception itself, and a panic of its Rust code is not even that.
            if isinstance(error, GkillerError) or not is_fault_of_input(error):
                raise
            raise ModelFormatError(
                f"the encoder cannot be read: {_brief(error)}", where=where, remedy=_AGREE
            ) from error


def _read(reference: str, revision: str, settings: ModelSettings) -> tuple[PreTrainedModel, dict[str, Any]]:
    import torch
    from transformers import PreTrainedConfig

    # Read as plain values: the classes of transformers can allocate memory or fetch code for them. Read as plain
    # values: the classes of transformers can allocate, or fetch code, for what is in them.
    content, _ = PreTrainedConfig.get_config_dict(reference, revision=revision)
    kind = _known_type(content.get("model_type"), settings)
    architecture = ARCHITECTURES[kind]
    if settings.pooling == "cls" and not architecture.pooler:
        raise ModelFormatError(
            f"a {kind} encoder has no pooler, which the pooling 'cls' needs",
            where=settings.encoder,
            remedy="set model.pooling to mean or mean_max",
        )
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
    raise ModelFormatError(
        f"the encoder's model_type is {str(kind)[:80]!r}, and gkiller trains {known}",
        where=settings.encoder,
        remedy=remedy,
    )


def _load_error(where: str, error: Exception) -> ModelFormatError | HubUnavailableError:
    if is_local(where):
        return ModelFormatError(
            f"the encoder cannot be read: {_brief(error)}",
            where=where,
            remedy=f"{_AGREE}; pickled .bin files are not read",
        )
    what = f"the hub gave no encoder: {_brief(error)}"
    return HubUnavailableError(what, where=where, remedy=_OTHER_WAYS)


def _check_complete(report: dict[str, Any], where: str) -> None:
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelFormatError(f"the encoder lacks weights, first {missing[0]}", where=where, remedy=_AGREE)
    for key, found, wanted in sorted(report["mismatched_keys"]):
        what = f"{key} has the shape {list(found)}, and config.json asks for {list(wanted)}"
        raise ModelFormatError(what, where=where, remedy=_AGREE)


def check_fits(config: PreTrainedConfig, settings: ModelSettings, vocab_size: int) -> None:
    """Raise `ModelFormatError` for an encoder that is too small for the tokenizer or for ``max_length``."""
    if vocab_size > config.vocab_size:
        raise ModelFormatError(
            f"the tokenizer has {vocab_size} pieces and the encoder knows {config.vocab_size}",
            where=settings.encoder,
            remedy="use the tokenizer that came with the encoder",
        )
    positions = usable_positions(config.to_dict())
    if settings.max_length > positions:
        raise ModelFormatError(
            f"model.max_length {settings.max_length} is more than the encoder's {positions} positions",
            where=settings.encoder,
            remedy=f"set model.max_length to {positions} or less",
        )


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
    if settings.tokenizer is not None:
        return read_tokenizer(Path(settings.tokenizer).expanduser(), settings.max_length)
    if is_default(settings.encoder):
        return read_tokenizer(default_model() / TOKENIZER, settings.max_length)
    if settings.encoder == "fresh":
        return read_tokenizer(tokenizer_path(), settings.max_length)
    folder = Path(_locate(settings)[0])
    if is_local(settings.encoder) and (folder / "tokenizer.json").is_file():
        return read_tokenizer(folder / "tokenizer.json", settings.max_length)
    return _convert(settings)


def _convert(settings: ModelSettings) -> Tokenizer:
    """Let transformers find the encoder's tokenizer, which can be an older vocab.txt."""
    own = getattr(load_own_tokenizer(settings), "backend_tokenizer", None)
    # Where it finds no vocabulary, transformers makes a tokenizer that knows the special tokens alone.
    if own is None or own.get_vocab_size() <= len(own.get_added_tokens_decoder()):
        raise ModelFormatError(
            "the encoder came without a tokenizer.json or vocab.txt",
            where=settings.encoder,
            remedy="set model.tokenizer to the tokenizer.json that belongs to it",
        )
    return parse_tokenizer(own.to_str(), settings.encoder, settings.max_length)
