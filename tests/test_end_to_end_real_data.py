"""Real comments, where they are at hand: the Kaggle layout, embedded newlines and quotes, six labels."""

import json
from pathlib import Path

import pytest
from data_helpers import SHARED
from toy import CANONICAL_SIX, SIX, TINY

from gkiller.cli.main import main
from gkiller.model.directory import load_model

HEAD = SHARED / "raw" / "jigsaw_train_head.csv"
pytestmark = [
    pytest.mark.usefixtures("no_plots", "clean_environment"),
    pytest.mark.skipif(not HEAD.exists(), reason="the real data are not here"),
]


def test_prepare_and_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    columns = ("--text-column", "comment_text", "--label-columns", ",".join(SIX))
    assert main(["data", "prepare", str(HEAD), *columns, "--out", "prepared"]) == 0
    said = capfd.readouterr().err
    assert "'severe_toxic' is the label 'severe_toxicity'" in said
    flags = [part for override in TINY for part in ("--set", override)]
    assert main(["train", "--data", "prepared", "--epochs", "1", "--no-dendrites", "--json", *flags]) == 0
    found = json.loads(capfd.readouterr().out)
    assert tuple(found["labels"]) == CANONICAL_SIX
    assert found["synthetic"] is False
    assert load_model(found["model"]).labels == CANONICAL_SIX
