"""Export and quantize a model directory: build, compare, and only then write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from gkiller.data.labels import FLAG_LABELS
from gkiller.deployment.lean import OPSET, Rewrites, Scheme, build
from gkiller.deployment.parity import LIMITED, Limits, Parity, ParityRows, compare, limits_of, require
from gkiller.deployment.probes import new_probes, read_probes, score_probes, score_tokens, session
from gkiller.deployment.quantize import Tried, choose, export_plain, faithfulness, try_candidates
from gkiller.deployment.weights import leanable, network_of
from gkiller.errors import ExportError, OutputError, ParityError
from gkiller.model.dendrites.growth import dendritic_modules
from gkiller.model.directory import LoadedModel, add_files, load_model, save_model, stored_files
from gkiller.model.layout import BESIDE, CARD, CONFIG, FORMAT_VERSION, GRAPHS, LIMITS, META, PROBES, TOKENIZER, WEIGHTS
from gkiller.model.network import add_dendrites, new_classifier
from gkiller.storage.environment import CPU_FLAGS, read_cpu
from gkiller.storage.files import writing
from gkiller.storage.sealed import SealBrokenError, unseal
from gkiller.tokens.batches import Reader, tokenize
from gkiller.tokens.wordpiece import parse_tokenizer
from gkiller.wording import Progress, silent, staged

if TYPE_CHECKING:
    from gkiller.model.directory import Stored
    from gkiller.model.layout import GraphPrecision
    from gkiller.model.network import ToxicityClassifier
    from gkiller.settings.definition import DeploymentSettings


PLAIN_FILES: Final = (CARD, CONFIG, WEIGHTS, TOKENIZER)
BATCH: Final = 16
CONTINUATION: Final = "##"
TRIMMED: Final = "vocabulary"
"""What a trimmed model says of it, in the training that gkiller.json tells of."""
_WORDS: Final = "bert.embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    directory: Path
    file: str
    precision: GraphPrecision  # "fp32", "fp16" or "int8"
    graph_bytes: int
    total_bytes: int
    parity: Parity
    limits: Limits

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "directory": str(self.directory), "parity": self.parity.as_dict()}


def export_onnx(
    loaded: LoadedModel,
    rows: ParityRows,
    settings: DeploymentSettings,
    *,
    out: Path | None = None,
    plain: bool = False,
    precision: Literal["fp32", "fp16"] = "fp32",
    progress: Progress | None = None,
) -> Exported:
    """Write an fp32 graph, or one with weights stored as fp16, into a model directory.

    Args:
        plain: take the graph of torch's exporter instead of the lean one, as is always done for others than BERT.

    Raises:
        ParityError: the graph does not score as the model does; nothing is written.
        ExportError: no graph can be built of this network.
        OutputError: ``out`` is not ours to replace, or cannot be written.
    """
    target, tell, lean = target_for(loaded, out), progress or silent, leanable(loaded.model) and not plain
    tell(0, None, "building the graph")
    if lean:
        graph = build(network_of(loaded.model, loaded.max_length), Scheme(precision, precision)).SerializeToString()
    elif precision == "fp32":
        graph = export_plain(loaded.model, loaded.max_length).SerializeToString()
    else:
        remedy = "leave out --plain" if leanable(loaded.model) else "export fp32, or quantize to int8"
        raise ExportError("fp16 storage is a form of the lean graph, which is BERT's", remedy=remedy)
    limits = limits_of(settings, precision)
    parity = compare(rows, score_tokens(session(graph), rows.tokens, BATCH, staged(tell, "comparing")), limits)
    require(parity, f"the {precision} graph", str(target))
    return _write(loaded, rows, target, _Made(graph, precision, lean, parity, limits))


def quantize(
    loaded: LoadedModel,
    rows: ParityRows,
    settings: DeploymentSettings,
    *,
    out: Path | None = None,
    portable: bool = False,
    progress: Progress | None = None,
) -> tuple[Exported, list[Tried]]:
    """Write the best int8 graph into a model directory.

    Args:
        rows: what the gate compares on, and what static ranges come from.
        portable: only 7-bit weights, whose sums fit the 16 bits of processors without VNNI.

    Returns:
        What was written, and every candidate as it was measured.

    Raises:
        ParityError: no candidate scores as the model does; nothing is written. Others as of `export_onnx`.
    """
    target, limits = target_for(loaded, out), limits_of(settings, "int8")
    tried = try_candidates(loaded, rows, limits, settings.calibration_rows, portable, progress or silent)
    best = choose(tried)
    if best is None:
        nearest = min(tried, key=faithfulness)
        what = f"no int8 graph scores as the trained model does; the nearest, {nearest.candidate.name}: "
        report = {"candidates": [one.as_dict() for one in tried]}
        raise ParityError(what + "; ".join(nearest.parity.failures), where=str(target), remedy=LIMITED, report=report)
    facts = {"candidate": best.candidate.name, "scheme": asdict(best.candidate.scheme)}
    made = _Made(best.graph, "int8", leanable(loaded.model), best.parity, limits, facts)
    return _write(loaded, rows, target, made), tried


def quantize_trimmed(
    loaded: LoadedModel,
    rows: ParityRows,
    settings: DeploymentSettings,
    out: Path,
    *,
    reference: Sequence[str],
    pieces: int,
    portable: bool = False,
    progress: Progress | None = None,
) -> tuple[Exported, list[Tried]]:
    """Write a model of a smaller vocabulary with its int8 graph; the gate compares it with the whole one."""
    target = target_for(loaded, out)
    with TemporaryDirectory(prefix="gkiller-trimmed-") as folder:
        smaller = save_trimmed(loaded, reference, pieces, Path(folder) / "model")
        again = replace(rows, read=Reader(smaller.tokenizer, smaller.max_length).read(rows.texts))
        return quantize(smaller, again, settings, out=target, portable=portable, progress=progress)


def copy_plain(loaded: LoadedModel, out: Path) -> int:
    """Write weights, configuration, tokenizer and card, without graphs; return the bytes written."""
    target = target_for(loaded, out)
    changes: dict[str, Any] = {"exports": {}} if "exports" in loaded.metadata else {}
    add_files(target, loaded, {}, keep=PLAIN_FILES.__contains__, changes=changes)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def copy_deployed(
    loaded: Stored, graph: str, target: Path, *, also: Collection[str] = (), files: Mapping[str, bytes] | None = None
) -> None:
    """Write what predicts with one graph, such as "onnx/model.int8.onnx", sealed again for these files alone.

    Raises:
        ModelTamperedError: a file is not the one that was loaded.
        OutputError: it cannot be written.
    """
    wanted = {graph, *BESIDE, *also}
    exports = {name: facts for name, facts in loaded.metadata.get("exports", {}).items() if name == graph}
    add_files(target, loaded, files or {}, keep=wanted.__contains__, changes={"exports": exports})


def target_for(loaded: Stored, out: Path | None) -> Path:
    """Return where to write a copy of a model; an OutputError unless another copy or nothing is there."""
    target = out if out is not None else loaded.path
    if target is None:
        raise OutputError("the model was not read from a directory", remedy="name one with --out")
    with writing(target):
        if out is not None and loaded.path is not None and out.exists() and out.samefile(loaded.path):
            what = "the copy would replace the model that it is made from"
            raise OutputError(what, where=str(out), remedy="choose another --out")
        if target.exists() and not _may_be_replaced(target, loaded):
            what = "something other than a copy of this model is there"
            raise OutputError(what, where=str(target), remedy="choose another --out, or remove what is there")
    return target


def _may_be_replaced(target: Path, loaded: Stored) -> bool:
    if not (target / META).is_file():
        return target.is_dir() and not any(target.iterdir())
    try:
        there = unseal(target, META, version=FORMAT_VERSION, keep={}, check="kept").content
    except SealBrokenError:
        return False
    return _origin(there) == _origin(loaded.metadata)


def _origin(metadata: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return what a model has in common with its copies of another precision or a smaller vocabulary."""
    training = metadata.get("training") or {}
    return metadata.get("labels"), {key: training[key] for key in training if key != TRIMMED}


