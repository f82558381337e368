"""A smaller vocabulary: what is kept scores as before, the rest is spelt out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deployment_helpers import ONE, SIX, labelled, network, save
from toy import FRIENDLY, RUDE

from gkiller.deployment.deploy import quantize_trimmed, save_trimmed, with_pieces
from gkiller.deployment.parity import parity_rows
from gkiller.errors import ExportError, ParityError
from gkiller.model.directory import load_model
from gkiller.scoring.models import score_texts
from gkiller.settings import DeploymentSettings
from gkiller.tokens.wordpiece import parse_tokenizer

REFERENCE = ["thank you for the careful edit of this page", "you idiot"]


@pytest.mark.parametrize("labels", [ONE, SIX])
def test_comments_of_kept_pieces_score_as_before(tmp_path: Path, labels: tuple[Any, ...]) -> None:
    loaded = save(tmp_path / "model", network(labels, dendrites=2, pooling="cls"), labels)
    smaller = save_trimmed(loaded, REFERENCE, 10_000, tmp_path / "small")
    assert smaller.tokenizer.get_vocab_size() < loaded.tokenizer.get_vocab_size()
    assert smaller.model.bert.config.vocab_size == smaller.tokenizer.get_vocab_size()
    texts = [*REFERENCE, "a b c", "careful idiot", ""]
    np.testing.assert_allclose(score_texts(smaller, texts), score_texts(loaded, texts), atol=1e-7)
    assert smaller.thresholds == loaded.thresholds


def test_a_word_whose_piece_is_gone_is_spelt_out(tmp_path: Path) -> None:
    loaded = save(tmp_path / "model")
    smaller = save_trimmed(loaded, REFERENCE, 10_000, tmp_path / "small")
    assert loaded.tokenizer.encode("bridge").tokens == ["[CLS]", "bridge", "[SEP]"]
    assert "".join(smaller.tokenizer.encode("bridge").tokens).replace("##", "") == "[CLS]bridge[SEP]"
    for text in (*FRIENDLY, *RUDE):
        assert "[UNK]" not in smaller.tokenizer.encode(text).tokens


def test_the_most_used_pieces_are_kept(tmp_path: Path) -> None:
    loaded = save(tmp_path / "model")
    least = save_trimmed(loaded, [], 1, tmp_path / "least").tokenizer.get_vocab_size()
    smaller = save_trimmed(loaded, ["idiot page", "idiot page", "idiot", "edit"], least + 2, tmp_path / "small")
    found = smaller.tokenizer.get_vocab()
    assert len(found) == least + 2
    assert {"idiot", "page"} <= found.keys()
    assert "edit" not in found


def test_nothing_to_trim_and_other_tokenizers_are_refused(tmp_path: Path) -> None:
    loaded = save(tmp_path / "model")
    every = list(loaded.tokenizer.get_vocab())
    with pytest.raises(ExportError, match="nothing to trim"):
        save_trimmed(loaded, every, len(every), tmp_path / "all")
    text = json.loads(loaded.tokenizer.to_str())
    text["model"] = {"type": "WordLevel", "vocab": text["model"]["vocab"], "unk_token": "[UNK]"}
    loaded.tokenizer.__setstate__(json.dumps(text).encode())
    with pytest.raises(ExportError, match="WordLevel"):
        save_trimmed(loaded, REFERENCE, 10, tmp_path / "other")


@pytest.mark.parametrize("labels", [ONE, SIX])
def test_new_pieces_are_read_as_those_they_are_like(tmp_path: Path, labels: tuple[Any, ...]) -> None:
    loaded = save(tmp_path / "model", network(labels, dendrites=2, pooling="cls"), labels)
    before = loaded.tokenizer.get_vocab_size()
    larger, text = with_pieces(loaded, {"idoit": "idiot", "briidge": "bridge"})
    assert larger.bert.config.vocab_size == before + 2
    tokenizer = parse_tokenizer(text, "tokenizer.json", loaded.max_length)
    assert tokenizer.get_vocab() == {**loaded.tokenizer.get_vocab(), "idoit": before, "briidge": before + 1}
    other = replace(loaded, model=larger, tokenizer=tokenizer)
    texts = ["you idiot", "thank you for the bridge", "a b c", ""]
    misspelt = [text.replace("idiot", "idoit").replace("bridge", "briidge") for text in texts]
    np.testing.assert_array_equal(score_texts(other, texts), score_texts(loaded, texts))
    np.testing.assert_array_equal(score_texts(other, misspelt), score_texts(loaded, texts))
    assert not np.array_equal(score_texts(loaded, misspelt), score_texts(loaded, texts))


def test_new_pieces_must_be_new_and_like_one_that_is_known(tmp_path: Path) -> None:
    loaded = save(tmp_path / "model")
    with pytest.raises(ValueError, match="'idiot' is in the vocabulary"):
        with_pieces(loaded, {"idiot": "bridge"})
    with pytest.raises(ValueError, match="'idoit' is not in the vocabulary"):
        with_pieces(loaded, {"idooit": "idoit"})
    loaded.model.bert.config.model_type = "mpnet"  # type: ignore[misc]
    with pytest.raises(ExportError, match="a mpnet encoder cannot be enlarged"):
        with_pieces(loaded, {"idoit": "idiot"})


def test_the_gate_compares_with_the_whole_vocabulary(tmp_path: Path) -> None:
    loaded = save(tmp_path / "model")
    rows = parity_rows(loaded, labelled(), 60)
    loose = DeploymentSettings(
        calibration_rows=40, int8_score_difference=1, int8_flips=1, int8_ap_loss=1, int8_f1_loss=1
    )
    given: dict[str, Any] = {"reference": list(rows.texts), "pieces": 10_000}
    exported, _ = quantize_trimmed(loaded, rows, loose, tmp_path / "out", **given)
    assert exported.parity.max_difference < 0.2  # every piece of these comments is kept
    small = load_model(tmp_path / "out")
    assert small.metadata["training"]["vocabulary"]["of"] == loaded.tokenizer.get_vocab_size()
    assert "onnx/model.int8.onnx" in small.metadata["exports"]
    strict = DeploymentSettings(calibration_rows=40, int8_score_difference=0.01, int8_flips=0)
    with pytest.raises(ParityError):
        quantize_trimmed(loaded, rows, strict, tmp_path / "none", reference=[], pieces=1)
    assert not (tmp_path / "none").exists()
