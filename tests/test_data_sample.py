"""The embedded sample: what it promises about labels, splits, distinctness and difficulty."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from make_sample import (
    ROWS_PER_KIND,
    Grammar,
    add_noise,
    disguise,
    expand,
    fold,
    is_obscene,
    load_grammar,
    made,
    shuffled,
    stable_random,
)

from gkiller.assets import asset_path
from gkiller.data.sample import (
    SAMPLE_LABELS,
    SampleRow,
    row_text,
    sample_dataset,
    sample_fingerprint,
    sample_manifest,
    sample_rows,
)

SPLITS = ("train", "valid", "test")
TOXIC_KINDS = {
    "insult",
    "profane_insult",
    "severe",
    "threat",
    "identity_attack",
    "hostility",
    "sarcasm",
    "condescension",
    "implied_threat",
    "obfuscated",
}
# Changes whenever the hand-written files or the generator change, and only then.
FINGERPRINT = "9357e685e10bc4aff43e064ff91beedac681089eb6209e2ab59bae3417d4c708"


@pytest.fixture(scope="module")
def rows() -> list[SampleRow]:
    return sample_rows()


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return load_grammar()


def test_size_and_lengths(rows: list[SampleRow]) -> None:
    assert len(rows) == sum(ROWS_PER_KIND.values()) >= 6000
    lengths = [len(row.text.split()) for row in rows]
    assert min(lengths) >= 3
    assert max(lengths) <= 60
    assert np.quantile(lengths, 0.1) <= 10
    assert np.quantile(lengths, 0.9) >= 22


def test_ids_are_unique_and_texts_clean(rows: list[SampleRow]) -> None:
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.text == row.text.strip()
        assert not re.search(r"[{}\[\]|\x00-\x1f]", row.text), row.text


def test_no_duplicates_within_or_across_splits(rows: list[SampleRow]) -> None:
    assert len({fold(row.text) for row in rows}) == len(rows)


def test_every_frame_is_in_one_split(rows: list[SampleRow]) -> None:
    splits = defaultdict(set)
    for row in rows:
        for frame in row.frame.split("+"):
            splits[frame].add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) >= 600


def test_every_situation_is_in_one_split(rows: list[SampleRow], grammar: Any) -> None:
    """The fixed part of a situation never shows up in a second split."""
    splits = defaultdict(set)
    fixed = [item.text for item in grammar.situations if "{" not in item.text and len(item.text) > 18]
    for row in rows:
        for text in fixed:
            if text.lower().rstrip(".") in row.text.lower():
                splits[text].add(row.split)
    assert len(splits) > 10
    assert all(len(found) == 1 for found in splits.values()), splits


def test_shares_of_the_splits(rows: list[SampleRow]) -> None:
    counts = Counter(row.split for row in rows)
    assert set(counts) == set(SPLITS)
    assert 0.65 <= counts["train"] / len(rows) <= 0.8
    assert 0.1 <= counts["valid"] / len(rows) <= 0.2
    assert 0.1 <= counts["test"] / len(rows) <= 0.2


def test_toxicity_is_rare_everywhere(rows: list[SampleRow]) -> None:
    for split in SPLITS:
        part = [row.labels["toxicity"] for row in rows if row.split == split]
        assert 0.06 <= np.mean(part) <= 0.10, split


def test_each_label_is_positive_in_each_split(rows: list[SampleRow]) -> None:
    for split in SPLITS:
        for label in SAMPLE_LABELS:
            assert sum(row.labels[label] for row in rows if row.split == split) >= 10, (split, label)


def test_each_kind_is_in_each_split(rows: list[SampleRow]) -> None:
    for split in SPLITS:
        assert {row.kind for row in rows if row.split == split} == set(ROWS_PER_KIND)


def test_labels_cohere(rows: list[SampleRow]) -> None:
    for row in rows:
        assert tuple(row.labels) == SAMPLE_LABELS
        assert set(row.labels.values()) <= {0, 1}
        assert row.labels["toxicity"] == int(row.kind in TOXIC_KINDS)
        special = [row.labels[label] for label in SAMPLE_LABELS if label not in ("toxicity", "obscene")]
        assert row.labels["toxicity"] >= max(special), row


def test_obscene_goes_with_words_not_with_toxicity(rows: list[SampleRow]) -> None:
    seen = {(row.labels["obscene"], row.labels["toxicity"]) for row in rows}
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}
    obscene = Counter(row.kind for row in rows if row.labels["obscene"])
    assert obscene["friendly_profanity"] > 50
    assert not obscene["plain"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What a shot, holy SHIT!", True),
        ('"Dumbass," he said.', True),
        ("\x01shit\x02, I forgot", True),
        ("You f***ing genius", True),
        ("Damn, bloody hell, crap.", False),
        ("The class assessed a cocktail in Scunthorpe", False),
    ],
)
def test_is_obscene(text: str, expected: bool, grammar: Any) -> None:
    assert is_obscene(text, grammar.obscene) is expected


def test_harsh_words_are_shared_by_toxic_and_harmless(rows: list[SampleRow], grammar: Any) -> None:
    harmless = " ".join(row.text.lower() for row in rows if not row.labels["toxicity"])
    toxic = " ".join(row.text.lower() for row in rows if row.labels["toxicity"])
    words = [*grammar.fillers["insult"], *grammar.fillers["nasty"], *grammar.fillers["dull"]]
    shared = [word for word in words if word in harmless and word in toxic]
    assert len(shared) >= 0.9 * len(words)


def test_the_shipped_rows_are_what_the_frames_give_and_another_seed_gives_others(rows: list[SampleRow]) -> None:
    assert made() == rows
    assert sample_fingerprint(made(1)) != sample_fingerprint(rows)


def test_the_shipped_file_is_what_the_tool_writes() -> None:
    text = gzip.decompress(asset_path("sample.jsonl.gz").read_bytes())
    assert text == "".join(f"{row_text(row)}\n" for row in made()).encode()


def test_fingerprint_is_pinned(rows: list[SampleRow]) -> None:
    assert sample_fingerprint(rows) == FINGERPRINT


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_seeds_keep_the_promises(seed: int) -> None:
    rows = made(seed)
    assert len(rows) == sum(ROWS_PER_KIND.values())
    assert len({fold(row.text) for row in rows}) == len(rows)
    for split in SPLITS:
        part = [row for row in rows if row.split == split]
        assert 0.05 <= np.mean([row.labels["toxicity"] for row in part]) <= 0.12
        assert all(sum(row.labels[label] for row in part) >= 5 for label in SAMPLE_LABELS)


def test_dataset(rows: list[SampleRow]) -> None:
    dataset = sample_dataset()
    assert dataset.labels == SAMPLE_LABELS
    assert set(dataset.splits) == set(SPLITS)
    for name, split in dataset.splits.items():
        part = [row for row in rows if row.split == name]
        assert split.texts == [row.text for row in part]
        assert split.labels.dtype == np.float32
        assert split.labels[:, 0].tolist() == [row.labels["toxicity"] for row in part]
        assert (split.weights == 1.0).all()


def test_manifest_says_that_it_is_synthetic(rows: list[SampleRow]) -> None:
    manifest = sample_manifest(rows)
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["source"] == "sample"
    assert manifest["synthetic"] is True
    assert "Synthetic" in manifest["note"]
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["rows"] == len(rows) == sum(part["rows"] for part in manifest["splits"].values())
    assert manifest["fingerprint"] == FINGERPRINT
    test = manifest["splits"]["test"]
    assert test["label_rates"]["toxicity"] == test["positives"]["toxicity"] / test["rows"]


def test_hand_written_frames_are_distinct(grammar: Any) -> None:
    bare = Counter(re.sub(r"\{[^}]*\}", "", frame.text).casefold() for frame in grammar.frames)
    words = [text for text, count in bare.items() if count > 1 and len(text.split()) > 4]
    assert not words
    assert len({frame.text for frame in grammar.frames}) == len(grammar.frames) >= 600
    for text in (item.text for item in grammar.situations):
        assert [item.text for item in grammar.situations].count(text) == 1


def test_frames_name_known_slots_kinds_and_settings(grammar: Any) -> None:
    templates = [frame.text for frame in grammar.frames] + [item.text for item in grammar.situations]
    forms = {"a", "s", "cap", "obf"}
    for text in templates:
        assert text == text.strip() != ""
        for slot in re.findall(r"\{([^}]*)\}", text):
            names = [part for part in slot.split(":") if part not in forms]
            assert len(names) == 1, text
            assert names[0] in grammar.fillers, text
    assert {frame.kind for frame in grammar.frames} == set(ROWS_PER_KIND)
    assert {frame.setting for frame in grammar.frames} <= {"game", "forum", "news", "talk", "review", "any"}
    for frame in grammar.frames:
        assert ("toxicity" in frame.labels) is (frame.kind in TOXIC_KINDS)


def test_every_place_has_a_situation_for_each_split(grammar: Any) -> None:
    sizes = Counter((item.place, item.setting) for item in grammar.situations)
    assert min(sizes.values()) >= 7


def test_real_identities_are_never_attacked(grammar: Any) -> None:
    for frame in grammar.frames:
        if frame.kind in TOXIC_KINDS:
            assert "{identit" not in frame.text
            assert "{a:identity}" not in frame.text


def test_expand_forms(grammar: Any) -> None:
    small = Grammar((), (), {"thing": ("apple",), "folk": ("spy",), "irregular": ("halfwit/halves",)}, frozenset())
    rng = stable_random("forms")
    assert expand(["{a:thing} and {folk:s}"], small, rng) == "An apple and spies"
    assert expand(["{folk:cap}. {irregular:s}"], small, rng) == "Spy. Halves"
    assert expand(["Such {a:obf:thing}"], small, rng) == "Such an \x01apple\x02"
    assert expand(["[one|one] {thing}"], small, rng) == "One apple"


def test_slots_differ_within_a_frame_and_agree_across_frames(grammar: Any) -> None:
    for attempt in range(30):
        rng = stable_random("slots", attempt)
        first, second = expand(["{town} or {town}"], grammar, rng).split(" or ")
        assert first != second
        text = expand(["In {town}.", "Near {town}."], grammar, rng)
        found = re.fullmatch(r"In (\w+)\. Near (\w+)\.", text)
        assert found
        assert found[1] == found[2]


def test_disguise_leaves_the_rest_alone() -> None:
    ways = {disguise("you \x01stupid\x02 thing", stable_random(n)) for n in range(60)}
    assert len(ways) >= 5
    for text in ways:
        assert text.startswith("you ")
        assert text.endswith(" thing")
        assert "stupid" not in text
        assert "\x01" not in text


def test_noise_depends_on_the_stream_alone() -> None:
    text = "Could you please look at this before Monday?"
    made = [add_noise(text, stable_random(n)) for n in range(400)]
    assert made == [add_noise(text, stable_random(n)) for n in range(400)]
    assert 0.3 <= made.count(text) / len(made) <= 0.7
    assert text.lower() in made
    assert text.upper() in made


def test_noise_rates_do_not_depend_on_the_label(rows: list[SampleRow]) -> None:
    """Casing and emoji are as common among toxic comments as among the others."""
    for sign in (str.islower, str.isupper, lambda text: bool(re.search("[\U0001f300-\U0001faff]", text))):
        rate = {flag: np.mean([sign(r.text) for r in rows if r.labels["toxicity"] == flag]) for flag in (0, 1)}
        assert abs(rate[0] - rate[1]) < 0.06


def test_shuffled_is_a_permutation() -> None:
    items = list(range(50))
    order = shuffled(stable_random(3), items)
    assert sorted(order) == items
    assert order != items


def test_linear_baseline_is_neither_trivial_nor_lost() -> None:
    """Words 1-2 TF-IDF with a balanced logistic regression, threshold tuned on valid."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, precision_recall_curve

    splits = sample_dataset().splits
    truth = {name: split.labels[:, 0].astype(int) for name, split in splits.items()}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(vectorizer.fit_transform(splits["train"].texts), truth["train"])
    scores = {name: model.predict_proba(vectorizer.transform(splits[name].texts))[:, 1] for name in ("valid", "test")}
    precision, recall, thresholds = precision_recall_curve(truth["valid"], scores["valid"])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    threshold = thresholds[f1[:-1].argmax()]
    assert 0.55 <= f1_score(truth["test"], scores["test"] >= threshold) <= 0.90
    assert 0.50 <= f1_score(truth["test"], scores["test"] >= 0.5) <= 0.90
