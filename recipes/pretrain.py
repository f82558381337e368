"""Make an encoder to start from: word vectors of a large model, what it makes of comments, masked words.

    python recipes/pretrain.py comments.parquet more.parquet --teacher path/to/all-MiniLM-L6-v2 --out encoder

The directory that it writes is one for ``gkiller train --encoder encoder``: config.json, model.safetensors
and tokenizer.json, gkiller's own that also reads disguised words (``recipes/disguises.py``). Its steps:

1. **Word vectors.** A token of gkiller's vocabulary gets what the teacher makes of the token's text alone:
   the mean of its last layer, of unit length (as in Tulkens and van Dongen 2024, Model2Vec); all are
   projected on their first principal components and scaled. ``--teacher`` may be left out: they are drawn
   at random then.
2. **Words in context**: with ``--contextual-epochs`` the network learns what the teacher makes of every word
   in its comment, and of the comment (``recipes/contextual.py``).
3. **Masked-language pretraining** (Devlin et al. 2019, arXiv:1810.04805): of 15 % of the tokens, 80 % are
   masked, 10 % replaced and 10 % kept, drawn anew each epoch; the network says what they were. AdamW with
   warm-up and linear decay, as in the step before. ``--epochs 0`` leaves it out.

The comments' labels are not read. Every epoch ends with a checkpoint beside the output; the same command goes
on after it. The same seed and threads give the same bytes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from contextual import Contextual, in_words, means
from disguises import reading_disguises
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertForMaskedLM, PreTrainedModel

from gkiller.assets import tokenizer_path
from gkiller.model.layout import usable_positions
from gkiller.settings import ModelSettings
from gkiller.storage.files import atomic_directory
from gkiller.tokens.batches import Tokens, tokenize, training_batches
from gkiller.tokens.wordpiece import parse_tokenizer, special_ids
from gkiller.training.checkpoint import load_weights, save_weights
from gkiller.training.losses import build_optimizer
from gkiller.training.runtime import seed_everything

SHAPE = ModelSettings()
HEAD_WIDTH, FFN_TIMES = SHAPE.hidden // SHAPE.heads, SHAPE.ffn // SHAPE.hidden
"""Of BERT's sizes: the width of a head, and how many times as wide as the network its inner layers are."""
MASKED, AS_MASK, AS_RANDOM = 0.15, 0.8, 0.1
EMBEDDING_STD = 0.05
AT_ONCE = 256
"""Tokens whose vectors are made at once."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WARM_UP = 0.05
WEIGHT_DECAY = 0.01
EPOCH_STRIDE = 100_003
"""The seeds of an epoch follow each other at this distance from one ``--seed`` to the next."""


class Objective(Protocol):
    """What a network learns of comments."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def tokens(self) -> Tokens:
        """The comments, as the network reads them."""

    def loss(self, rows: npt.NDArray[np.int64]) -> Tensor | None:
        """Return the loss of some comments, or nothing where there is nothing to learn."""

    def told(self) -> str:
        """Return what an epoch came to, and forget it."""


