"""How a run directory is opened: its manifest and settings, for a new run and for one that goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gkiller.data.load import split_fingerprint
from gkiller.data.sources import local_path
from gkiller.deployment.restore import deployed_encoder
from gkiller.errors import ResumeError
from gkiller.model.classifier import ToxicityClassifier, build_classifier
from gkiller.model.layout import deployed_directory, is_default, settled
from gkiller.report.environment import environment
from gkiller.settings import settings_by_key
from gkiller.training.heads import keep_head
from gkiller.training.resume import changed
from gkiller.training.runtime import thread_count

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from gkiller.data.dataset import Dataset
    from gkiller.report.run import RunDirectory
    from gkiller.settings.definition import ModelSettings, Settings
    from gkiller.training.ranks import Ranks


_SAME = {"data": "data", "tokenizer_sha256": "tokenizer", "distill": "teachers or transfer comments"}
"""What of a manifest must be the same when a run goes on, and what it is called."""
_PLACE = ("path", "source")
"""What a manifest says of where the data lie."""


def new_manifest(
    settings: Settings,
    source: str,
    dataset: Dataset,
    tokenizer: Tokenizer,
    argv: Sequence[str],
    device: torch.device,
    ranks: Ranks,
) -> dict[str, Any]:
    """Return how a run begins: command line, seed, threads, device, fingerprints and environment.

    ``source`` is where the data were read from; it may have moved since the settings named it.
    """
    return {
        "argv": list(argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": settings.train.seed,
        "threads": thread_count(settings.train),
        "processes": ranks.size,
        "device": str(device),
        "data": {
            "source": dataset.manifest.get("source", settings.data.source),
            "path": local_path(source),
            "synthetic": bool(dataset.manifest.get("synthetic", False)),
            "labels": list(dataset.labels),
            "rows": {name: len(split) for name, split in dataset.splits.items()},
            "fingerprints": {
                name: split_fingerprint(split, dataset.labels) for name, split in dataset.splits.items()
            },
        },
        "tokenizer_sha256": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "environment": environment(),
    }


def new_network(settings: ModelSettings, labels: Sequence[str], vocab_size: int) -> ToxicityClassifier:
    """Return the network to train: encoder and head that the settings name.

    Args:
        settings: which encoder, and its shape when it is a fresh one.
        labels: the labels that the head scores.
        vocab_size: of the tokenizer.

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
    """Return what the training of a giant, or from the encoder of a graph, begins from; else nothing.

    Args:
        settings: of the run.
        model: the classifier, with the pretrained encoder's weights.
    """
    if settings.model.arch == "tiny" and deployed_directory(settings.model.encoder) is None:
        return {}
    digest = hashlib.sha256()
    for name, parameter in sorted(model.bert.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().numpy().tobytes())
    config = model.bert.config
    network = {
        "arch": settings.model.arch,
        "model_type": config.model_type,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "encoder_sha256": digest.hexdigest(),
        "frozen_layers": settings.train.freeze_layers,
        "default": is_default(settings.model.encoder),
    }
    return {"network": network}


def open_run(
    run: RunDirectory, settings: Settings, before: Settings | None, manifest: dict[str, Any]
) -> None:
    """Write manifest and settings: those of a new run, or what has changed since it began.

    Args:
        run: the run directory, whose one writer this process is.
        settings: of this training.
        before: the settings that a resumed run had, None for a new one.
        manifest: of this training; a resumed one takes over how the run began.
    """
    if before is not None:
        began = run.read_json("manifest.json")
        changes = {k: list(pair) for k, pair in changed(before, settings, settings_by_key()).items()}
        entry = {"started": manifest["started"], "changed": changes}
        manifest["resumed"] = [*began.get("resumed", []), entry]
        manifest["started"], manifest["argv"] = began["started"], began["argv"]
        manifest["data"]["source"] = began["data"]["source"]
    run.tidy()
    run.reopen()
    run.write_json("manifest.json", manifest)
    if before != settings:
        run.write_settings(settings)  # last: they make the directory a run


def compare_runs(run: RunDirectory, now: dict[str, Any]) -> list[str]:
    """Compare how a run began with how it would go on.

    Args:
        run: the run directory.
        now: the manifest of this training.

    Returns:
        What differs and may change the result a little, for the reader; empty where nothing does.

    Raises:
        ResumeError: the data or the tokenizer are others.
    """
    began = run.read_json("manifest.json")
    for key, name in _SAME.items():
        if _content(began.get(key)) != _content(now.get(key)):
            raise ResumeError(
                f"the {name} of this run have changed since it began",
                where=str(run.path),
                remedy="put them back, or start a new training",
            )
    flat = [
        {**{k: m.get(k) for k in ("threads", "processes", "device")}, **m.get("environment", {})}
        for m in (began, now)
    ]
    different = [key for key in flat[1] if key != "git_commit" and flat[0].get(key) != flat[1][key]]
    if not different:
        return []
    return [
        f"{', '.join(different)} differ from when the run began: it goes on, but its weights may differ "
        "in the last digits from an uninterrupted run's"
    ]


def _content(value: Any) -> Any:
    """Return what must be the same: where the data lie may change, what they are may not."""
    return {k: v for k, v in value.items() if k not in _PLACE} if isinstance(value, dict) else value
