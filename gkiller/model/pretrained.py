"""Pretrained BERT encoders, from a directory or from the Hugging Face hub.

The hub is asked once, with a time limit, before transformers starts: it would otherwise retry for most of
a minute. With ``HF_HUB_OFFLINE`` set nothing is asked, and the local cache is read instead.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gkiller.errors import (
    GkillerError,
    HubUnavailableError,
    ModelFormatError,
    ModelNotFoundError,
    is_fault_of_input,
)

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from gkiller.settings.definition import ModelSettings

TIMEOUT_SECONDS = 10.0
_OTHER_WAYS = (
    "check the id and the connection, name a local directory, set HF_HUB_OFFLINE=1 to use the local cache, "
    "or use model.encoder=fresh"
)
_AGREE = "the directory must hold a BERT encoder's config.json and the model.safetensors that belongs to it"


def is_local(reference: str) -> bool:
    """Whether a model reference names a path rather than a hub repository (``org/name``)."""
    return Path(reference).exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1


def load_encoder(settings: ModelSettings, vocab_size: int) -> BertModel:
    """Load the encoder that the settings name, in float32 on the CPU.

    Args:
        settings: the encoder, its revision, the dropouts and the pooling.
        vocab_size: of the tokenizer.

    Raises:
        ModelNotFoundError: the local path holds no encoder, or the name cannot be one.
        ModelFormatError: it is not BERT, has no safetensors file, its weights do not fit its configuration,
            or it is too small for the tokenizer or for ``max_length``.
        HubUnavailableError: the hub cannot be reached, or does not have it.
    """
    reference, revision = locate(settings)
    with loading(settings.encoder):
        bert, report = _read(reference, revision, settings)
    _check_complete(report, settings.encoder)
    _check_fits(bert.config, settings, vocab_size)
    return bert


def load_own_tokenizer(settings: ModelSettings) -> PreTrainedTokenizerFast:
    """Load the tokenizer that came with an encoder, as transformers reads it.

    Raises:
        ModelNotFoundError: as `load_encoder`.
        ModelFormatError: there is none that BERT can use.
        HubUnavailableError: as `load_encoder`.
    """
    from transformers import AutoTokenizer

    reference, revision = locate(settings)
    with loading(settings.encoder):
        found = AutoTokenizer.from_pretrained(reference, revision=revision, trust_remote_code=False)
    return cast("PreTrainedTokenizerFast", found)


def locate(settings: ModelSettings) -> tuple[str, str]:
    """Return what transformers calls an encoder, and its revision: the commit where the hub tells it.

    Raises:
        ModelNotFoundError: there is no such directory, or the name cannot be one.
        HubUnavailableError: the hub cannot be reached, or does not have it.
    """
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
    except errors.HfHubHTTPError as error:
        what = f"{constants.ENDPOINT} refused: {_brief(error)}"
        raise HubUnavailableError(what, where=repository, remedy=_OTHER_WAYS) from error
    except _transport_errors() as error:
        what = f"{constants.ENDPOINT} cannot be reached: {_brief(error)}"
        raise HubUnavailableError(what, where=repository, remedy=_OTHER_WAYS) from error
    commit: str | None = found.sha
    return commit


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return what a failed connection raises; huggingface_hub has changed its HTTP library before."""
    modules = (sys.modules.get(library) for library in ("httpx", "httpx2"))
    return (OSError, *(module.HTTPError for module in modules if module is not None))


@contextmanager
def loading(where: str) -> Iterator[None]:
    """Keep transformers quiet, and turn what it raises into errors with a place and a remedy.

    Raises:
        ModelFormatError: the files are not those of a BERT encoder.
        HubUnavailableError: the hub does not give them.
    """
    from transformers import utils

    talk: Any = utils.logging
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.CRITICAL)
    talk.disable_progress_bar()
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
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def _read(reference: str, revision: str, settings: ModelSettings) -> tuple[BertModel, dict[str, Any]]:
    import torch
    from transformers import BertConfig, BertModel

    from gkiller.model.description import bert_config

    # Read as plain values: the classes of transformers can allocate, or fetch code, for what is in them.
    content, _ = BertConfig.get_config_dict(reference, revision=revision)
    kind = content.get("model_type")
    if kind != "bert":
        raise ModelFormatError(
            f"the encoder's model_type is {str(kind)[:80]!r}, and gkiller trains 'bert' models",
            where=settings.encoder,
            remedy="choose a BERT encoder, such as google/bert_uncased_L-2_H-128_A-2",
        )
    config = bert_config({**BertConfig().to_dict(), **content})
    config.hidden_dropout_prob = settings.dropout
    config.attention_probs_dropout_prob = settings.attention_dropout
    loaded: Any = BertModel.from_pretrained(
        reference,
        config=config,
        revision=revision,
        add_pooling_layer=settings.pooling == "cls",
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # the report names them; the exception would not
        dtype=torch.float32,
    )
    return cast("tuple[BertModel, dict[str, Any]]", loaded)


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


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
