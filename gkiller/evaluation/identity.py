"""Identity bias: how well comments that name a group are ranked among themselves and against the others.

For a group, the subgroup is the comments that name it and the background all others (Borkan, Dixon, Sorensen,
Thain and Vasserman, "Nuanced Metrics for Measuring Unintended Bias with Real Data for Text Classification",
2019, arXiv:1903.04561, section 3):

- subgroup AUC: positives and negatives of the subgroup;
- BPSN AUC: background positives, subgroup negatives; low where harmless comments about a group score high;
- BNSP AUC: background negatives, subgroup positives; low where toxic comments about a group score low.

Each is summed up over the groups by the generalised power mean M_p = (mean of m^p)^(1/p) with p = -5, which
leans to the worst groups (the measure of Kaggle's "Jigsaw Unintended Bias in Toxicity Classification", 2019).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gkiller.data.augment.operators import identity_groups
from gkiller.data.dataset import FloatArray, IntArray
from gkiller.errors import ColumnError, EmptyDataError, SettingsError, SingleClassError
from gkiller.evaluation.metrics import draws, ratio, running
from gkiller.evaluation.suites import differences_from_first, figures_of, one_class, truth_of, used_rows
from gkiller.storage.strict_json import plain
from gkiller.wording import Progress, counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gkiller.data.dataset import IntArray
    from gkiller.data.load import Labelled
    from gkiller.evaluation.results import Figure
    from gkiller.evaluation.significance import Difference
    from gkiller.evaluation.suites import Contestant
    from gkiller.settings.definition import EvaluationSettings


MOST: Final = 500
"""A column of more different values holds something else than identity terms."""

_GAP = re.compile(r"[\s-]+")
_REMEDY = "name the terms of these comments with --term, or a column that holds them with --term-column"


def named_groups(terms: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the terms asked for, each once and by itself; the default groups when there is none.

    Raises:
        SettingsError: a term without a letter or digit.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for term in terms:
        name = _key(term)
        if not re.search(r"\w", name):
            raise SettingsError(f"{term!r} is no term", where="--term", remedy="give a word, or several")
        groups[name] = (name,)
    return groups or identity_groups()


def find_terms(texts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, IntArray]:
    """Return the rows of the comments in which a group is named, by group; those of no row are left out.

    A term counts where it stands between word boundaries, in any case; white space and hyphens are alike. Of
    terms that begin at the same place the longest counts alone: "african american" is neither of its words.

    Raises:
        EmptyDataError: no comment names a group.
    """
    owners = {_key(form): name for name, forms in groups.items() for form in forms}
    longest = sorted(owners, key=lambda form: (-len(form), form))
    choices = "|".join(r"[\s-]+".join(map(re.escape, form.split(" "))) for form in longest)
    pattern = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
    found: dict[str, list[int]] = {name: [] for name in groups}
    for row, text in enumerate(texts):
        hits = {owners.get(_key(match[0])) for match in pattern.finditer(text)}
        for name in hits - {None}:  # without regard to case "ı" is an "i" too, but no key
            found[str(name)].append(row)
    members = {name: np.array(rows, dtype=np.intp) for name, rows in found.items() if rows}
    if not members:
        number = counted(len(groups), "identity term")
        raise EmptyDataError(
            f"none of {number} stands in any of {counted(len(texts), 'comment')}",
            where="identity terms",
            remedy=_REMEDY,
        )
    return members


def column_terms(column: str, values: Sequence[Any]) -> dict[str, IntArray]:
    """Return the rows of each value of a column: the identity term that the comment is about.

    Args:
        values: (n,) texts, or lists of them; None and empty ones name no group.

    Raises:
        EmptyDataError: no value names a group.
        ColumnError: a value is no text, or there are over MOST different ones.
    """
    found: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        each = value if isinstance(value, list) else [value]
        for term in dict.fromkeys(each):
            if term is None or term == "":
                continue
            if not isinstance(term, str):
                raise ColumnError(
                    f"the value {term!r:.40} is no identity term",
                    where=f"row {row + 1}, column {column!r}",
                    remedy="name a column of texts with --term-column",
                )
            found.setdefault(term, []).append(row)
    if not found:
        raise EmptyDataError(
            f"no comment has an identity term in the column {column!r}",
            where="--term-column",
            remedy="name another column, or leave it out to look for terms in the comments",
        )
    if len(found) > MOST:
        raise ColumnError(
            f"the column {column!r} has {len(found):,} different values",
            where="--term-column",
            remedy=f"name one with at most {MOST}",
        )
    return {name: np.array(rows, dtype=np.intp) for name, rows in found.items()}


def _key(term: str) -> str:
    return _GAP.sub(" ", term.casefold()).strip()


POWER: Final = -5.0
LEAST: Final = 10
"""A group of fewer positives or negatives is left out: its AUCs are of chance."""

AUCS: Final = ("subgroup", "bpsn", "bnsp")
HEADLINE: Final = ("auc", *AUCS, "fpr")
"""Overall AUC, the power means over groups, and the overall false-positive rate."""

TERM_FIGURES: Final = (*AUCS, "fpr")


@dataclass(frozen=True)
class Group:
    """The comments that name a group."""

    term: str
    rows: IntArray  # (m,) their positions in the rows that are measured, ascending
    positives: int


@dataclass(frozen=True)
class ModelIdentity:
    """One model's figures."""

    model: Contestant
    headline: Mapping[str, Figure]
    # for each group, by the names of TERM_FIGURES; fpr is the share of the group's negatives that score at or above the
    # threshold
    terms: Mapping[str, Mapping[str, Figure]]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**self.model.described(), "headline": plain(self.headline), "terms": plain(self.terms)}