@dataclass(frozen=True)
class _Made:
    """A graph that has passed the gate."""

    graph: bytes
    precision: GraphPrecision
    lean: bool
    parity: Parity
    limits: Limits
    facts: Mapping[str, Any] = field(default_factory=dict)


def _write(loaded: LoadedModel, rows: ParityRows, target: Path, made: _Made) -> Exported:
    name, size = GRAPHS[made.precision], len(made.graph)
    if size > LIMITS[name]:
        what = f"the graph has {size:,} bytes, and {LIMITS[name]:,} are read of one"
        remedy = "nothing was written; 'gkiller quantize' makes a smaller one"
        raise ExportError(what, where=str(target), remedy=remedy)
    if loaded.path is not None and (loaded.path / PROBES).is_file():
        probes = read_probes(stored_files(loaded, [PROBES])[PROBES], str(loaded.path / PROBES))
    else:
        probes = new_probes(loaded)
    probes = probes.with_scores(name, score_probes(probes, made.graph))
    cpu, flags = read_cpu()
    record = {
        "precision": made.precision,
        "opset": OPSET,
        "graph": "lean" if made.lean else "plain",
        **({"rewrites": asdict(Rewrites())} if made.lean else {}),
        **made.facts,
        "gate": {
            "source": rows.source,
            "split": rows.split,
            "rows": made.parity.rows,
            "fingerprint": rows.fingerprint,
            "limits": asdict(made.limits),
            "found": made.parity.as_dict(),
        },
        "cpu": cpu,
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "onnxruntime": version("onnxruntime"),
    }
    exports = {**loaded.metadata.get("exports", {}), name: record}
    add_files(target, loaded, {name: made.graph, PROBES: probes.text().encode()}, changes={"exports": exports})
    total = sum((target / file).stat().st_size for file in (name, *BESIDE))
    return Exported(target, name, made.precision, size, total, made.parity, made.limits)


