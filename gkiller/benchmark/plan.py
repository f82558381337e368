"""What a timing measures, and what it found: plain values that pass between processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.benchmark.systems import Runtime, SystemSpec
from gkiller.benchmark.timing import Ratio, Seconds, Timing, ratio, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WHOLE: Final = "whole"
STAGES: Final = ("preparing", "network")
"""What a pass over comments consists of: tokens or features, then scores."""


@dataclass(frozen=True)
class Plan:
    """What is timed, the same for every system.

    Attributes:
        texts: comments for the throughput, at their natural lengths.
        long_texts: comments that single-comment latency is cut from.
        threads: CPU threads.
        processes: fresh processes that the rounds are spread over.
        rounds: passes over ``texts`` in each of them.
        warm_up: passes before them, thrown away, in each.
        lengths: token lengths of single comments.
        latency_rounds: comments scored one by one at each length in each of them.
    """

    texts: tuple[str, ...]
    long_texts: tuple[str, ...]
    threads: int
    processes: int
    rounds: int
    warm_up: int
    lengths: tuple[int, ...]
    latency_rounds: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Read what `as_dict` gave."""
        lists = {name: tuple(values[name]) for name in ("texts", "long_texts", "lengths")}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Measurement:
    """The seconds of every system, by its key.

    Attributes:
        passes: (rounds, 2) seconds of a pass over the comments, by stage; of several processes those of one
            after those of another.
        single: by length, (rounds, 2) seconds of one comment.
        tokens: mean tokens of a comment as each system reads it; None where it counts none.
        processes: that the rounds come from.
    """

    passes: dict[str, Seconds]
    single: dict[int, dict[str, Seconds]]
    tokens: dict[str, float | None]
    processes: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "passes": {key: values.tolist() for key, values in self.passes.items()},
            "single": {
                str(length): {key: values.tolist() for key, values in found.items()}
                for length, found in self.single.items()
            },
            "tokens": self.tokens,
            "processes": self.processes,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """Read what `as_dict` gave."""
        return cls(
            {key: np.array(found) for key, found in values["passes"].items()},
            {
                int(length): {key: np.array(one) for key, one in found.items()}
                for length, found in values["single"].items()
            },
            dict(values["tokens"]),
            values["processes"],
        )

    def joined(self, other: Measurement) -> Measurement:
        """Return both, the other's rounds after these."""

        def both(one: Mapping[str, Seconds], two: Mapping[str, Seconds]) -> dict[str, Seconds]:
            return {key: np.concatenate([values, two[key]]) for key, values in one.items()}

        single = {length: both(found, other.single[length]) for length, found in self.single.items()}
        processes = self.processes + other.processes
        return Measurement(both(self.passes, other.passes), single, self.tokens, processes)


@dataclass(frozen=True)
class Rate:
    """Comments per second, with the interval of the typical pass."""

    value: float
    low: float
    high: float
    outliers: int


@dataclass(frozen=True)
class Speed:
    """How fast a system is.

    Attributes:
        whole: comments per second from text to score.
        preparing: of the tokenizer, or of the features, alone.
        network: of the network alone.
        latency: by token length, what a single comment takes from text to score, seconds.
        tokens: mean tokens of a comment; None where none are counted.
    """

    whole: Rate
    preparing: Rate
    network: Rate
    latency: dict[int, Timing]
    tokens: float | None


@dataclass(frozen=True)
class SpeedRatio:
    """How many times as fast one system is as another.

    Attributes:
        system: the faster one's key.
        other: the slower one's key.
        what: "throughput", "network", or "latency N" at N tokens.
        times: the ratio.
    """

    system: str
    other: str
    what: str
    times: Ratio


def speed_of(measured: Measurement, key: str, rows: int, seed: int, confidence: float = 0.95) -> Speed:
    """Sum up what one system took; ``rows`` comments a pass."""
    passes = measured.passes[key]
    sum_up = partial(summarise, processes=measured.processes, seed=seed, confidence=confidence)
    parts = {name: _rate(sum_up(passes[:, place]), rows) for place, name in enumerate(STAGES)}
    return Speed(
        whole=_rate(sum_up(passes.sum(axis=1)), rows),
        latency={length: sum_up(found[key].sum(axis=1)) for length, found in measured.single.items()},
        tokens=measured.tokens[key],
        **parts,
    )


def ratios_of(
    measured: Measurement, key: str, other: str, seed: int, confidence: float = 0.95
) -> list[SpeedRatio]:
    """Return how many times as fast ``key`` is as ``other``, taken within rounds."""
    pairs = {
        "throughput": [measured.passes[name].sum(axis=1) for name in (other, key)],
        "network": [measured.passes[name][:, 1] for name in (other, key)],
        **{
            f"latency {length}": [found[name].sum(axis=1) for name in (other, key)]
            for length, found in measured.single.items()
        },
    }
    divide = partial(ratio, processes=measured.processes, seed=seed, confidence=confidence)
    return [SpeedRatio(key, other, what, divide(slower, faster)) for what, (slower, faster) in pairs.items()]


def same_runtime(specs: Sequence[SystemSpec]) -> list[tuple[SystemSpec, SystemSpec]]:
    """Pair the model with every rival of the same runtime; a rival of another kind, with its main row."""
    own = {spec.runtime: spec for spec in specs if spec.role == "model"}
    rivals = [spec for spec in specs if spec.role != "model"]
    return [(own.get(rival.runtime, main_row(specs)), rival) for rival in rivals if _comparable(rival, own)]


def main_row(specs: Sequence[SystemSpec]) -> SystemSpec:
    """Return the model's row that it is judged by: int8 where it has one, else ONNX, else torch."""
    order = ("onnx int8", "onnx fp32", "torch fp32")
    own = [spec for spec in specs if spec.role == "model"]
    return min(own, key=lambda spec: order.index(spec.runtime))


def _comparable(rival: SystemSpec, own: Mapping[Runtime, SystemSpec]) -> bool:
    return rival.runtime in own or rival.kind in ("linear", "static")


def _rate(timing: Timing, rows: int) -> Rate:
    return Rate(rows / timing.median, rows / timing.high, rows / timing.low, timing.outliers)
