"""Make the default model that gkiller ships, from public corpora and pretrained encoders.

    python recipes/default.py --data $DATA --teacher minilm=path/to/all-MiniLM-L6-v2 --work default

``$DATA`` holds the corpora as Parquet files (``train/*.parquet``, ``valid/jigsaw.parquet``,
``test/jigsaw.parquet``). Everything is seeded. The steps are commands, each printed before it runs; what is
there already is not made again, and a training that was stopped goes on:

1. The six labels, from the comments of Wikipedia and Civil Comments, unknown where a corpus does not have
   them. Other corpora mean other things by their labels, so that their comments are read without them.
2. An encoder: the first teacher's word vectors, then masked-language pretraining on every comment
   (``recipes/pretrain.py``).
3. Teachers: each ``--teacher`` fine-tuned on the six labels.
4. The model: the encoder, learning from labels and teachers on the labelled comments and from teachers alone
   on all others; dendrites last, kept where validation gains more than they cost.
5. Its graphs, fp32 and int8.

``--without STEP`` leaves a step out, for the ablation: "pretraining" (word vectors alone), "vectors" (no
step 2), "transfer" (labelled comments alone) or "teachers" (labels alone).
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LABELS = {
    "toxicity": "label",
    "severe_toxicity": "severe_toxic",
    "obscene": "obscene",
    "threat": "threat",
    "insult": "insult",
    "identity_attack": "identity_hate",
}
"""Of the model, with the corpora's names for them."""
LABELLED = ("jigsaw", "civil")
TEACHER = ("train.epochs=1", "train.lr=1e-4", "train.class_weights=none")
STUDENT = ("train.epochs=5", "train.class_weights=none", "dendrites.min_gain=0.002")
"""Settings of the model. A dendrite on each Linear doubles the products: it has to earn more than noise."""
STEPS = ("vectors", "pretraining", "teachers", "transfer")


def command(*words: object) -> None:
    """Run a program of this Python, and say which; its failure is this program's too."""
    line = [str(word) for word in words]
    sys.stderr.write(f"$ python {shlex.join(line)}\n")
    status = subprocess.run([sys.executable, *line], check=False).returncode
    if status:
        sys.exit(status)


def gkiller(*words: object) -> None:
    """Run a command of gkiller."""
    command("-m", "gkiller", *words)


def six_labels(source: Path, target: Path) -> Path:
    """Write a corpus with all six labels, unknown where it does not have them; return the file."""
    if target.is_file():
        return target
    table = pq.read_table(source)
    columns = {"text": table["text"]}
    for label, name in LABELS.items():
        known = table[name].cast(pa.int8()) if name in table.column_names else pa.nulls(len(table), pa.int8())
        columns[label] = known
    if "weight" in table.column_names:
        columns["weight"] = table["weight"]
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), target)
    return target


def prepare(data: Path, work: Path) -> Path:
    """Prepare the six labels; return the directory."""
    out = work / "prepared"
    if (out / "manifest.json").is_file():
        return out
    train = [six_labels(data / "train" / f"{n}.parquet", work / "six" / f"{n}.parquet") for n in LABELLED]
    splits = [
        word
        for name in ("valid", "test")
        for word in (
            f"--{name}",
            six_labels(data / name / "jigsaw.parquet", work / "six" / f"{name}.parquet"),
        )
    ]
    columns = ("--label-columns", ",".join(LABELS), "--weight-column", "weight")
    gkiller("data", "prepare", *train, *splits, *columns, "--out", out)
    return out


def transfer(data: Path, work: Path) -> Path:
    """Write the comments of the other corpora, without labels; return the file."""
    target = work / "transfer.parquet"
    if not target.is_file():
        paths = [path for path in sorted((data / "train").glob("*.parquet")) if path.stem not in LABELLED]
        pq.write_table(pa.concat_tables([pq.read_table(path, columns=["text"]) for path in paths]), target)
    return target


def train(runs: Path, name: str, *flags: object) -> Path:
    """Train a run to its end; return it."""
    run = runs / name
    if (run / "README.md").is_file():
        return run
    if (run / "settings.toml").is_file():
        gkiller("train", "--out", runs, "--resume", run)
    else:
        gkiller("train", "--out", runs, "--name", name, *flags)
    return run


def settings(pairs: Sequence[str]) -> list[object]:
    """Return flags that set what the pairs say."""
    return [word for pair in pairs for word in ("--set", pair)]


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--work", type=Path, default=Path("default"), help="where everything is made")
    parser.add_argument("--teacher", action="append", default=[], metavar="NAME=DIR", help="repeatable")
    parser.add_argument(
        "--teacher-set", action="append", default=[], metavar="NAME:KEY=VALUE", help="of one teacher"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the teachers; bf16 is some times faster where the CPU has AVX512-BF16 or AMX",
    )
    parser.add_argument("--pretraining-epochs", type=int, default=1)
    parser.add_argument("--without", action="append", default=[], choices=STEPS, help="repeatable")
    parser.add_argument("--name", default="default", help="of the model's run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the model")
    arguments = parser.parse_args()
    data, work = arguments.data, arguments.work
    teachers = dict(pair.split("=", 1) for pair in arguments.teacher)
    if not teachers:
        parser.error("name a pretrained encoder with --teacher")
    prepared, runs = prepare(data, work), work / "runs"
    common = ("--data", prepared, "--seed", arguments.seed, "--threads", arguments.threads)
    flags: list[object] = settings((*STUDENT, *arguments.set))
    if "vectors" not in arguments.without:
        epochs = 0 if "pretraining" in arguments.without else arguments.pretraining_epochs
        encoder = work / f"encoder-{epochs}-{arguments.seed}"
        corpora = sorted((data / "train").glob("*.parquet"))
        script = Path(__file__).with_name("pretrain.py")
        how = ("--epochs", epochs, "--seed", arguments.seed, "--threads", arguments.threads)
        command(script, *corpora, "--teacher", next(iter(teachers.values())), "--out", encoder, *how)
        flags += ["--encoder", encoder]
    if "teachers" not in arguments.without:
        for name, path in teachers.items():
            own = [one.partition(":")[2] for one in arguments.teacher_set if one.startswith(f"{name}:")]
            how = settings((*TEACHER, f"train.precision={arguments.precision}", *own))
            giant = ("--arch", "giant", "--base-model", path, *how)
            flags += ["--teacher", train(runs, f"teacher-{name}-{arguments.seed}", *common, *giant)]
        flags += settings([f"distill.precision={arguments.precision}"])
        if "transfer" not in arguments.without:
            flags += ["--transfer", transfer(data, work)]
    run = train(runs, arguments.name, *common, *flags)
    for step, graph in (("export", "model.onnx"), ("quantize", "model.int8.onnx")):
        if not (run / "model" / "onnx" / graph).is_file():
            gkiller(step, run)


if __name__ == "__main__":
    main()