def save_trimmed(loaded: LoadedModel, texts: Sequence[str], most: int, folder: Path) -> LoadedModel:
    """Save a model that knows fewer pieces, and load it.

    Kept are special tokens, single characters (so that a word whose piece is gone is still spelt out, and not
    [UNK]), and of the other pieces those that ``texts`` use most.

    Args:
        most: pieces kept in all; special tokens and characters are kept even beyond it.

    Raises:
        ExportError: the encoder is not BERT, the tokenizer not WordPiece, or there is nothing to leave out.
    """
    content = _word_pieces(loaded, "trimmed", "leave out --vocabulary")
    vocabulary: dict[str, int] = content["model"]["vocab"]
    kept = _kept(vocabulary, {token["content"] for token in content["added_tokens"]}, loaded, texts, most)
    if len(kept) >= len(vocabulary):
        what = f"all {len(vocabulary):,} pieces are kept, so there is nothing to trim"
        raise ExportError(what, where=str(loaded.path), remedy="ask for fewer with --vocabulary")
    text = _as_text(_renumbered(content, kept))
    parse_tokenizer(text, str(loaded.path), loaded.max_length)
    metadata = loaded.metadata
    save_model(
        folder,
        _with_rows(loaded.model, [vocabulary[piece] for piece in kept]),
        text,
        labels=loaded.labels,
        thresholds=metadata["thresholds"],
        flag_labels=metadata.get(FLAG_LABELS),
        max_length=loaded.max_length,
        card=(loaded.path / "README.md").read_text("utf-8") if loaded.path else "",
        training={**metadata["training"], TRIMMED: {"kept": len(kept), "of": len(vocabulary)}},
    )
    return load_model(folder)


