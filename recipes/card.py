"""Measure a model, and write what its card says of data, licences, tests and groups of people.

    python recipes/card.py default/runs/default --data $DATA --out default/card.md
    python tools/ship_model.py default/runs/default --sections default/card.md

The figures are of the model's int8 graph, as it is shipped.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from commands import answer
from identity import identity_comments, unlisted

from gkiller.deployment.deploy import copy_deployed
from gkiller.model.layout import GRAPHS
from gkiller.scoring.models import load_any

LICENCES = Path(__file__).with_name("licences.md")
AUCS = ("subgroup", "bpsn", "bnsp", "fpr")


def figure(value: dict[str, Any]) -> str:
    """Return a figure with its interval."""
    return f"{value['value']:.3f} ({value['low']:.3f}-{value['high']:.3f})"


def tests(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the figures on each set."""
    yield "## Tests"
    yield ""
    yield "Toxicity, at the stored threshold, with 95 % bootstrap intervals over comments."
    yield ""
    yield "| comments | n | F1 | precision | recall | ROC-AUC | AP |"
    yield "|---|---|---|---|---|---|---|"
    for name, one in found.items():
        label = one["labels"]["toxicity"]
        stored = [figure(label["stored"][key]) for key in ("f1", "precision", "recall")]
        cells = [name, f"{one['rows']:,}", *stored, figure(label["roc_auc"]), figure(label["ap"])]
        yield f"| {' | '.join(cells)} |"
    yield ""


def robustness(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of what disguise costs."""
    model = found["models"][0]
    yield "## When comments are disguised"
    yield ""
    yield (
        f"Recall on {found['positives']:,} toxic comments of validation: {figure(model['recall'])}; share of "
        f"{found['negatives']:,} harmless ones that are called toxic (FPR): {figure(model['fpr'])}."
    )
    yield ""
    yield (
        "Lost at equal FPR: recall at the lowest threshold that calls no more of the harmless comments toxic "
        "than the model's own does of them as they are; as they are, less changed."
    )
    yield ""
    yield "| change | recall | lost | FPR | added | lost at equal FPR |"
    yield "|---|---|---|---|---|---|"
    for kind, one in model["kinds"].items():
        cells = (figure(one[name]) for name in ("recall", "lost", "fpr", "added", "lost_at_equal_fpr"))
        yield f"| {kind} | {' | '.join(cells)} |"
    yield ""


def identity(madlibs: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the bias by group: on madlibs, and on gkiller's own comments."""
    yield "## Groups of people"
    yield ""
    yield (
        f"On {madlibs['rows']:,} template sentences that name a group, half of them toxic (Jigsaw's identity "
        "madlibs): AUC among the group's own sentences (subgroup), of its harmless ones against toxic ones "
        "of the others (BPSN), of its toxic ones against harmless ones of the others (BNSP), and the share "
        "of its harmless ones that are called toxic (FPR). Far from the others' means bias. Longer sentences "
        "that begin as these do, written for gkiller, were trained on."
    )
    yield ""
    yield from groups(madlibs)
    yield (
        f"On {own['rows']:,} comments written for gkiller (`python recipes/identity.py`), in frames that it "
        "was not trained on. Other comments written for gkiller, which it was trained on, name each of these "
        "groups, but for those marked *; the public corpora may name any."
    )
    yield ""
    yield from groups(own, starred=unlisted())


def groups(found: dict[str, Any], starred: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the lines of a table with a row for each group."""
    model = found["models"][0]
    yield "| group | subgroup | BPSN | BNSP | FPR |"
    yield "|---|---|---|---|---|"
    rows = {"all (power mean, p = -5; FPR of all)": model["headline"], **model["terms"]}
    for name, one in rows.items():
        star = " *" if name in starred else ""
        yield f"| {' | '.join([name + star, *(figure(one[key]) for key in AUCS)])} |"
    yield ""


def measure(run: str, data: Path) -> str:
    """Return the sections."""
    test, ood = data / "test/jigsaw.parquet", sorted((data / "ood").glob("*.parquet"))
    sets: dict[str, tuple[object, ...]] = {
        "Jigsaw test, weighted to the natural prior": (test, "--weight-column", "weight"),
        "Jigsaw test, as sampled": (test,),
        "Civil Comments, balanced": (data / "valid/civil.parquet",),
        **{f"{path.stem}, another domain": (path,) for path in ood},
    }
    columns = ("--label-columns", "label")
    with tempfile.TemporaryDirectory(prefix="gkiller-card-") as folder:
        copy = Path(folder) / "model"
        copy_deployed(load_any(run), GRAPHS["int8"], copy)
        found = {name: answer("evaluate", copy, "--data", *where, *columns) for name, where in sets.items()}
        bias = answer("suite", "identity", copy, "--data", data / "suites/identity_madlibs.parquet")
        pq.write_table(identity_comments(["toxicity"], use="measure"), Path(folder) / "groups.parquet")
        term = ("--label-columns", "toxicity", "--term-column", "term")
        own = answer("suite", "identity", copy, "--data", Path(folder) / "groups.parquet", *term)
        noise = answer("suite", "robustness", copy, "--data", data / "valid/jigsaw.parquet", *columns)
    return "\n".join([LICENCES.read_text("utf-8"), *tests(found), *robustness(noise), *identity(bias, own)])


def main() -> None:
    """Write the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run with an int8 graph")
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    arguments.out.write_text(measure(arguments.run, arguments.data), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