@dataclass(frozen=True)
class IdentityDifference:
    """A model's differences from the first one: its own figure is ``a``, the first model's ``b``."""

    name: str
    headline: Mapping[str, Difference]
    terms: Mapping[str, Mapping[str, Difference]]


@dataclass(frozen=True)
class IdentityBias:
    """What was measured."""

    label: str
    rows: int
    positives: int
    groups: tuple[Group, ...]
    # terms of groups with too few positives or negatives, with how many comments name them
    left_out: Mapping[str, int]
    least: int
    models: tuple[ModelIdentity, ...]
    differences: tuple[IdentityDifference, ...]
    resamples: int
    confidence: float
    bootstrap_seed: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = {**vars(self), "power": POWER, "models": [one.as_dict() for one in self.models]}
        groups = found.pop("groups")
        found["terms"] = {one.term: {"n": len(one.rows), "positives": one.positives} for one in groups}
        found["differences"] = plain(self.differences)
        return found


def measure_identity(
    found: Labelled,
    label: str,
    models: Sequence[Contestant],
    scores: Sequence[FloatArray],
    members: Mapping[str, IntArray],
    settings: EvaluationSettings,
    *,
    least: int = LEAST,
    progress: Progress | None = None,
) -> IdentityBias:
    """Measure models on the same comments, with one set of draws for all.

    Args:
        scores: of each model (n,), in 0..1.
        members: for each group's term the rows that name it, as `find_terms` gives them.

    Raises:
        SingleClassError: the comments lack a class, or every group has too few of one.
    """
    truth, weights = truth_of(found, label), found.rows.weights
    used = used_rows(truth, weights)
    positive = truth[used] == 1
    if not positive.any() or positive.all():
        raise one_class(label, "negative" if positive.any() else "positive")
    groups, left_out = _groups(members, used, positive, len(truth), least)
    ranked = [
        _Ranked(one[used], positive, weights[used], groups, model.threshold)
        for model, one in zip(models, scores, strict=True)
    ]
    points = [one.figures(np.ones((1, len(used))))[0] for one in ranked]
    parts: list[list[FloatArray]] = [[] for _ in models]
    done = 0
    for counts in draws(len(used), settings.resamples, settings.bootstrap_seed):
        for place, one in enumerate(ranked):
            parts[place].append(one.figures(counts))
        done += len(counts)
        if progress is not None:
            progress(done, settings.resamples)
    replicas = [np.concatenate(part) for part in parts]
    names = [group.term for group in groups]
    measured = [
        ModelIdentity(model, *_by_name(figures_of(point, drawn, settings.confidence), names))
        for model, point, drawn in zip(models, points, replicas, strict=True)
    ]
    apart = differences_from_first(points, replicas, settings.confidence)
    return IdentityBias(
        label=label,
        rows=len(used),
        positives=int(positive.sum()),
        groups=tuple(_worst_first(groups, points[0])),
        left_out=left_out,
        least=least,
        models=tuple(measured),
        differences=tuple(
            IdentityDifference(model.name, *_by_name(one, names)) for model, one in zip(models[1:], apart, strict=True)
        ),
        resamples=settings.resamples,
        confidence=settings.confidence,
        bootstrap_seed=settings.bootstrap_seed,
    )