def with_pieces(loaded: LoadedModel, alike: Mapping[str, str]) -> tuple[ToxicityClassifier, str]:
    """Return a network that knows more pieces, each read as a piece that was there, and its tokenizer.json.

    Its new rows of the word embedding come last. WordPiece takes the longest piece that a word begins with, so a new
    piece also changes longer words that begin with it, or go on with it where it begins with "##".

    Raises:
        ExportError: the encoder is not BERT, or the tokenizer not WordPiece.
        ValueError: a new piece is in the vocabulary, or the piece that it is like is not.
    """
    content = _word_pieces(loaded, "enlarged", "leave the vocabulary as it is")
    vocabulary: dict[str, int] = content["model"]["vocab"]
    if there := alike.keys() & vocabulary.keys():
        raise ValueError(f"{min(there)!r} is in the vocabulary already")
    if lacking := set(alike.values()) - vocabulary.keys():
        raise ValueError(f"{min(lacking)!r} is not in the vocabulary")
    size = loaded.tokenizer.get_vocab_size()
    rows = [*range(size), *(vocabulary[piece] for piece in alike.values())]
    numbers = dict(zip(alike, range(size, len(rows)), strict=True))
    larger = {**content, "model": {**content["model"], "vocab": {**vocabulary, **numbers}}}
    return _with_rows(loaded.model, rows), _as_text(larger)


def _word_pieces(loaded: LoadedModel, changed: str, remedy: str) -> dict[str, Any]:
    """Return the JSON of the tokenizer, which is of word pieces, of a BERT."""
    kind = loaded.model.bert.config.model_type
    what = f"a {kind} encoder"
    if kind == "bert":
        content: dict[str, Any] = json.loads(loaded.tokenizer.to_str())
        if content["model"].get("type") == "WordPiece":
            return content
        what = f"a {content['model'].get('type')} tokenizer"
    raise ExportError(f"the vocabulary of {what} cannot be {changed}", where=str(loaded.path), remedy=remedy)


def _as_text(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _kept(
    vocabulary: dict[str, int], special: set[str], loaded: LoadedModel, texts: Sequence[str], most: int
) -> list[str]:
    """Return the pieces to keep, in the order of their ids."""
    always = {piece for piece in vocabulary if piece in special or len(piece.removeprefix(CONTINUATION)) == 1}
    counts = Counter(tokenize(loaded.tokenizer, texts).ids.tolist())
    others = sorted(
        (piece for piece, number in vocabulary.items() if counts[number] and piece not in always),
        key=lambda piece: (-counts[vocabulary[piece]], vocabulary[piece]),
    )
    chosen = always | set(others[: max(0, most - len(always))])
    return sorted(chosen, key=vocabulary.__getitem__)


def _renumbered(content: dict[str, Any], kept: list[str]) -> dict[str, Any]:
    """Return the tokenizer's JSON with the kept pieces alone, numbered from 0."""
    numbers = {piece: number for number, piece in enumerate(kept)}
    processor = dict(content["post_processor"] or {})
    for end in ("sep", "cls"):
        if end in processor:
            processor[end] = [processor[end][0], numbers[processor[end][0]]]
    if "special_tokens" in processor:
        processor["special_tokens"] = {
            name: {**token, "ids": [numbers[piece] for piece in token["tokens"]]}
            for name, token in processor["special_tokens"].items()
        }
    return {
        **content,
        "padding": None,
        "truncation": None,
        "added_tokens": [{**token, "id": numbers[token["content"]]} for token in content["added_tokens"]],
        "post_processor": processor,
        "model": {**content["model"], "vocab": numbers},
    }


def _with_rows(model: ToxicityClassifier, rows: list[int]) -> ToxicityClassifier:
    """Return the same network with these rows of the word embedding, in their order."""
    config = type(model.bert.config).from_dict({**model.bert.config.to_dict(), "vocab_size": len(rows)})
    modules = dendritic_modules(model)
    with torch.random.fork_rng(devices=[]):
        other = new_classifier(config, model.labels, model.pooling)
        add_dendrites(
            other,
            {name: len(module.dendrites) for name, module in modules.items()},
            next((module.activation for module in modules.values()), "sigmoid"),
        )
    state = dict(model.named_parameters())
    other.load_state_dict({**state, _WORDS: state[_WORDS][rows]})
    return other.eval()