@dataclass
class Masked:
    """To say what hidden tokens were.

    Attributes:
        network: with its masked-language head.
        tokens: of the comments.
        mask: id of the token that hides another.
        special: ids that are never hidden.
        losses: their sum, over hidden tokens.
        found: hidden tokens that were found.
        hidden: hidden tokens.
    """

    network: BertForMaskedLM
    tokens: Tokens
    mask: int
    special: tuple[int, ...]
    losses: float = 0.0
    found: int = 0
    hidden: int = 0

    def loss(self, rows: npt.NDArray[np.int64]) -> Tensor | None:
        """Hide tokens of some comments, and return the loss of saying what they were."""
        ids, attention = map(torch.from_numpy, self.tokens.pad_batch(rows))
        read, chosen = self._hide(ids, attention)
        if not chosen.any():
            return None
        vectors = self.network.bert(input_ids=read, attention_mask=attention)[0][chosen]
        logits, truth = self.network.cls(vectors), ids[chosen]
        loss = nn.functional.cross_entropy(logits, truth)
        self.losses += float(loss.detach()) * len(truth)
        self.found += int((logits.detach().argmax(-1) == truth).sum())
        self.hidden += len(truth)
        return loss

    def told(self) -> str:
        """Return what an epoch came to, and forget it."""
        loss, right = self.losses / self.hidden, self.found / self.hidden
        self.losses, self.found, self.hidden = 0.0, 0, 0
        return f"loss {loss:.4f}, {right:.1%} of the hidden tokens found"

    def _hide(self, ids: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ids that the network reads, and which tokens it must find."""
        real = (attention == 1) & ~torch.isin(ids, torch.tensor(self.special))
        chosen = (torch.rand(ids.shape) < MASKED) & real
        how = torch.rand(ids.shape)
        drawn = torch.randint(self.network.config.vocab_size, ids.shape)
        read = torch.where(chosen & (how < AS_MASK), self.mask, ids)
        replaced = chosen & (how >= AS_MASK) & (how < AS_MASK + AS_RANDOM)
        return torch.where(replaced, drawn, read), chosen


@dataclass(frozen=True)
class Pretraining:
    """How something is learnt.

    Attributes:
        objective: what, and from which comments.
        batch_size: comments per step.
        lr: peak learning rate.
        epochs: passes over the comments.
        seed: of the order of comments, and of what the objective draws.
    """

    objective: Objective
    batch_size: int
    lr: float
    epochs: int
    seed: int

    def run(self, folder: Path) -> None:
        """Train what is left of the epochs, with a checkpoint in a folder after each."""
        named = dict(self.objective.network.named_parameters())
        optimizer = build_optimizer(named, lr=self.lr, weight_decay=WEIGHT_DECAY)
        done = self._resume(folder, optimizer, named)
        for epoch in range(done, self.epochs):
            began = time.monotonic()
            self._epoch(optimizer, epoch)
            self._save(folder, optimizer, named, epoch + 1)
            speed = len(self.objective.tokens) / (time.monotonic() - began)
            say(f"epoch {epoch + 1} of {self.epochs}: {self.objective.told()}, {speed:,.0f} rows/s")

    def _epoch(self, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        """Train an epoch."""
        network = self.objective.network
        batches = training_batches(self.objective.tokens.lengths, self.batch_size, self.seed, epoch)
        seed_everything(self.seed * EPOCH_STRIDE + epoch)
        total = self.epochs * len(batches)
        network.train()
        for place, rows in enumerate(batches):
            step = epoch * len(batches) + place
            for group in optimizer.param_groups:
                group["lr"] = self.lr * min((step + 1) / (WARM_UP * total), (total - step) / total, 1.0)
            loss = self.objective.loss(rows)
            if loss is None:
                continue
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    def _save(
        self, folder: Path, optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], epochs: int
    ) -> None:
        state = {f"weight/{name}": parameter.detach() for name, parameter in named.items()}
        for name, parameter in named.items():
            state |= {f"{key}/{name}": value for key, value in optimizer.state[parameter].items()}
        save_weights(folder / f"epoch-{epochs:03d}", state)
        for old in sorted(folder.glob("epoch-*"))[:-1]:
            shutil.rmtree(old)

    def _resume(self, folder: Path, optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> int:
        """Take up the newest checkpoint; return the epochs that are done."""
        saved = sorted(folder.glob("epoch-*"))
        if not saved:
            return 0
        state = load_weights(saved[-1])
        for name, parameter in named.items():
            parameter.data.copy_(state.pop(f"weight/{name}"))
        for entry, value in state.items():
            key, _, name = entry.partition("/")
            optimizer.state[named[name]][key] = value.clone()
        done = int(saved[-1].name.partition("-")[2])
        say(f"going on after epoch {done}")
        return done


def comments(paths: list[Path]) -> Iterator[str]:
    """Yield the comments of Parquet files, each once."""
    seen: set[str] = set()
    for path in paths:
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist():
            if text and not text.isspace() and text not in seen:
                seen.add(text)
                yield text


def word_vectors(tokenizer: Tokenizer, teacher: Path, width: int) -> npt.NDArray[np.float32]:
    """Return vectors for a vocabulary, (tokens, width), from what a pretrained model makes of each token.

    Args:
        tokenizer: of the vocabulary.
        teacher: directory of the model, with its tokenizer.json.
        width: of the vectors: the first principal components.
    """
    theirs, model = pretrained(teacher)
    theirs.enable_padding()
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    words = [token.removeprefix("##") for token, _ in vocabulary]
    rows = np.concatenate(
        [sentence_vectors(words[at : at + AT_ONCE], theirs, model) for at in range(0, len(words), AT_ONCE)]
    )
    rows -= rows.mean(axis=0)
    _, axes = np.linalg.eigh(rows.T @ rows)
    flat = rows @ axes[:, ::-1][:, :width]
    scaled: npt.NDArray[np.float32] = (flat * (EMBEDDING_STD / flat.std())).astype(np.float32)
    return scaled


def pretrained(folder: Path, most: int | None = None, precision: str = "fp32") -> tuple[Tokenizer, PreTrainedModel]:
    """Return a pretrained model and its tokenizer, of so many tokens or as many as the model can read."""
    dtype = PRECISIONS[precision]
    model = AutoModel.from_pretrained(folder, trust_remote_code=False, dtype=dtype).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    usable = usable_positions(model.config.to_dict())
    tokenizer.enable_truncation(usable if most is None else min(usable, most))
    return tokenizer, model


@torch.inference_mode()
def sentence_vectors(texts: list[str], tokenizer: Tokenizer, model: PreTrainedModel) -> npt.NDArray[np.float64]:
    """Return the mean of a model's last layer over each text's tokens, of unit length: (texts, width)."""
    found = tokenizer.encode_batch(texts)
    mask = torch.tensor([each.attention_mask for each in found])
    layer = model(input_ids=torch.tensor([each.ids for each in found]), attention_mask=mask)[0]
    return nn.functional.normalize(means(layer, mask).double()).numpy()


def new_model(shape: ModelSettings, vocab_size: int, seed: int) -> BertForMaskedLM:
    """Return a network of random weights."""
    seed_everything(seed)
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=shape.max_length,
        hidden_dropout_prob=0.0,  # there is more text than the network can learn by heart
        attention_probs_dropout_prob=0.0,
    )
    return BertForMaskedLM(config)


def say(text: str) -> None:
    """Tell of the progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comments", type=Path, nargs="+", help="Parquet files with a column 'text'")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="a pretrained encoder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=tokenizer_path(),
        metavar="FILE",
        help="as tools/train_tokenizer.py writes it, such as one with more pieces",
    )
    parser.add_argument("--layers", type=int, default=SHAPE.layers)
    parser.add_argument("--hidden", type=int, default=SHAPE.hidden, help=f"width, {HEAD_WIDTH} for each head")
    parser.add_argument("--contextual-epochs", type=int, default=0, help="of the second step")
    parser.add_argument("--epochs", type=int, default=10, help="of the third step")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="of the teacher in the second step; bf16 is some times faster with AVX512-BF16 or AMX",
    )
    arguments = parser.parse_args()
    if arguments.hidden < HEAD_WIDTH or arguments.hidden % HEAD_WIDTH:
        parser.error(f"--hidden must be a multiple of {HEAD_WIDTH}")
    if arguments.contextual_epochs and arguments.teacher is None:
        parser.error("--contextual-epochs needs a --teacher")
    if (arguments.out / "config.json").is_file():
        say(f"{arguments.out} is there already")
        return
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    heads, ffn = arguments.hidden // HEAD_WIDTH, FFN_TIMES * arguments.hidden
    shape = ModelSettings(layers=arguments.layers, hidden=arguments.hidden, heads=heads, ffn=ffn)
    own = reading_disguises(Tokenizer.from_file(str(arguments.tokenizer)))
    tokenizer = parse_tokenizer(own.to_str(), str(arguments.tokenizer), shape.max_length)
    model = new_model(shape, tokenizer.get_vocab_size(), arguments.seed)
    if arguments.teacher is not None:
        vectors = word_vectors(tokenizer, arguments.teacher, shape.hidden)
        model.bert.embeddings.word_embeddings.weight.data.copy_(torch.from_numpy(vectors))
    folder = arguments.out.with_name(f"{arguments.out.name}.checkpoints")
    how = (arguments.batch_size, arguments.lr)
    if arguments.contextual_epochs or arguments.epochs:
        texts = list(comments(arguments.comments))
        say(f"{len(texts):,} comments")
    if arguments.contextual_epochs:
        theirs, teacher = pretrained(arguments.teacher, shape.max_length, arguments.precision)
        words = in_words(tokenizer, texts), in_words(theirs, texts)
        objective: Objective = Contextual.of(model.bert, *words, teacher)
        Pretraining(objective, *how, arguments.contextual_epochs, arguments.seed).run(folder / "contextual")
    if arguments.epochs:
        special = special_ids(tokenizer)
        if special.mask is None:
            sys.exit("the tokenizer has no token that masks another")
        objective = Masked(model, tokenize(tokenizer, texts), special.mask, tuple(special.kept))
        Pretraining(objective, *how, arguments.epochs, arguments.seed).run(folder / "masked")
    with atomic_directory(arguments.out) as temporary:
        model.bert.save_pretrained(temporary)
        own.save(str(temporary / "tokenizer.json"))
    shutil.rmtree(folder, ignore_errors=True)
    say(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
