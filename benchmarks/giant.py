r"""From nothing to the README's table: data, tiny models, giants, and the bench; seeds fixed, and resumable.

    python benchmarks/giant.py --data $DATA --work giant --giant mpnet=PATH --giant minilm=PATH \
        --set mpnet:train.freeze_layers=10 --report docs/bench.md

``$DATA`` holds the public corpora as ``train/*.parquet``, ``valid/*.parquet``, ``test/jigsaw.parquet`` and
``ood/*.parquet`` (columns text, label, and weight in the test file). Each giant is a directory or hub id
of a pretrained encoder, or the run of a fine-tuned one. The first ``--giant`` is the one of the scorecard.
Every step is a command of gkiller, printed before it runs; what is there already is not made again, and a
training that was stopped goes on. With what ``recipes/default.py`` has made in ``default``, its teachers are
the giants:

    python benchmarks/giant.py --data $DATA --work giant --prepared default/prepared \
        --giant mpnet=default/runs/teacher-mpnet-0 --giant minilm=default/runs/teacher-minilm-0 \
        --model default/runs/default --report docs/bench.md
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from document import insert

from gkiller.errors import ParityError

TINY = {
    "tiny": ["--no-dendrites"],
    "tiny-dendrites": ["--set", "dendrites.min_gain=-1"],  # kept whatever validation says, to be shown
}
SEED = "0"


def gkiller(*arguments: object, may_end_with: int = 0) -> None:
    """Run a command, and say which; another end than 0 or ``may_end_with`` is this program's too."""
    words = [str(argument) for argument in arguments]
    sys.stderr.write(f"$ gkiller {shlex.join(words)}\n")
    status = subprocess.run([sys.executable, "-m", "gkiller", *words], check=False).returncode
    if status not in (0, may_end_with):
        sys.exit(status)


def prepare(data: Path, out: Path) -> None:
    """Prepare the public corpora."""
    if (out / "manifest.json").is_file():
        return
    train = [data / "train" / f"{name}.parquet" for name in ("jigsaw", "civil")]
    splits = [part for name in ("valid", "test") for part in (f"--{name}", data / name / "jigsaw.parquet")]
    columns = ("--label-columns", "label", "--weight-column", "weight")
    gkiller("data", "prepare", *train, *splits, *columns, "--out", out)


def train(runs: Path, name: str, prepared: Path, threads: int, flags: list[str]) -> Path:
    """Train a run to its end, and export it."""
    run = runs / name
    if not finished(run):
        if (run / "settings.toml").is_file():
            gkiller("train", "--out", runs, "--resume", run)
        else:
            common = ("--data", prepared, "--seed", SEED, "--threads", threads, "--out", runs, "--name", name)
            gkiller("train", *common, *flags)
    return export(run)


def finished(run: Path) -> bool:
    """Whether a run has been trained to its end."""
    return (run / "README.md").is_file() and (run / "manifest.json").is_file()


def export(run: Path) -> Path:
    """Write what is missing of a run's fp32 and int8 graphs; return the run."""
    for command, graph in (("export", "model.onnx"), ("quantize", "model.int8.onnx")):
        if not (run / "model" / "onnx" / graph).is_file():
            gkiller(command, run, may_end_with=ParityError.exit_code)  # it is then timed without that graph
    return run


def main() -> None:
    """Make what is missing, run the bench, and write its report where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What stands after -- goes to gkiller bench.",
    )
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--work", type=Path, default=Path("giant"), help="where everything is made")
    parser.add_argument("--prepared", type=Path, help="the corpora, prepared already")
    parser.add_argument("--model", type=Path, help="the run of the scorecard, instead of tiny-dendrites")
    parser.add_argument("--giant", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--set", action="append", default=[], metavar="NAME:KEY=VALUE", help="of one giant")
    parser.add_argument("--threads", type=int, default=1, help="of the trainings and the bench")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report into FILE")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, more = parser.parse_args(words[:end]), words[end + 1 :]
    runs, out = arguments.work / "runs", arguments.work / "bench"
    prepared = arguments.prepared or arguments.work / "prepared"
    prepare(arguments.data, prepared)
    tiny = [train(runs, name, prepared, arguments.threads, flags) for name, flags in TINY.items()]
    model = export(arguments.model) if arguments.model else tiny.pop()
    giants = []
    for pair in arguments.giant:
        name, _, path = pair.partition("=")
        if finished(Path(path)):
            giants.append(export(Path(path)))
            continue
        own = [one.partition(":")[2] for one in arguments.set if one.startswith(f"{name}:")]
        flags = ["--arch", "giant", "--base-model", path, *(word for one in own for word in ("--set", one))]
        giants.append(train(runs, name, prepared, arguments.threads, flags))
    rivals = [word for run in (*tiny, *giants[1:]) for word in ("--against", run)]
    base = ["--compare-base", giants[0]] if giants else []
    other = {path.stem: path for path in sorted((arguments.data / "ood").glob("*.parquet"))}
    other["civil"] = arguments.data / "valid" / "civil.parquet"
    other["test-unweighted"] = arguments.data / "test" / "jigsaw.parquet"  # --also reads no weights
    also = [word for name, path in other.items() for word in ("--also", f"{name}={path}")]
    common = ("--data", prepared, "--threads", arguments.threads, "--out", out)
    gkiller("bench", model, *base, *rivals, *also, *common, *more)
    if arguments.report:
        text = (out / "bench.md").read_text("utf-8").split("\n", 2)[2]  # without its title
        insert(arguments.report, text, "giant")


if __name__ == "__main__":
    main()
