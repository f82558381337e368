"""The whole benchmark: from what was asked for to one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gkiller.benchmark.plan import OUTLIER_RULE, Plan, Speed, SpeedRatio, ratios_of, same_runtime, speed_of
from gkiller.benchmark.processes import Cold, Machine, load_average, machine, start_cold, time_systems
from gkiller.benchmark.quality import LabelledSet, Quality, measure_quality
from gkiller.benchmark.rivals import Frame, gkiller_specs, linear_spec, rival_specs, static_spec, unique_names
from gkiller.benchmark.scorecard import Criterion, Found, scorecard, training_of
from gkiller.benchmark.systems import SystemSpec
from gkiller.data.load import Labelled, load_labelled, split_fingerprint
from gkiller.errors import LabelMismatchError, SettingsError
from gkiller.evaluation.source import DataChoice, choose_data, load_chosen, run_of
from gkiller.inference.loading import available_threads
from gkiller.model.sequence import is_gkiller, name_of
from gkiller.scoring.models import AnyModel, DeployedModel, load_any
from gkiller.settings import DataSettings
from gkiller.storage.strict_json import parse_json, plain
from gkiller.wording import Progress, silent

if TYPE_CHECKING:
    from gkiller.benchmark.giants import Base
    from gkiller.data.dataset import Dataset
    from gkiller.settings.definition import Settings
    from gkiller.training.trainer import EventCallback


_SYNTHETIC = "these comments are synthetic: the figures say nothing about real ones"
_SCORES = "scores"
_MOST_TEXTS = 1000
"""Comments that long ones are put together from."""


@dataclass(frozen=True)
class Request:
    """What to compare, and how."""

    model: str
    settings: Settings
    asked: frozenset[str] = frozenset()
    against: tuple[str, ...] = ()
    base: Base | None = None  # the giant, None for none
    also: Mapping[str, str] | None = None
    quality: bool = True
    linear: bool = True
    static: str | None = None  # directory of a model2vec model, None for none
    cache: Path | None = None


@dataclass(frozen=True)
class System:
    """A row of the table."""

    spec: SystemSpec
    bytes: int
    speed: Speed
    cold: Cold


@dataclass(frozen=True)
class BenchResult:
    """What was measured."""

    label: str
    source: str
    systems: tuple[System, ...]
    ratios: tuple[SpeedRatio, ...]
    quality: Quality | None  # None where it was not measured
    criteria: tuple[Criterion, ...]
    machine: Machine
    facts: dict[str, Any]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        systems = [
            {
                **asdict(one.spec),
                "key": one.spec.key,
                "bytes": one.bytes,
                "speed": asdict(one.speed),
                "cold": asdict(one.cold),
            }
            for one in self.systems
        ]
        return {
            "label": self.label,
            "source": self.source,
            "systems": systems,
            "ratios": [asdict(one) for one in self.ratios],
            "quality": _plain_quality(self.quality),
            "criteria": [asdict(one) for one in self.criteria],
            "machine": asdict(self.machine),
            "facts": self.facts,
            "warnings": list(self.warnings),
        }


def run_bench(
    request: Request, *, progress: Progress | None = None, on_event: EventCallback | None = None
) -> BenchResult:
    """Measure a model and its rivals.

    Raises:
        GkillerError: a model, rival or data cannot be read; the data have none of the model's labels.
        BenchmarkFailedError: a child process did not come to its end.
    """
    tell: Progress = progress or silent
    loaded = load_any(request.model)
    assert loaded.path is not None
    choice = choose_data(loaded.path, request.settings.data, request.asked)
    found = _test_rows(choice, tell)
    dataset = found.dataset
    label = next((label for label in loaded.labels if label in dataset.labels), None)
    if label is None:
        raise LabelMismatchError(
            f"the data have the labels {', '.join(dataset.labels)}, the model {', '.join(loaded.labels)}",
            where=str(dataset.manifest.get("source", choice.data.source)),
            remedy="name the matching columns with --label-columns",
        )
    found_warnings = [_SYNTHETIC] if dataset.manifest.get("synthetic") else []
    specs, warnings = _systems(request, loaded, _sampled(dataset, choice), choice, tell, on_event)
    sets = _sets(request, dataset) if request.quality else []
    texts = _drawn(found.rows.texts, request.settings)
    plan = _plan(request.settings, texts, found.rows.texts, loaded.max_length)
    settings = request.settings
    cold, before = {}, load_average()  # cold starts are a load of their own
    for done, spec in enumerate(specs):
        tell(done, len(specs), "cold starts")
        few = texts[: settings.bench.memory_rows]
        cold[spec.key] = start_cold(spec, few, plan.threads, settings.bench.processes)
    measured = time_systems(specs, plan, tell)
    here = machine(before, load_average())
    how = settings.bench.seed, settings.evaluation.confidence
    speeds = {spec.key: speed_of(measured, spec.key, len(texts), *how) for spec in specs}
    ratios = [ratio for own, rival in same_runtime(specs) for ratio in ratios_of(measured, own.key, rival.key, *how)]
    quality = None
    if request.quality:
        quality = measure_quality(
            specs,
            sets,
            settings.evaluation,
            margin=settings.bench.margin,
            threads=available_threads(),
            progress=tell,
            cache=_cache(request, loaded) / _SCORES,
        )
    training = training_of(_manifest(loaded))
    state = Found(specs, speeds, ratios, quality, training, label, plan.threads, settings.bench.margin)
    return BenchResult(
        label=label,
        source=str(dataset.manifest.get("source", choice.data.source)),
        systems=tuple(System(spec, spec.bytes, speeds[spec.key], cold[spec.key]) for spec in specs),
        ratios=tuple(ratios),
        quality=quality,
        criteria=tuple(scorecard(state)),
        machine=here,
        facts=_facts(settings, plan, loaded.max_length),
        warnings=(*found_warnings, *warnings, *(quality.warnings() if quality else ()), *here.warnings(plan.threads)),
    )


def _test_rows(choice: DataChoice, tell: Progress) -> Labelled:
    """Return the test rows, with the whole data set; a single file is split, as for a training."""
    if choice.run is None:
        return load_labelled(choice.data, None, tell, default="test", whole_file=False)
    return load_chosen(choice, None, tell, default="test")


def _systems(
    request: Request,
    loaded: AnyModel,
    dataset: Dataset,
    choice: DataChoice,
    tell: Progress,
    on_event: EventCallback | None,
) -> tuple[list[SystemSpec], list[str]]:
    """Return every row, and warnings."""
    assert loaded.path is not None
    settings = request.settings
    frame = Frame(
        labels=loaded.labels,
        max_length=loaded.max_length,
        batch_size=settings.bench.batch_size,
        cache=_cache(request, loaded),
        seed=settings.bench.seed,
        long_text=settings.evaluation.long_text,
    )
    own = gkiller_specs(frame, loaded, name_of(loaded.path), "model")
    warnings = []
    copy = isinstance(loaded, DeployedModel)
    missing = {} if copy else {"onnx fp32": "export", "onnx int8": "quantize"}
    for spec in own:
        missing.pop(spec.runtime, None)
    for runtime, command in missing.items():
        warnings.append(f"the model has no {runtime} graph; make it with: gkiller {command} {request.model}")
    rows = [own, *(rival_specs(frame, reference) for reference in request.against)]
    if request.base is not None:
        from gkiller.benchmark.giants import giant_specs

        own_data = settings.model_copy(update={"data": choice.data})
        trainable = dataset if "train" in dataset.splits and "valid" in dataset.splits else None
        giant, told = giant_specs(
            frame, request.base, loaded, trainable, own_data, progress=tell, on_event=on_event or (lambda event: None)
        )
        rows.append(giant)
        warnings += told
    fitted = request.linear or request.static is not None
    base = request.base
    learns = base is not None and base.way != "random" and not is_gkiller(base.reference)
    if "train" in dataset.splits and (fitted or learns):
        warnings += _trained_on_others(loaded, dataset)
    if fitted:
        train = dataset.split("train")
        if request.linear:
            rows.append([linear_spec(frame, train, dataset.labels, tell)])
        if request.static is not None:
            rows.append([static_spec(frame, request.static, train, dataset.labels)])
    return unique_names(rows), warnings


def _sampled(dataset: Dataset, choice: DataChoice) -> Dataset:
    """Return the data with the train rows that the model itself was trained on."""
    size = choice.data.sample_size
    if size is None or "train" not in dataset.splits:
        return dataset
    train = dataset.split("train").sample(size, choice.data.split_seed)
    return replace(dataset, splits={**dataset.splits, "train": train})


def _sets(request: Request, dataset: Dataset) -> list[LabelledSet]:
    """Return the rows to score: validation, test, and those of ``--also``."""
    sets = [LabelledSet(name, dataset.labels, dataset.split(name)) for name in ("valid", "test")]
    for name, path in (request.also or {}).items():
        if name in [one.name for one in sets]:
            raise SettingsError(f"there is a set {name!r} already", where="--also", remedy="give it another name")
        labelled = load_labelled(DataSettings(source=path), None)
        sets.append(LabelledSet(name, labelled.dataset.labels, labelled.rows))
    return sets


def _drawn(texts: Sequence[str], settings: Settings) -> list[str]:
    """Return comments of a timed pass, drawn without replacement."""
    rng = np.random.default_rng(settings.bench.seed)
    count = min(settings.bench.rows, len(texts))
    return [texts[place] for place in rng.choice(len(texts), count, replace=False)]


def _plan(settings: Settings, texts: Sequence[str], every: Sequence[str], max_length: int) -> Plan:
    bench = settings.bench
    processes = min(bench.timing_processes, bench.rounds)
    return Plan(
        texts=tuple(texts),
        long_texts=tuple(every[:_MOST_TEXTS]),
        threads=bench.threads,
        processes=processes,
        rounds=ceil(bench.rounds / processes),
        warm_up=bench.warm_up,
        lengths=tuple(length for length in bench.latency_tokens if length <= max_length),
        latency_rounds=ceil(bench.latency_rounds / processes),
    )


def _cache(request: Request, loaded: AnyModel) -> Path:
    """Return where giants, fitted rivals and scores are kept."""
    if request.cache is not None:
        return request.cache
    run = run_of(loaded.path) if loaded.path is not None else None
    return (run.parent if run is not None else Path("runs")) / ".bench"


def _manifest(loaded: AnyModel) -> dict[str, Any]:
    """Return the manifest of the model's run; empty outside of a run, or where it cannot be read."""
    run = run_of(loaded.path) if loaded.path is not None else None
    if run is None or not (run / "manifest.json").is_file():
        return {}
    try:
        return parse_json((run / "manifest.json").read_bytes())
    except ValueError:
        return {}


