"""How a run begins or goes on: its network, its manifest, and what a resumed run may change."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from gkiller.data.load import split_fingerprint
from gkiller.data.sources import local_path
from gkiller.deployment.weights import deployed_encoder, head_of, read_deployed
from gkiller.errors import ModelFormatError, ResumeError
from gkiller.model.directory import load_model
from gkiller.model.layout import META, deployed_directory, is_default, settled
from gkiller.model.network import ToxicityClassifier, build_classifier
from gkiller.settings import resolve, settings_by_key
from gkiller.storage.environment import environment
from gkiller.training.phases import Lengths, Phase, phase_length
from gkiller.training.runtime import local_processes, thread_count
from gkiller.wording import counted

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from gkiller.data.dataset import Dataset
    from gkiller.model.dendrites.growth import State
    from gkiller.model.network import ToxicityClassifier
    from gkiller.settings.definition import DendriteSettings, ModelSettings, Settings
    from gkiller.training.phases import Position
    from gkiller.training.run import RunDirectory, RunManifest
    from gkiller.training.runtime import Ranks


HARMLESS = (
    "train.device",
    "train.threads",
    "train.keep_checkpoints",
    "train.checkpoint_seconds",
    "train.checkpoint_steps",
)
"""Settings that a resumed run may change: they do not change what is computed, but for rounding."""

LONGER = {"train.epochs": 0, "dendrites.epochs": 1, "dendrites.joint_epochs": 2}
"""Lengths that a resumed run may raise, with the place of their phase in a training."""

_PLACES = {"neuron": 0, "dendrite": 1, "joint": 2}


def resume_command(run: Path, processes: int) -> str:
    """Return the command that goes on with a run, in as many processes of this machine as now."""
    launcher = f"torchrun --nproc-per-node {local_processes()} -m " if processes > 1 else ""
    return f"{launcher}gkiller train --resume {shlex.quote(run.as_posix())}"


def run_settings(run: Path) -> Settings:
    """Return the settings that a run directory records."""
    return resolve(config=run / "settings.toml", environ={}).settings


def resumed_settings(run: Path, asked: Settings, keys: Iterable[str]) -> Settings:
    """Return a run's own settings with the changes asked for, as far as they are allowed.

    Args:
        keys: the dotted keys of ``asked`` that count; the others are taken from the run.

    Raises:
        ResumeError: one of the keys differs and is neither among `HARMLESS` nor a length that grows.
    """
    kept = run_settings(run)
    changes: dict[str, dict[str, Any]] = {}
    refused: list[str] = []
    for key, (ours, theirs) in changed(kept, asked, keys).items():
        longer = key in LONGER and theirs is not None and (ours is None or theirs > ours)
        if key in HARMLESS or longer:
            section, field = key.split(".")
            changes.setdefault(section, {})[field] = theirs
        else:
            refused.append(f"{key} is {ours!r} in the run and {theirs!r} now")
    if refused:
        raise ResumeError(
            "a resumed run keeps its settings: " + "; ".join(refused),
            where=str(run),
            remedy="leave these settings out, or start a new training; "
            f"{', '.join(HARMLESS)} may change, and {', '.join(LONGER)} may grow",
        )
    sections = {name: getattr(kept, name).model_copy(update=fields) for name, fields in changes.items()}
    return kept.model_copy(update=sections)


def changed(before: Settings, after: Settings, keys: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return the settings among ``keys`` that differ, each with both values."""
    found = {}
    for key in keys:
        section, field = key.split(".")
        pair = getattr(getattr(before, section), field), getattr(getattr(after, section), field)
        if pair[0] != pair[1]:
            found[key] = pair
    return found


def check_lengths(keys: Iterable[str], phase: Phase) -> None:
    """Refuse to lengthen a phase that is over.

    Raises:
        ResumeError: one of them is the length of an earlier phase.
    """
    over = [key for key in keys if key in LONGER and LONGER[key] < _PLACES[phase.name]]
    if over:
        raise ResumeError(
            f"the run is in its {phase.name} phase: {', '.join(over)} cannot change any more",
            remedy="leave it out, or start a new training",
        )


def lengthened(phase: Phase, length: Lengths) -> Phase:
    """Return a checkpoint's phase with its length as it is now.

    Raises:
        ResumeError: it would get shorter.
    """
    epochs = phase_length(length, phase)
    if epochs < phase.epochs:
        planned = counted(phase.epochs, "epoch")
        raise ResumeError(
            f"the {phase.name} phase was planned for {planned} and cannot get shorter",
            remedy=f"ask for {planned} or more",
        )
    return replace(phase, epochs=epochs)


