"""Make the default model that gkiller ships, from public corpora and pretrained encoders.

    python recipes/default.py --data $DATA --teacher minilm=path/to/all-MiniLM-L6-v2 --work default

``$DATA`` holds the corpora as Parquet files (``train/*.parquet``, ``valid/jigsaw.parquet``,
``test/jigsaw.parquet``). Everything is seeded. The steps are commands, each printed before it runs; what is
there already is not made again, and a training that was stopped goes on:

1. The six labels, from the comments of Wikipedia and Civil Comments and from gkiller's own: its sample, and
   comments about groups of people (``recipes/corpora.py``).
2. An encoder: word vectors of the first teacher or of ``--vectors``, with ``--contextual-epochs`` what that
   makes of words in every comment, then masked-language pretraining on them (``recipes/pretrain.py``); with
   ``--vocab-size`` of a vocabulary of its own.
3. Teachers: each ``--teacher`` fine-tuned on the six labels; a ``--public`` one without gkiller's comments.
   One that is a finished run, such as a giant's of ``experiments/giant.py``, or a file of scores is taken as
   it is.
4. The model: the encoder, learning from labels and teachers on the labelled comments and from teachers alone
   on all others and on mixtures of the domain's own (``recipes/mixtures.py``), a share of the comments
   changed in each epoch (typing errors, obfuscation, other groups of people named); dendrites last, kept
   where validation gains more than they cost. With ``--more`` it learns more of gkiller's comments about
   groups at once, and their labels as a teacher's scores too. Without it, where some teachers are
   ``--public``, a second training follows, from the others alone and with more comments about groups: the
   public corpora teach that the names of groups are insults.
5. Its graphs, fp32 and int8, the latter of 7-bit weights, which score the same without VNNI.

``--without STEP`` leaves a step out, for the ablation: "own" (gkiller's comments), "contextual" and
"pretraining" (of step 2), "vectors" (no step 2), "augmentation", "transfer" (labelled comments alone),
"mixtures", "teachers" (labels alone) or "dendrites".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from commands import command, export, finished, settings, settings_of, train
from corpora import LABELLED

TEACHER = ("train.epochs=1", "train.lr=1e-4", "train.class_weights=none", "train.augment=0.2")
STUDENT = (
    "train.epochs=6",
    "train.class_weights=none",
    "train.augment=0.3",
    "train.token_dropout=0.05",
    "model.dropout=0",
    "dendrites.min_gain=0.002",
)
"""Settings of the model. A dendrite on each Linear doubles the products: it has to earn more than noise."""
AFTERWARDS = ("train.epochs=3", "train.lr=5e-4", "distill.transfer_rows=40000")
"""Settings of its second training, where there is one."""
OWN = "own-more:"
"""What the ids of gkiller's own comments begin with, where there are more of them."""
SURE = (0.01, 0.95)
"""Scores that stand for a label's 0 and 1: about the medians of the first recipe's teachers."""
TEXT = pa.schema([("text", pa.large_string())])
STEPS = ("own", "vectors", "contextual", "pretraining", "augmentation", "teachers", "transfer", "mixtures", "dendrites")
MIXTURES = 100_000
TOKENIZERS = Path(__file__).parents[1] / "tools" / "train_tokenizer.py"
MIXED = (*LABELLED, "wiki_context")
"""Corpora of the domain, whose comments are mixed."""


def prepare(data: Path, work: Path, *, own: bool = True, more: bool = False) -> Path:
    """Prepare the six labels, with gkiller's own comments, more of them, or none; return the directory."""
    kind = ("-more" if more else "") if own else "-public"
    out = work / f"prepared{kind}"
    if not (out / "manifest.json").is_file():
        flags = {"": ["--with-own"], "-more": ["--with-own", "--with-more"], "-public": []}[kind]
        command(Path(__file__).with_name("corpora.py"), "--data", data, "--out", out, *flags)
    return out


def own_comments(data: Path) -> pa.Table:
    """Return gkiller's own comments among the training comments of data with more of them."""
    table = pq.read_table(data / "train.parquet")
    return table.filter(pc.starts_with(table["id"], OWN))