def _trained_on_others(loaded: AnyModel, dataset: Dataset) -> list[str]:
    """Warn where rivals are trained on other rows than the model was."""
    recorded = _manifest(loaded).get("data", {}).get("fingerprints", {}).get("train")
    here = split_fingerprint(dataset.split("train"), dataset.labels)
    if recorded == here:
        return []
    what = "it is not known whether" if recorded is None else "it is not so that"
    return [f"{what} the model was trained on the rows that its rivals here are trained on"]


def _facts(settings: Settings, plan: Plan, max_length: int) -> dict[str, Any]:
    from gkiller.storage.environment import package_versions

    bench = settings.bench
    names = ("gkiller", "torch", "onnxruntime", "tokenizers", "transformers", "scikit-learn", "numpy")
    versions = package_versions()
    return {
        "threads": plan.threads,
        "timing_processes": plan.processes,
        "rounds": plan.rounds * plan.processes,
        "warm_up": plan.warm_up,
        "rows": len(plan.texts),
        "latency_tokens": list(plan.lengths),
        "latency_rounds": plan.latency_rounds * plan.processes,
        "batch_size": bench.batch_size,
        "max_length": max_length,
        "long_text": settings.evaluation.long_text,
        "padding": "comments in order of length, batches padded to their longest comment",
        "outliers": OUTLIER_RULE,
        "seed": bench.seed,
        "resamples": settings.evaluation.resamples,
        "confidence": settings.evaluation.confidence,
        "margin": bench.margin,
        "processes": bench.processes,
        "memory_rows": min(bench.memory_rows, len(plan.texts)),
        "versions": {name: versions[name] for name in names},
    }


def _plain_quality(quality: Quality | None) -> dict[str, Any] | None:
    if quality is None:
        return None
    sets = [
        {
            "name": one.name,
            "rows": one.rows,
            "systems": {key: evaluation.as_dict() for key, evaluation in one.systems.items()},
            "duels": [
                {
                    "label": duel.label,
                    "model": duel.model,
                    "rival": duel.rival,
                    **plain(duel.paired),
                    "verdict": asdict(duel.verdict),
                }
                for duel in one.duels
            ],
        }
        for one in quality.sets
    ]
    return {"thresholds": quality.thresholds, "threshold_rule": quality.rule, "sets": sets}