def check_place(progress: Position, dendrites: DendriteSettings, steps: int) -> None:
    """Refuse a checkpoint of a place that a training never comes to.

    Raises:
        ResumeError: it is of another training.
    """
    most = dendrites.count if dendrites.enabled else 0
    if progress.phase.dendrites > most or not 0 <= progress.step <= steps:
        raise ResumeError(f"the checkpoint, {progress.place()}, is of another training")


def check_network(own: State, given: State) -> None:
    """Refuse a checkpoint's weights where they are not those of the network.

    Raises:
        ResumeError: a name or a shape differs.
    """
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (own, given)]
    odd = sorted(n for n in {*own, *given} if shapes[0].get(n) != shapes[1].get(n))
    if odd:
        raise ResumeError(f"the checkpoint is of another network: {', '.join(odd[:3])}")


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
) -> RunManifest:
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
            "fingerprints": {name: split_fingerprint(split, dataset.labels) for name, split in dataset.splits.items()},
        },
        "tokenizer_sha256": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "environment": environment(),
    }


def new_network(settings: ModelSettings, labels: Sequence[str], vocab_size: int) -> ToxicityClassifier:
    """Return the network to train: encoder and head that the settings name.

    Args:
        settings: which encoder, and its shape when it is a fresh one.

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
    """Return what the training of a giant, or from the encoder of a graph, begins from; else nothing."""
    if settings.model.arch == "tiny" and deployed_directory(settings.model.encoder) is None:
        return {}
    digest = hashlib.sha256()
    for name, parameter in sorted(model.bert.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().numpy().tobytes())
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


def open_run(run: RunDirectory, settings: Settings, before: Settings | None, manifest: RunManifest) -> None:
    """Write manifest and settings: those of a new run, or what has changed since it began.

    Args:
        before: the settings that a resumed run had, None for a new one.
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


def compare_runs(run: RunDirectory, now: Mapping[str, Any]) -> list[str]:
    """Compare how a run began with how it would go on.

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
        {**{k: m.get(k) for k in ("threads", "processes", "device")}, **m.get("environment", {})} for m in (began, now)
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


Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """What a model makes of a pooled vector."""

    weight: Array  # (labels, width)
    bias: Array  # (labels,)
    labels: tuple[str, ...]
    pooling: str


def stored_head(encoder: str) -> Head:
    """Read the head of the model that an encoder is taken from, with one logit per label.

    Args:
        encoder: as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, or it cannot be read.
    """
    if (graph := deployed_directory(encoder)) is not None:
        network, description = read_deployed(graph)
        head, labels, pooling = network.head, description.labels, description.pooling
    else:
        directory = Path(encoder).expanduser()
        if not (directory / META).is_file():
            raise ModelFormatError(
                "an encoder without a head",
                where=encoder,
                remedy="name a model of gkiller with --encoder, or set model.head to fresh",
            )
        loaded = load_model(directory)
        head, labels, pooling = head_of(loaded.model), loaded.labels, loaded.model.pooling
    return Head(head.weight.T, head.bias, labels, pooling)


def keep_head(model: ToxicityClassifier, labels: Sequence[str], encoder: str) -> None:
    """Give a network's head the weights of a model for the labels that both score; others stay as they are.

    Args:
        encoder: which model, as ``model.encoder`` names it, not "auto".

    Raises:
        ModelError: there is no model of gkiller, it cannot be read, it pools in another way or scores none of
            the labels.
    """
    head = stored_head(encoder)
    if head.pooling != model.pooling:
        raise ModelFormatError(
            f"the head is for the pooling {head.pooling!r}, and model.pooling is {model.pooling!r}",
            where=encoder,
            remedy=f"set model.pooling to {head.pooling}, or model.head to fresh",
        )
    known = [label for label in labels if label in head.labels]
    if not known:
        raise ModelFormatError(
            f"the model scores {', '.join(head.labels)}, and none of {', '.join(labels)}",
            where=encoder,
            remedy="name the label columns as the model does, or set model.head to fresh",
        )
    rows = [head.labels.index(label) for label in known]
    weight, bias = (torch.tensor(array[rows]) for array in (head.weight, head.bias))
    with torch.no_grad():
        if model.labels == 1:  # two logits, whose difference is the label's
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
            places = [0, 1]
        else:
            places = [labels.index(label) for label in known]
        model.classifier.weight[places] = weight
        model.classifier.bias[places] = bias
