"""Token ids, windows and batches."""

from typing import Any

import numpy as np
import pytest
from giants import roberta_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from toy import RUDE, toy_tokenizer

from gkiller.assets import tokenizer_path
from gkiller.errors import ModelFormatError
from gkiller.tokens import encoding
from gkiller.tokens.batches import BATCH_ROWS, BATCH_TOKENS, call_batches, window_starts, windowed
from gkiller.tokens.encoding import Encoder
from gkiller.tokens.visible import READINGS, visible


def folding() -> Any:
    """Return a tokenizer that changes characters before BERT's normaliser."""
    tokenizer = toy_tokenizer()
    first = [normalizers.NFKC(), normalizers.Replace("а", "a"), normalizers.Replace("é", "!")]
    tokenizer.normalizer = normalizers.Sequence([*first, tokenizer.normalizer])
    return tokenizer


def reading() -> Any:
    """Return a tokenizer that reads disguised words, among what it changes before BERT's normaliser."""
    tokenizer = toy_tokenizer()
    alike = [normalizers.Replace("а", "a"), normalizers.Replace("ø", "o")]
    undone = [normalizers.Replace(Regex(pattern), letters) for pattern, letters in READINGS]
    first = [normalizers.NFKC(), *alike, *undone]
    tokenizer.normalizer = normalizers.Sequence([*first, tokenizer.normalizer])
    return tokenizer


SHIPPED = tokenizer_path().read_text("utf-8")
REFERENCE = {"toy": toy_tokenizer(), "folding": folding(), "reading": reading(), "shipped": Tokenizer.from_str(SHIPPED)}
ENCODERS = {name: Encoder(tokenizer.to_str(), name, 128) for name, tokenizer in REFERENCE.items()}
for tokenizer in REFERENCE.values():
    tokenizer.encode_special_tokens = True

ANY = st.text(st.characters(), max_size=60)  # surrogates, NULs and all
TRICKY = st.text(
    st.sampled_from(
        [*"aаB1é́ß！½…😀中㐀豈 \t\n\r.,!'[]#", "\0", "\x1c", "\x7f", "\x85", "\u00a0", "\u2028", "\ud800", "\u200d"]
    ),
    max_size=30,
)
DISGUISED = st.text(st.sampled_from("abIø аｂ@$!01345７.-*_'’…\u00a0\u0301é³"), max_size=16)
SENTENCES = st.lists(st.sampled_from([*RUDE, "[MASK]", "don't", "##s", "Ｆull", "x" * 120, "a" * 33]), max_size=8)


@given(st.sampled_from(sorted(ENCODERS)), st.one_of(ANY, TRICKY, DISGUISED, SENTENCES.map(" ".join)))
def test_ids_are_the_tokenizer_s(name: Any, text: Any) -> None:
    expected = REFERENCE[name].encode(encoding.clean(visible(text)), add_special_tokens=False).ids
    assert ENCODERS[name].ids(text) == expected
    assert ENCODERS[name].ids(text) == expected  # from what it has kept, now


@given(st.one_of(ANY, TRICKY))
def test_words_hold_all_ids_and_know_their_place(text: Any) -> None:
    words = ENCODERS["shipped"].words(text)
    assert [token for word in words for token in word.ids] == ENCODERS["shipped"].ids(text)
    places = [place for word in words for place in (word.start, word.end)]
    assert all(0 <= place <= len(text) for place in places)
    if not set(text) & {"\u202e", "\u2067"}:
        assert [word.start for word in words] == sorted(word.start for word in words)


def test_what_is_kept_by_the_word() -> None:
    assert all(encoder.by_word for encoder in ENCODERS.values())
    for part in (normalizers.Replace("b", "a"), normalizers.Strip(), normalizers.NFKD()):
        tokenizer = toy_tokenizer()
        tokenizer.normalizer = normalizers.Sequence([part, tokenizer.normalizer])
        assert not Encoder(tokenizer.to_str(), "other", 16).by_word


def test_words_of_a_sentence() -> None:
    text = "You idiot, go"
    assert [text[w.start : w.end] for w in ENCODERS["shipped"].words(text)] == ["You", "idiot", ",", "go"]


