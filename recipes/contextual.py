"""Learn what a large pretrained model makes of words in their comments, whatever its vocabulary.

Words are what blanks set apart, so two tokenizers agree on them where they cut within. For every word that
both read, the small network's vector (the mean of its last layer over the word's tokens, projected linearly
to the large one's width) is drawn towards the large one's, normalised over its width: mean squared error.
The same is done for the mean over a comment, by cosine. Jiao et al. 2020 (TinyBERT, arXiv:1909.10351) call
learning a pretrained model's hidden states on unlabelled text general distillation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from gkiller.tokens.batches import Tokens, end_to_end
from gkiller.tokens.wordpiece import special_ids

AT_ONCE = 4096
"""Comments that are tokenized at once."""
NO_WORD = -1
LAST_BLANK, NO_BREAK_SPACE = 0x20, 0xA0


@dataclass(frozen=True)
class Words:
    """The tokens of comments, and the word of its comment that each belongs to.

    Attributes:
        tokens: of the comments.
        places: as many numbers: of the word within its comment, `NO_WORD` for a special token.
    """

    tokens: Tokens
    places: Tokens

    def batch(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, mask and words' places of some comments, each (rows, longest)."""
        ids, mask = self.tokens.pad_batch(rows)
        places, _ = self.places.pad_batch(rows)
        return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(places)


def in_words(tokenizer: Tokenizer, texts: Sequence[str]) -> Words:
    """Tokenize comments, and find the words that tokens belong to; truncation is the tokenizer's own."""
    ids: list[list[int]] = []
    places: list[list[int]] = []
    for start in range(0, len(texts), AT_ONCE):
        some = list(texts[start : start + AT_ONCE])
        for text, found in zip(some, tokenizer.encode_batch(some), strict=True):
            starts = [begin for begin, _ in found.offsets]
            of_token = np.append(word_numbers(text), 0)[starts]  # a special token of no text begins at 0
            special = np.array(found.special_tokens_mask, bool)
            ids.append(found.ids)
            places.append(np.where(special, NO_WORD, of_token).tolist())
    return Words(end_to_end(ids, max(0, special_ids(tokenizer).pad)), end_to_end(places, NO_WORD))


def word_numbers(text: str) -> npt.NDArray[np.int64]:
    """Return for each character the number of the word that it is in, from 1; a blank's is the last."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    blank = (codes <= LAST_BLANK) | (codes == NO_BREAK_SPACE)
    return np.cumsum(~blank & np.append(True, blank)[:-1], dtype=np.int64)


def word_means(states: Tensor, places: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the mean of the states of each word, and whether there is such a word.

    Args:
        states: (rows, tokens, width).
        places: (rows, tokens), below ``most``; negative where there is no word.
        most: words that there may be in a row.

    Returns:
        (rows x most, width) and (rows x most,).
    """
    rows, width = len(states), states.shape[-1]
    real = places >= 0
    which = (places + torch.arange(rows)[:, None] * most)[real]
    sums = torch.zeros(rows * most, width).index_add(0, which, states[real])
    tokens = torch.bincount(which, minlength=rows * most)
    return sums / tokens.clamp(min=1)[:, None], tokens > 0


def means(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each row's states over its tokens, (rows, width)."""
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@dataclass
class Contextual:
    """What a small network learns of a large one.

    Attributes:
        network: what is trained: the encoder, and the projections of its words and comments.
        own: the comments in the network's tokens.
        theirs: the same comments in the teacher's.
        teacher: the pretrained model, in fp32 or bf16.
        sums: of both losses, and the steps.
    """

    network: nn.ModuleDict
    own: Words
    theirs: Words
    teacher: PreTrainedModel
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    @classmethod
    def of(cls, encoder: PreTrainedModel, own: Words, theirs: Words, teacher: PreTrainedModel) -> Contextual:
        """Return it for an encoder, with projections drawn at random."""
        width, target = encoder.config.hidden_size, teacher.config.hidden_size
        ways = {name: nn.Linear(width, target) for name in ("words", "comments")}
        return cls(nn.ModuleDict({"encoder": encoder, **ways}), own, theirs, teacher)

    @property
    def tokens(self) -> Tokens:
        """The comments, as the network reads them."""
        return self.own.tokens

    def loss(self, rows: npt.NDArray[np.int64]) -> Tensor | None:
        """Return the loss of some comments, or nothing where no word was read by both."""
        ids, mask, places = self.own.batch(rows)
        their_ids, their_mask, their_places = self.theirs.batch(rows)
        with torch.no_grad():
            target = self.teacher(input_ids=their_ids, attention_mask=their_mask)[0].float()
        most = int(max(places.max(), their_places.max())) + 1
        states = self.network["encoder"](input_ids=ids, attention_mask=mask)[0]
        own, read = word_means(states, places, most)
        wanted, known = word_means(target, their_places, most)
        both = read & known
        if not both.any():
            return None
        wanted = nn.functional.layer_norm(wanted[both], wanted.shape[-1:])
        words = nn.functional.mse_loss(self.network["words"](own[both]), wanted)
        whole = self.network["comments"](means(states, mask))
        comments = 1 - nn.functional.cosine_similarity(whole, means(target, their_mask)).mean()
        for place, value in enumerate((words, comments, torch.ones(()))):
            self.sums[place] += float(value.detach())
        return words + comments

    def told(self) -> str:
        """Return what an epoch came to, and forget it."""
        words, comments, steps = self.sums
        self.sums = [0.0, 0.0, 0.0]
        return f"words' squared error {words / steps:.4f}, comments' cosine {1 - comments / steps:.4f}"
