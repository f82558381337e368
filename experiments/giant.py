r"""From nothing to the README's table: data, tiny models, giants, and the bench; seeds fixed, and resumable.

    python experiments/giant.py --data $DATA --work giant --giant mpnet=PATH --giant minilm=PATH \
        --set mpnet:train.precision=bf16 --report docs/giant.md --summary README.md

``$DATA`` holds the public corpora as ``train/*.parquet``, ``valid/*.parquet``, ``test/jigsaw.parquet`` and
``ood/*.parquet`` (columns text, label, further labels, and weight in the test file). Each giant is a
directory or hub id of a pretrained encoder, or the run of a fine-tuned one. The first ``--giant`` is the one
of the scorecard, which is about the tiny model with dendrites, or about the run of ``--model``, such as that
of ``recipes/default.py``. Every step is a command of gkiller, printed before it runs; what is there
already is not made again, and a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from document import insert

from gkiller.errors import ParityError

RECIPES = Path(__file__).parents[1] / "recipes"
sys.path.append(str(RECIPES))

from commands import command, export, finished, gkiller, settings, settings_of, train  # noqa: E402

TINY = {
    "tiny": ["--encoder", "fresh", "--no-dendrites"],
    # Kept whatever validation says, to be shown:
    "tiny-dendrites": ["--encoder", "fresh", "--set", "dendrites.min_gain=-1"],
}
SEED = "0"
GIANT_GRAPHS = (
    "--parity-rows=1000",
    *settings([f"deployment.int8_{loss}=1" for loss in ("score_difference", "flips", "ap_loss", "f1_loss")]),
)
"""A giant's graphs are compared on fewer rows than a tiny model's, and its int8 graph is timed whatever it
loses: the table shows it. A tiny model's must pass the gate."""


def prepare(data: Path, out: Path) -> None:
    """Prepare the public corpora."""
    if not (out / "manifest.json").is_file():
        command(RECIPES / "corpora.py", "--data", data, "--out", out)


def exported(run: Path, *flags: object) -> Path:
    """Write a run's graphs; without one whose scores would differ too much, which is then not timed."""
    return export(run, *flags, may_end_with=ParityError.exit_code)


def interval(figure: dict[str, float]) -> str:
    """Write a figure with its interval."""
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def summary(found: dict[str, Any]) -> str:
    """Write a short table of what the bench answered, of the systems that were scored."""
    sets = {one["name"]: one["systems"] for one in found["quality"]["sets"]}
    aucs = [name for name in sets if name not in ("valid", "civil", "test-unweighted")]
    quality = ("F1, valid", "F1, test", *(f"ROC-AUC, {name}" for name in aucs))
    head = ("system", "MB", "comments/s", *quality)
    lines = [head, ("---",) * len(head)]
    for system in found["systems"]:
        if system["key"] in sets["valid"]:
            own = {name: systems[system["key"]]["labels"][found["label"]] for name, systems in sets.items()}
            rate, size = system["speed"]["whole"]["value"], system["bytes"] / 1e6
            figures = [own[name]["stored"]["f1"] for name in ("valid", "test")]
            figures += [own[name]["roc_auc"] for name in aucs]
            cells = (f"{size:.1f}", f"{rate:,.{int(rate < 100)}f}", *map(interval, figures))
            lines.append((system["key"], *cells))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Make what is missing, run the bench, and write its report where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What stands after -- goes to gkiller bench.",
    )
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--work", type=Path, default=Path("giant"), help="where everything is made")
    parser.add_argument("--model", type=Path, help="the run of the scorecard, instead of tiny-dendrites")
    parser.add_argument("--giant", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--set", action="append", default=[], metavar="NAME:KEY=VALUE", help="of one giant")
    parser.add_argument("--threads", type=int, default=1, help="of the trainings and the bench")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report into FILE")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write a short table into FILE")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, more = parser.parse_args(words[:end]), words[end + 1 :]
    if any(word == "--out" or word.startswith("--out=") for word in more):
        parser.error("--out is set by --work, and read back for --report and --summary: leave it out")
    prepared, runs, out = (arguments.work / name for name in ("prepared", "runs", "bench"))
    prepare(arguments.data, prepared)
    common = ("--data", prepared, "--seed", SEED, "--threads", arguments.threads)
    tiny = [exported(train(runs, name, *common, *flags)) for name, flags in TINY.items()]
    model = exported(arguments.model) if arguments.model else tiny.pop()
    giants = []
    for pair in arguments.giant:
        name, _, path = pair.partition("=")
        flags = ("--arch", "giant", "--base-model", path, *settings_of(name, arguments.set))
        run = Path(path) if finished(Path(path)) else train(runs, name, *common, *flags)
        giants.append(exported(run, *GIANT_GRAPHS))
    rivals = [word for run in (*tiny, *giants[1:]) for word in ("--against", run)]
    base = ["--compare-base", giants[0]] if giants else []
    other = {path.stem: path for path in sorted((arguments.data / "ood").glob("*.parquet"))}
    other["civil"] = arguments.data / "valid" / "civil.parquet"
    other["test-unweighted"] = arguments.data / "test" / "jigsaw.parquet"  # --also reads no weights
    also = [word for name, path in other.items() for word in ("--also", f"{name}={path}")]
    where = ("--data", prepared, "--threads", arguments.threads, "--out", out)
    gkiller("bench", model, *base, *rivals, *also, *where, *more)
    if arguments.report:
        text = (out / "bench.md").read_text("utf-8").split("\n", 2)[2]  # without its title
        insert(arguments.report, text, "giant")
    if arguments.summary:
        insert(arguments.summary, summary(json.loads((out / "bench.json").read_text("utf-8"))), "giant")


if __name__ == "__main__":
    main()