def test_words_that_are_disguised_keep_their_places() -> None:
    text = "You 1d1ot, i.d.i.o.t or i d i o t"
    words = ENCODERS["reading"].words(text)
    assert [text[w.start : w.end] for w in words] == ["You", "1d1ot", ",", "i.d.i.o.t", "or", "i d i o t"]
    assert words[1].ids == words[3].ids == words[5].ids == ENCODERS["toy"].ids("idiot")


def test_a_long_word_takes_time_that_grows_with_its_length_alone() -> None:
    """Copying its pieces for each new one would take an hour."""
    [word] = Encoder(roberta_tokenizer().to_str(), "roberta", 16).words("q" * 1_000_000)
    assert (word.start, word.end, len(word.ids)) == (0, 1_000_000, 1_000_000)


def test_clean_keeps_the_length() -> None:
    assert encoding.clean("a\ud800b\udfff") == "a\ufffdb\ufffd"


def test_kept_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_KEPT_WORDS", 10)
    encoder = Encoder(toy_tokenizer().to_str(), "toy", 16)
    for number in range(100):
        encoder.ids(f"{number} {'y' * 40}")
        assert len(encoder._words) <= 10
    seeing = Encoder(reading().to_str(), "reading", 16)
    for number in range(100):
        seeing.ids(chr(0x4E00 + number))
        assert len(seeing._disguises._seen) <= 10
    assert all(len(word) <= 32 for word in encoder._words)


@given(ANY)
@example("[CLS]")
def test_another_kind_of_tokenizer_is_asked_for_the_whole(text: Any) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = Encoder(tokenizer.to_str(), "toy", 16)
    tokenizer.encode_special_tokens = True  # "[CLS]" written out is ordinary text
    assert encoder.ids(text) == tokenizer.encode(encoding.clean(visible(text)), add_special_tokens=False).ids


def test_broken_tokenizers_are_refused() -> None:
    bare = toy_tokenizer()
    bare.post_processor = None
    small = '{"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a"}}'
    for text, message in ((bare.to_str(), r"does not put \[CLS\]"), ("{", "not a tokenizer"), (small, "not a|has no")):
        with pytest.raises(ModelFormatError, match=message):
            Encoder(text, "toy", 16)


@given(st.integers(0, 5000), st.integers(1, 200))
def test_windows_cover_every_token(tokens: Any, size: Any) -> None:
    starts = window_starts(tokens, size)
    covered = {t for start in starts for t in range(start, min(start + size, tokens))}
    assert covered == set(range(tokens))
    assert starts[0] == 0
    assert starts[-1] == max(0, tokens - size)
    if len(starts) > 1:
        assert np.diff(starts).max() <= max(1, size - size // 8)
        assert np.diff(starts).min() >= 1


ids_lists = st.lists(st.lists(st.integers(5, 60), max_size=70), max_size=40)


@given(ids_lists, st.integers(1, 20), st.sampled_from(["window", "truncate"]))
def test_batches_hold_every_window_once_padded_on_the_right(ids: Any, size: Any, long_text: Any) -> None:
    encoder = ENCODERS["toy"]
    read = windowed(ids, size + 2, [encoder.cls], [encoder.sep], encoder.pad, long_text)
    owner = np.repeat(np.arange(len(ids)), read.count)
    firsts = [window_starts(len(own), size) if long_text == "window" else [0] for own in ids]
    first = [int(start) for starts in firsts for start in starts]
    seen = []
    pieces: Any = [[] for _ in ids]
    for rows in call_batches(read.tokens.lengths):
        tokens, mask = read.tokens.pad_batch(rows)
        assert len(rows) <= BATCH_ROWS
        assert tokens.size <= max(BATCH_TOKENS, tokens.shape[1])
        for row, line, real in zip(rows, tokens, mask, strict=True):
            n = int(real.sum())
            assert real.tolist() == [1] * n + [0] * (len(real) - n)
            assert (line[0], line[n - 1]) == (encoder.cls, encoder.sep)
            assert (line[n:] == encoder.pad).all()
            pieces[owner[row]].append((first[row], line[1 : n - 1].tolist()))
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(owner)))
    for position, (tokens, found) in enumerate(zip(ids, pieces, strict=True)):
        assert len(found) == read.count[position]
        covered: dict[Any, Any] = {}
        for start, piece in found:
            covered |= {start + k: token for k, token in enumerate(piece)}
        kept = tokens if long_text == "window" else tokens[:size]
        assert covered == dict(enumerate(kept))
        assert read.truncated[position] == (long_text == "truncate" and len(tokens) > size)
