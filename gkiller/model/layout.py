"""What a model directory is made of, where one is found, and what its gkiller.json may say.

Nothing heavy is imported here: a light installation reads models too, and ``gkiller doctor`` asks early.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from gkiller import assets
from gkiller.data.labels import FLAG_LABELS, MAX_LABELS, label_problem
from gkiller.errors import ModelFormatError, ModelNotFoundError, ModelTamperedError
from gkiller.storage.sealed import SealBrokenError, unseal
from gkiller.storage.strict_json import parse_json
from gkiller.tokens.wordpiece import COUNTED_FROM_PADDING, MAX_TOKENIZER_BYTES
from gkiller.wording import nearest, one_line

if TYPE_CHECKING:
    from gkiller.settings.definition import ModelSettings


PERFORATEDAI: Final = "3.2.9"
"""The one version that gkiller is written for and tested with; ``pyproject.toml`` pins it."""
SUPPORTED: Final = "CPython 3.11 or 3.12 on Linux x86-64 or Windows x86-64, and 3.11 to 3.13 on macOS"
"""The platforms its publisher has builds for; ``pyproject.toml`` marks the dependency with them."""
FORMAT_VERSION: Final = 1
META: Final = "gkiller.json"
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CARD: Final = "README.md"
PROBES: Final = "onnx/parity.json"
"""Token sequences with the scores of each graph, where it was made."""
GraphPrecision = Literal["int8", "fp32", "fp16"]
GRAPHS: Final[dict[GraphPrecision, str]] = {
    "int8": "onnx/model.int8.onnx",
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model.fp16.onnx",
}
"""The graph of each precision, the preferred one first."""
BESIDE: Final = (CONFIG, META, TOKENIZER)
"""What a graph needs to predict."""
LIMITS: Final[dict[str, int]] = {
    CONFIG: 2**20,
    WEIGHTS: 4 * 2**30,
    TOKENIZER: MAX_TOKENIZER_BYTES,
    CARD: 4 * 2**20,
    PROBES: 2**24,
    **dict.fromkeys(GRAPHS.values(), 2**30),
}
"""The most bytes that are read of each file."""
ENTRY_POINTS: Final = "gkiller.models"
"""The group of entry points that announces models which were installed as wheels."""
DEFAULT: Final = "default"
"""The name of the default model, wherever a model or an encoder is named."""
REMEDY_DAMAGED: Final = "copy the model again from where it came, or train it again"
_RUN = "settings.toml"
"""The file that makes a directory a run."""


def is_default(name: str | Path) -> bool:
    """Whether a name means the default model: "default", unless a model, run or file of that name is there.

    A directory of that name without these does not count, such as the one that `recipes/default.py` works in.
    """
    there = Path(name)
    if str(name) != DEFAULT or there.is_file():
        return False
    return not any((there / one).is_file() for one in (META, f"model/{META}", CONFIG, _RUN))


def default_model() -> Path:
    """Return the default model's directory, or raise `ModelNotFoundError` in a build without one."""
    directory = assets.default_model_path()
    if (directory / META).is_file():
        return directory
    remedy = "train one with 'gkiller train', make its graph with 'gkiller quantize runs/NAME', and name runs/NAME"
    raise ModelNotFoundError("this build has no default model", where=str(directory), remedy=remedy)


def installed_models() -> dict[str, Path]:
    """Return the directories of the models that were installed as wheels, and of the default one, by name.

    No code of theirs is run: their folders are found by the entry points alone.
    """
    found = {}
    for entry in entry_points(group=ENTRY_POINTS):
        package = find_spec(entry.value) if entry.value.isidentifier() else None
        if package is not None and package.submodule_search_locations:
            found[entry.name] = Path(package.submodule_search_locations[0]) / "model"
    found[DEFAULT] = assets.default_model_path()
    return {name: path for name, path in found.items() if (path / META).is_file()}


def deployed_directory(encoder: str) -> Path | None:
    """Return the directory of the model whose graph an encoder is read from; None where it has weights.

    That is the default model's, or one that was made to score with alone, such as a copy of it; errors as
    `default_model`.
    """
    if is_default(encoder):
        return default_model()
    directory = Path(encoder).expanduser()
    alone = (directory / META).is_file() and not (directory / WEIGHTS).is_file()
    return directory if alone else None