def write_labels(data: Path, out: Path) -> None:
    """Write the labels of gkiller's own training comments as a teacher's scores."""
    own = own_comments(data)
    labels = json.loads((data / "manifest.json").read_text("utf-8"))["labels"]
    columns = [pc.if_else(pc.equal(own[label], 1), SURE[1], SURE[0]) for label in labels]
    pq.write_table(pa.table([own["id"], *columns], ["id", *labels]), out)


def transfer(data: Path, work: Path, mixed: int = 0) -> Path:
    """Write the comments of the other corpora and so many mixtures, without labels; return the file."""
    target = work / (f"transfer-{mixed}.parquet" if mixed else "transfer.parquet")
    if not target.is_file():
        paths = [path for path in sorted((data / "train").glob("*.parquet")) if path.stem not in LABELLED]
        if mixed:
            paths.append(work / f"mixtures-{mixed}.parquet")
            sources = [path for name in MIXED if (path := data / "train" / f"{name}.parquet").is_file()]
            command(Path(__file__).with_name("mixtures.py"), *sources, "--rows", mixed, "--out", paths[-1])
        texts = [pq.read_table(path, columns=["text"]).cast(TEXT) for path in paths]
        pq.write_table(pa.concat_tables(texts), target)
    return target


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the public corpora")
    parser.add_argument("--work", type=Path, default=Path("default"), help="where everything is made")
    parser.add_argument("--teacher", action="append", default=[], metavar="NAME=DIR", help="repeatable")
    parser.add_argument(
        "--vectors", metavar="DIR", help="pretrained encoder of the word vectors, instead of the first teacher"
    )
    parser.add_argument("--teacher-set", action="append", default=[], metavar="NAME:KEY=VALUE", help="of one teacher")
    parser.add_argument(
        "--public", action="append", default=[], metavar="NAME", help="a teacher that learns from no own comments"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the teachers; bf16 is some times faster where the CPU has AVX512-BF16 or AMX",
    )
    parser.add_argument(
        "--contextual-epochs", type=int, default=0, help="to learn what the pretrained encoder makes of words"
    )
    parser.add_argument("--pretraining-epochs", type=int, default=1, help="with masked words")
    parser.add_argument(
        "--vocab-size", type=int, metavar="N", help="train a tokenizer of N pieces, instead of gkiller's own"
    )
    parser.add_argument(
        "--more", action="store_true", help="learn more of gkiller's comments at once, and their labels twice"
    )
    parser.add_argument("--layers", type=int, metavar="N", help="of the encoder, instead of gkiller's 2")
    parser.add_argument("--hidden", type=int, metavar="N", help="its width, instead of 128")
    parser.add_argument("--mixtures", type=int, default=MIXTURES, help="mixtures to learn from")
    parser.add_argument("--without", action="append", default=[], choices=STEPS, help="repeatable")
    parser.add_argument("--name", default="default", help="of the model's run")
    parser.add_argument("--seed", type=int, default=0, help="of the model")
    parser.add_argument("--base-seed", type=int, default=0, help="of its encoder and teachers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the model")
    parser.add_argument("--no-graphs", action="store_true", help="end before step 5")
    arguments = parser.parse_args()
    if not arguments.teacher:
        parser.error("name a pretrained encoder with --teacher")
    if arguments.vectors is None:
        arguments.vectors = arguments.teacher[0].partition("=")[2]
    if "vectors" not in arguments.without and trained(arguments.vectors):
        parser.error("the first --teacher or --vectors gives word vectors: name a pretrained encoder")
    make(arguments)


