"""The hub: read through a local data set, and failing in every way that can be had without a network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pytest
from data_helpers import all_rows, read_rows, settings, write_jsonl
from huggingface_hub import constants, errors

from gkiller.data import hub
from gkiller.data.hub import KNOWN_SOURCES, find_known
from gkiller.data.prepare import prepare
from gkiller.errors import ColumnError, FormatError, HubUnavailableError, SourceNotFoundError


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Any]]:
    """Serve any hub data set from a local folder, as a stream."""
    folder = tmp_path / "hub"
    folder.mkdir()
    asked = []

    def load(repository: Any, config: Any, revision: Any) -> Any:
        asked.append((repository, config, revision))
        return dict(datasets.load_dataset(str(folder), streaming=True, cache_dir=str(tmp_path / "cache")))

    monkeypatch.setattr(hub, "resolve_commit", lambda repository, revision: "c0ffee")
    monkeypatch.setattr(hub, "load_splits", load)
    return folder, asked


def test_hub_splits_are_kept(tmp_path: Path, local_hub: tuple[Path, list[Any]]) -> None:
    folder, asked = local_hub
    write_jsonl(folder / "train.jsonl", [{"text": f"t {i}", "toxicity": i / 3000} for i in range(3000)])
    write_jsonl(folder / "validation.jsonl", [{"text": "v", "toxicity": 0.1}, {"text": "w", "toxicity": 0.9}])
    write_jsonl(folder / "test.jsonl", [{"text": "x", "toxicity": 0.5}, {"text": "T 7", "toxicity": 0.0}])
    manifest = prepare(settings(revision="v2"), tmp_path / "out", sources=["any/thing:plain"])
    assert asked == [("any/thing", "plain", "c0ffee")]
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {"train": 2999, "valid": 2, "test": 2}
    assert manifest["dropped"]["overlap"]["train in test"] == 1
    assert manifest["sources"][0]["revision"] == "c0ffee"
    assert [row["toxicity"] for row in read_rows(tmp_path / "out", "test")] == [1, 0]
    assert read_rows(tmp_path / "out", "test")[0]["id"] == "thing-test:1"


def test_known_source_needs_no_flags(tmp_path: Path, local_hub: tuple[Path, list[Any]]) -> None:
    folder, asked = local_hub
    columns = find_known("civil_comments").label_columns
    rows = [{"text": f"t {i}"} | {name: (i % 4) / 4 for name in columns} for i in range(50)]
    write_jsonl(folder / "train.jsonl", rows)
    manifest = prepare(settings(), tmp_path / "out", sources=["civil_comments"])
    assert asked[0][0] == "google/civil_comments"
    assert manifest["labels"] == ["toxicity"]
    assert manifest["licence"] == ["civil_comments: CC0-1.0"]
    assert {row["toxicity"] for row in all_rows(tmp_path / "out")} == {0, 1}
    several = settings(label_columns=("toxicity", "threat"))
    manifest = prepare(several, tmp_path / "out2", sources=["google/civil_comments"])
    assert manifest["labels"] == ["toxicity", "threat"]


def test_only_split_is_the_train_split(tmp_path: Path, local_hub: tuple[Path, list[Any]]) -> None:
    folder, _ = local_hub
    write_jsonl(folder / "all.jsonl", [{"text": f"t {i}", "label": i % 2} for i in range(50)])
    manifest = prepare(settings(), tmp_path / "out", sources=["any/thing"])
    assert manifest["splits"]["valid"]["origin"] == "split off train"


def test_splits_of_other_names_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"text": [f"t {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    both = {name: datasets.Dataset.from_dict(rows) for name in ("train", "extra")}
    monkeypatch.setattr(hub, "resolve_commit", lambda repository, revision: None)
    monkeypatch.setattr(hub, "load_splits", lambda *_: both)
    manifest = prepare(settings(), tmp_path / "out", sources=["any/thing"])
    assert "any/thing: splits not read: extra" in manifest["notes"]
    monkeypatch.setattr(hub, "load_splits", lambda *_: {"extra": both["extra"], "other": both["extra"]})
    with pytest.raises(SourceNotFoundError, match="no train split; it has: extra, other"):
        prepare(settings(), tmp_path / "out2", sources=["any/thing"])


@pytest.mark.parametrize(("names", "first"), [(["non-toxic", "toxic"], 0), (["toxic", "non-toxic"], 1)])
def test_names_of_classes_decide_what_is_toxic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], first: int
) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": [f"t {i}" for i in range(40)], "label": [i % 4 != 0 for i in range(40)]}
    split = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(hub, "resolve_commit", lambda repository, revision: None)
    monkeypatch.setattr(hub, "load_splits", lambda *_: {"train": split})
    prepare(settings(), tmp_path / "out", sources=["any/thing"])
    labels = {row["text"]: row["toxicity"] for row in all_rows(tmp_path / "out")}
    assert labels["t 0"] == first
    assert labels["t 1"] == 1 - first


@pytest.mark.parametrize("positive", ["hate", "0"])
def test_positive_classes_are_named_or_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positive: str) -> None:
    names = datasets.ClassLabel(names=["hate", "offensive", "neither"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    rows = {"text": [f"t {i}" for i in range(60)], "label": [i % 3 for i in range(60)]}
    split = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(hub, "resolve_commit", lambda repository, revision: None)
    monkeypatch.setattr(hub, "load_splits", lambda *_: {"train": split})
    prepare(settings(positive_values=(positive,)), tmp_path / "out", sources=["any/thing"])
    labels = {row["text"]: row["toxicity"] for row in all_rows(tmp_path / "out")}
    assert [labels["t 0"], labels["t 1"], labels["t 2"]] == [1, 0, 0]


def test_hub_columns_are_checked(tmp_path: Path, local_hub: tuple[Path, list[Any]]) -> None:
    folder, _ = local_hub
    write_jsonl(folder / "train.jsonl", [{"text": "a", "label": 1}])
    with pytest.raises(ColumnError, match="'lable'") as caught:
        prepare(settings(label_columns=("lable",)), tmp_path / "out", sources=["any/thing"])
    assert "'label'" in caught.value.remedy
    assert caught.value.where == "any/thing (train)"


def test_refused_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(HubUnavailableError) as caught:
            prepare(settings(), tmp_path / "out", sources=["civil_comments"])
    assert "http://127.0.0.1" in caught.value.what
    assert "HF_ENDPOINT" in caught.value.remedy
    assert "HF_HUB_OFFLINE" in caught.value.remedy
    assert caught.value.where == "google/civil_comments"


def test_silent_host_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        done = threading.Event()

        def ask() -> None:
            with pytest.raises(HubUnavailableError):
                prepare(settings(), tmp_path / "out", sources=["some/thing"])
            done.set()

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(20)
    assert done.is_set()


def answer(kind: Any, text: Any) -> Any:
    request = httpx2.Request("GET", "http://hub.example")
    return kind(text, response=httpx2.Response(403, request=request))


@pytest.mark.parametrize(
    ("raised", "error", "what"),
    [
        (answer(errors.GatedRepoError, "gated"), HubUnavailableError, "gated"),
        (answer(errors.RepositoryNotFoundError, "gone"), HubUnavailableError, "knows no such data set"),
        (answer(errors.RevisionNotFoundError, "gone"), HubUnavailableError, "revision"),
        (errors.HFValidationError("bad name"), SourceNotFoundError, "bad name"),
        (answer(errors.HfHubHTTPError, "not today"), HubUnavailableError, "refused: not today"),
        (ConnectionError("no route"), HubUnavailableError, "no route"),
        (httpx2.ReadTimeout("too slow"), HubUnavailableError, "too slow"),
        (ValueError("Config name is missing. Pick one of a, b"), SourceNotFoundError, "Pick one of"),
        (RuntimeError("Dataset scripts are no longer supported"), FormatError, "loading script"),
        (datasets.exceptions.DatasetGenerationError("broken"), FormatError, "broken"),
    ],
)
def test_what_the_hub_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Any, error: type[Any], what: str
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(hub, "resolve_commit", lambda repository, revision: None)
    monkeypatch.setattr(hub, "load_splits", fail)
    with pytest.raises(error, match=what) as caught:
        prepare(settings(), tmp_path / "out", sources=["any/thing"])
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_connection_lost_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[Any]:
        yield {"text": "a", "label": 1}
        raise ConnectionError("gone")

    split = datasets.IterableDataset.from_generator(rows)
    monkeypatch.setattr(hub, "resolve_commit", lambda repository, revision: None)
    monkeypatch.setattr(hub, "load_splits", lambda *_: {"train": split})
    with pytest.raises(HubUnavailableError, match="gone"):
        prepare(settings(), tmp_path / "out", sources=["any/thing"])


@pytest.mark.parametrize("name", ["jigsaw", "jigsaw_toxicity_pred", "google/jigsaw_unintended_bias"])
def test_data_sets_to_fetch_by_hand_say_how(tmp_path: Path, name: str) -> None:
    with pytest.raises(HubUnavailableError) as caught:
        prepare(settings(), tmp_path / "out", sources=[name])
    assert "gkiller data prepare train.csv" in caught.value.remedy


def test_offline_by_choice_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.resolve_commit("any/thing", None) is None

    def fail(*_: Any) -> None:
        raise ConnectionError("not cached")

    monkeypatch.setattr(hub, "load_splits", fail)
    with pytest.raises(HubUnavailableError, match="HF_HUB_OFFLINE is set") as caught:
        prepare(settings(), tmp_path / "out", sources=["any/thing"])
    assert "unset it" in caught.value.remedy


def test_catalogue_is_sound() -> None:
    names = [name for source in KNOWN_SOURCES for name in (source.name, *source.aliases)]
    assert len(names) == len(set(names))
    for source in KNOWN_SOURCES:
        assert set(source.default_labels) <= set(source.label_columns)
        assert source.licence
        assert bool(source.remedy) == (source.access == "manual")
        assert find_known(source.name.upper()) is source