def settled(settings: ModelSettings) -> ModelSettings:
    """Return settings that name an encoder in the place of "auto".

    That is "default" in a build that has the default model, where the settings ask for no other tokenizer
    or shape and for no more tokens than it has positions for; else "fresh".
    """
    if settings.encoder != "auto":
        return settings
    fields, config = type(settings).model_fields, assets.default_model_path() / CONFIG
    shipped = is_default(DEFAULT) and config.is_file()
    shape = ("tokenizer", "layers", "hidden", "heads", "ffn")
    usual = all(getattr(settings, name) == fields[name].default for name in shape)
    try:
        fits = shipped and usual and settings.max_length <= usable_positions(parse_json(config.read_bytes()))
    except (OSError, ValueError):
        fits = True  # it is damaged: loading it says so
    return settings.model_copy(update={"encoder": DEFAULT if fits else "fresh"})


def find_model(path: str | Path) -> Path:
    """Return the model directory at ``path``, at ``path/model`` of a run, or that of an installed model's name.

    Raises:
        ModelNotFoundError: there is none.
    """
    if is_default(path):
        return default_model()
    what = "no such directory"
    remedy = "name a run or its model directory, such as runs/NAME/model; 'gkiller train' makes one"
    try:
        directory = Path(path).expanduser()
        if not directory.exists() and directory == Path(directory.name):
            installed = installed_models().get(str(path))
            if installed is not None:
                return installed
        for candidate in (directory, directory / "model"):
            if (candidate / META).is_file():
                return candidate
        run = directory.parent if directory.name == "model" else directory
        if (run / _RUN).is_file():
            what = "this run has no model yet: its training has not finished"
            remedy = f"finish it with: gkiller train --resume {run}"
        elif directory.exists():
            what = f"no model there: {META} is missing"
        elif close := _nearest_models(directory):
            remedy = f"did you mean {' or '.join(map(str, close))}?"
    except (OSError, RuntimeError, ValueError) as error:  # not permitted, an unknown "~user", a NUL
        what = f"no model can be read there: {one_line(error)}"
    raise ModelNotFoundError(what, where=str(path), remedy=remedy)


@contextmanager
def unbroken() -> Iterator[None]:
    """Turn a broken seal into `ModelTamperedError` for a missing or changed file, else `ModelFormatError`."""
    try:
        yield
    except SealBrokenError as error:
        remedy = REMEDY_DAMAGED
        if error.kind == "version":
            remedy = f"this gkiller reads format {FORMAT_VERSION}; use the version that wrote it"
        elif error.kind == "tampered" and error.file.name == META:
            remedy = f"{REMEDY_DAMAGED}; 'gkiller threshold' is what changes thresholds"
        what = f"model {error.what}" if error.kind == "version" else error.what
        found = ModelTamperedError if error.kind in ("missing", "tampered") else ModelFormatError
        raise found(what, where=str(error.file), remedy=remedy) from error


def has_weights(directory: Path) -> bool:
    """Whether a model directory lists weights; a copy to score with does not. Errors as `unbroken`."""
    with unbroken():
        return WEIGHTS in unseal(directory, META, version=FORMAT_VERSION, keep={}, check="kept").files


def require_weights(directory: Path) -> None:
    """Raise `ModelFormatError` for a model directory that lists no weights; errors as `has_weights`."""
    if not has_weights(directory):
        what = f"this is a copy to score with: it has no {WEIGHTS}"
        remedy = "name the run that it was made from; predict, evaluate, compare, bench and doctor take such a copy"
        raise ModelFormatError(what, where=str(directory), remedy=remedy)


@contextmanager
def consistent(directory: Path) -> Iterator[None]:
    """Turn what is wrong inside of the files into `ModelFormatError`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelFormatError(
            f"the model directory is inconsistent: {one_line(error)}", where=str(directory), remedy=REMEDY_DAMAGED
        ) from error


def read_labels(value: Any) -> tuple[str, ...]:
    """Read a list of labels; a ValueError unless they are different, printable names."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_LABELS:
        raise ValueError("labels are not a list of names")
    for label in value:
        if label_problem(label):
            raise ValueError(f"{str(label)[:80]!r} is not a label's name")
    if len(set(value)) < len(value):
        raise ValueError("a label is there twice in the labels")
    return tuple(value)