def power_mean(values: FloatArray, power: float = POWER) -> FloatArray:
    """Return the generalised mean (mean of m^p)^(1/p) over the last axis; a 0 makes it 0, a NaN NaN."""
    with np.errstate(divide="ignore"):
        mean: FloatArray = np.mean(np.asarray(values) ** power, axis=-1) ** (1.0 / power)
    return mean


def bias_aucs(truth: Any, scores: Any, members: Any) -> dict[str, float]:
    """Return a group's subgroup, BPSN and BNSP AUC by name; NaN where one of its two sides is empty.

    Args:
        truth: (n,) 0 or 1.
        scores: (n,).
        members: (n,) whether the comment names the group.
    """
    rows = np.flatnonzero(np.asarray(members, dtype=bool))
    positive = np.asarray(truth) == 1
    weights = np.ones(len(positive))
    group = Group("", rows, int(positive[rows].sum()))
    table = _Ranked(np.asarray(scores, np.float64), positive, weights, [group], 1.0).figures(weights[None])[0]
    start = len(HEADLINE)
    return dict(zip(AUCS, map(float, table[start : start + len(AUCS)]), strict=True))


def _groups(
    members: Mapping[str, IntArray], used: IntArray, positive: NDArray[np.bool_], total: int, least: int
) -> tuple[list[Group], dict[str, int]]:
    """Return the groups in the rows used, and those too small."""
    place = np.full(total, -1, dtype=np.intp)
    place[used] = np.arange(len(used))
    groups: list[Group] = []
    left_out: dict[str, int] = {}
    for term, rows in members.items():
        kept = place[rows]
        kept = kept[kept >= 0]
        hits = int(positive[kept].sum())
        if min(hits, len(kept) - hits) < least:
            left_out[term] = len(kept)
        else:
            groups.append(Group(term, kept, hits))
    if not groups:
        raise SingleClassError(
            f"each of {counted(len(left_out), 'identity term')} in the comments has fewer than {least} "
            f"positives or fewer than {least} negatives",
            where="identity terms",
            remedy="measure on more comments, or lower --least",
        )
    return groups, left_out