def make(arguments: argparse.Namespace) -> None:
    """Make what is missing of the steps."""
    pretrained = dict(pair.split("=", 1) for pair in arguments.teacher)
    left_out = arguments.without
    off = {"augmentation": "train.augment=0", "dendrites": "dendrites.enabled=false"}
    changed = [pair for step, pair in off.items() if step in left_out]
    flags: list[object] = ["--threads", arguments.threads, "--seed", arguments.seed]
    flags += settings((*STUDENT, *changed, *arguments.set, f"distill.precision={arguments.precision}"))
    start: object = "fresh"
    if "vectors" not in left_out:
        start = pretrain(arguments, arguments.vectors)
    teachers = {} if "teachers" in left_out else teach(arguments, pretrained)
    if teachers and "transfer" not in left_out:
        mixed = 0 if "mixtures" in left_out else arguments.mixtures
        flags += ["--transfer", transfer(arguments.data, arguments.work, mixed)]
    own, runs, chosen = "own" not in left_out, arguments.work / "runs", list(teachers.values())
    knowing = [run for name, run in teachers.items() if name not in arguments.public]
    again = not arguments.more and 0 < len(knowing) < len(chosen)
    if again:
        data = prepare(arguments.data, arguments.work, own=own)
        how = ["--data", data, "--encoder", start, *taught_by(chosen), *flags]
        first = train(runs, f"{arguments.name}-first", *how, *settings(["dendrites.enabled=false"]))
        start = first / "model"
        chosen, flags = knowing, [*flags, *settings(AFTERWARDS)]
    data = prepare(arguments.data, arguments.work, own=own, more=again or arguments.more)
    if own and arguments.more:
        chosen.append(arguments.work / "own-labels.parquet")
        write_labels(data, chosen[-1])
    how = ["--data", data, "--encoder", start, *taught_by(chosen), *flags]
    run = train(runs, arguments.name, *how)
    if not arguments.no_graphs:
        export(run, int8=("--portable",))


def taught_by(teachers: Sequence[Path]) -> list[object]:
    """Return flags that name teachers."""
    return [word for run in teachers for word in ("--teacher", run)]


def trained(teacher: str) -> bool:
    """Whether a teacher needs no training: a finished run, or a file of scores."""
    return finished(Path(teacher)) or Path(teacher).is_file()


def pretrain(arguments: argparse.Namespace, teacher: str) -> Path:
    """Make the encoder to start from; return its directory."""
    epochs = 0 if "pretraining" in arguments.without else arguments.pretraining_epochs
    contextual = 0 if "contextual" in arguments.without else arguments.contextual_epochs
    encoder: Path = arguments.work / f"encoder-{epochs}-{arguments.base_seed}"
    comments = arguments.data / "train"
    corpora = sorted(comments.glob("*.parquet"))
    how: list[object] = ["--epochs", epochs, "--seed", arguments.base_seed, "--threads", arguments.threads]
    for name in ("layers", "hidden"):
        if (number := getattr(arguments, name)) is not None:
            encoder = encoder.with_name(f"{encoder.name}-{name}-{number}")
            how += [f"--{name}", number]
    if contextual:
        encoder = encoder.with_name(f"{encoder.name}-contextual-{contextual}")
        how += ["--contextual-epochs", contextual]
        how += ["--precision", "bf16" if arguments.precision == "bf16" else "fp32"]
    if (size := arguments.vocab_size) is not None:
        encoder = encoder.with_name(f"{encoder.name}-{size}")
        tokenizer = arguments.work / f"tokenizer-{size}.json"
        if not tokenizer.is_file():
            tokenizer.parent.mkdir(parents=True, exist_ok=True)
            command(TOKENIZERS, comments, "--vocab-size", size, "--out", tokenizer)
        how += ["--tokenizer", tokenizer]
    command(Path(__file__).with_name("pretrain.py"), *corpora, "--teacher", teacher, "--out", encoder, *how)
    return encoder


def teach(arguments: argparse.Namespace, pretrained: Mapping[str, str]) -> dict[str, Path]:
    """Fine-tune the teachers; return their runs by name."""
    runs = {}
    for name, path in pretrained.items():
        if trained(path):
            runs[name] = Path(path)
            continue
        own = "own" not in arguments.without and name not in arguments.public
        data = prepare(arguments.data, arguments.work, own=own)
        how = settings((*TEACHER, f"train.precision={arguments.precision}"))
        how += settings_of(name, arguments.teacher_set)
        giant = ("--arch", "giant", "--base-model", path, "--seed", arguments.base_seed, *how)
        run = f"teacher-{name}-{arguments.base_seed}{data.name.removeprefix('prepared')}"
        where = ("--data", data, "--threads", arguments.threads)
        runs[name] = train(arguments.work / "runs", run, *where, *giant)
    return runs


if __name__ == "__main__":
    main()