def read_number(value: Any, what: str) -> float:
    """Read a number in 0..1; a ValueError for anything else."""
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"{what} {str(value)[:80]!r} is not in 0..1")
    return float(value)


def read_thresholds(content: Any, labels: tuple[str, ...]) -> dict[str, float]:
    """Read the thresholds of gkiller.json, by label; a ValueError where they are not the labels', or invalid."""
    if not isinstance(content, dict) or content.keys() != set(labels):
        raise ValueError(f"the thresholds are not those of the labels {', '.join(labels)}")
    for entry in content.values():
        if not isinstance(entry, dict) or not isinstance(entry.get("target", ""), str):
            raise ValueError("a threshold is not an object with a value")
        if "tuned_on" in entry:
            _check_tuned_on(entry["tuned_on"])
    return {label: read_number(content[label].get("value"), "the threshold") for label in labels}


def read_flag_labels(content: Mapping[str, Any], labels: tuple[str, ...]) -> tuple[str, ...]:
    """Read which labels decide whether a comment is flagged: all of them where gkiller.json names none."""
    named = content.get(FLAG_LABELS, list(labels))
    if not isinstance(named, list) or not 1 <= len(named) <= len(labels):
        raise ValueError(f"{FLAG_LABELS} are not a list of the model's labels")
    if not all(name in labels for name in named) or len(set(named)) < len(named):
        raise ValueError(f"{FLAG_LABELS} are not different labels of the model")
    return tuple(label for label in labels if label in named)


def flag_entry(deciding: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Return gkiller.json's entry of the labels that decide; empty where all do."""
    return {} if set(deciding) == set(labels) else {FLAG_LABELS: list(deciding)}


def read_max_length(value: Any, config: Mapping[str, Any]) -> int:
    """Read how many tokens the network takes of a comment, [CLS] and [SEP] included: 2 to its positions."""
    most = usable_positions(config)
    if type(value) is not int or not 2 <= value <= most:
        raise ValueError(f"max_length {str(value)[:80]} is not in 2..{most}")
    return value


def usable_positions(config: Mapping[str, Any]) -> int:
    """Return how many tokens an encoder has positions for, by its configuration; 0 when it does not say."""
    positions = config.get("max_position_embeddings")
    if type(positions) is not int:
        return 0
    if config.get("model_type") not in COUNTED_FROM_PADDING:
        return positions
    pad = config.get("pad_token_id")
    return max(0, positions - pad - 1) if type(pad) is int and pad >= 0 else 0


def _nearest_models(directory: Path) -> list[str]:
    """Return the nearest names of runs and models in the same folder, under ``runs``, and installed."""
    found: dict[str, str] = {}
    for folder in (directory.parent / "runs", directory.parent):
        there = list(folder.iterdir()) if folder.is_dir() else []
        names = [d.name for d in there if (d / _RUN).is_file() or (d / META).is_file()]
        found |= {name: str(folder / name) for name in names}
    if directory == Path(directory.name):
        found |= {name: name for name in installed_models()}
    return [found[name] for name in nearest(directory.name, found)]


def _check_tuned_on(record: Any) -> None:
    # Other commands write it into the card.
    kinds = {"source": str, "split": str, "rows": int, "fingerprints": list}
    if not isinstance(record, dict) or any(type(record.get(key)) is not kind for key, kind in kinds.items()):
        raise ValueError("what a threshold was tuned on is not an object of source, split, rows, fingerprints")
    if record.get("long_text", "truncate") not in ("window", "truncate"):
        raise ValueError("how the comments were read that a threshold was tuned on is not known")
    words = [record["source"], record["split"], *record["fingerprints"]]
    if not all(isinstance(word, str) and word.isprintable() for word in words):
        raise ValueError("what a threshold was tuned on is not in printable text")