class _Ranked:
    """One model's rows in descending order of score, and the groups' places in that order.

    Every AUC is the share of pairs in the right order, ties counting half (Mann-Whitney). With the background
    of a group being all rows but its own, the pairs with the background are those with all rows less those
    within the group, so that all groups together cost as much as one AUC.

    Args:
        scores: (n,).
        positive: (n,).
        weights: (n,) above 0.
    """

    def __init__(
        self,
        scores: FloatArray,
        positive: NDArray[np.bool_],
        weights: FloatArray,
        groups: Sequence[Group],
        threshold: float,
    ) -> None:
        order = np.argsort(-scores, kind="stable")
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        descending = scores[order]
        self._order = order
        self._positive = np.where(positive[order], weights[order], 0.0)
        self._negative = np.where(positive[order], 0.0, weights[order])
        self._flagged = descending >= threshold
        self._ends = _ends(descending)
        self._groups = [np.sort(place[group.rows]) for group in groups]
        self._group_ends = [_ends(descending[rows]) for rows in self._groups]

    def figures(self, counts: FloatArray) -> FloatArray:
        """Return the figures of HEADLINE, then those of TERM_FIGURES of each group, (R, 5 + 4 T).

        Args:
            counts: (R, n) how often each row counts in each resample.
        """
        drawn = counts[:, self._order]
        pos, neg = drawn * self._positive, drawn * self._negative
        over, all_pos = _above(pos, self._ends)
        above, all_neg = _above(neg, self._ends)
        below = all_neg - above
        groups = []
        for rows, ends in zip(self._groups, self._group_ends, strict=True):
            own_pos, own_neg = pos[:, rows], neg[:, rows]
            own_over, pos_sum = _above(own_pos, ends)
            own_above, neg_sum = _above(own_neg, ends)
            own_below = neg_sum - own_above
            groups += [
                _auc(own_pos, own_below, pos_sum, neg_sum),
                _auc(own_neg, over[:, rows] - own_over, neg_sum, all_pos - pos_sum),
                _auc(own_pos, below[:, rows] - own_below, pos_sum, all_neg - neg_sum),
                _share(own_neg @ self._flagged[rows], neg_sum[:, 0]),
            ]
        table = np.stack(groups, axis=1)
        means = [power_mean(table[:, k :: len(TERM_FIGURES)]) for k in range(len(AUCS))]
        rate = _share(neg @ self._flagged, all_neg[:, 0])
        headline = np.stack([_auc(pos, below, all_pos, all_neg), *means, rate], axis=1)
        return np.concatenate([headline, table], axis=1)


def _ends(descending: FloatArray) -> IntArray:
    """Return (2, m): how many rows score above each row, and how many at least as high."""
    return np.stack([np.searchsorted(-descending, -descending, side=side) for side in ("left", "right")])


def _above(masses: FloatArray, ends: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the mass above each row, ties counting half, (R, m), and the whole mass (R, 1)."""
    sums = running(masses)
    return 0.5 * (sums[:, ends[0]] + sums[:, ends[1]]), sums[:, -1:]


def _auc(masses: FloatArray, won: FloatArray, mass: FloatArray, other: FloatArray) -> FloatArray:
    """Return the share (R,) of the pairs that one side wins.

    Args:
        masses: (R, m) of the rows of one side.
        won: (R, m) mass of the other side's rows that each of them beats.
        mass: (R, 1) of the one side.
        other: (R, 1) of the other side.
    """
    return _share(ratio(np.einsum("rm,rm->r", masses, won), mass[:, 0]), other[:, 0])


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide; sums of unequal weights, taken in another order, may round beyond 0..1."""
    return np.clip(ratio(part, whole), 0.0, 1.0)


def _by_name(values: Sequence[Any], terms: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Part K values into those of HEADLINE and those of each term."""
    start, step = len(HEADLINE), len(TERM_FIGURES)
    rest = values[start:]
    return (
        dict(zip(HEADLINE, values, strict=False)),
        {
            term: dict(zip(TERM_FIGURES, rest[place * step : (place + 1) * step], strict=True))
            for place, term in enumerate(terms)
        },
    )


def _worst_first(groups: Sequence[Group], point: FloatArray) -> list[Group]:
    table = point[len(HEADLINE) :].reshape(len(groups), len(TERM_FIGURES))[:, : len(AUCS)]
    lowest = np.nan_to_num(table, nan=1.0).min(axis=1)
    return [groups[place] for place in np.argsort(lowest, kind="stable").tolist()]
