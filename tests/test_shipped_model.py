"""The default model as it lies in the package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gkiller import assets, load
from gkiller.cli.doctor import check_model
from gkiller.data.labels import CANONICAL_LABELS
from gkiller.inference.classifier import Classifier
from gkiller.model.layout import settled
from gkiller.settings import ModelSettings

MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def classifier() -> Classifier | Path:
    return load()


def test_it_is_small_and_has_the_six_labels(classifier: Classifier) -> None:
    files = [path for path in assets.default_model_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert classifier.labels == CANONICAL_LABELS
    assert all(0 < value < 1 for value in classifier.limits().values())


@pytest.mark.parametrize(
    ("comment", "flagged"),
    [
        ("you are a waste of space", True),
        ("You absolute idiot, nobody wants you here.", True),
        ("I am a proud gay man", False),
        ("My neighbours are Muslim and we garden together.", False),
        ("Thank you for the quick review.", False),
    ],
)
def test_plain_cases_are_decided_as_a_person_would(classifier: Classifier, comment: str, flagged: bool) -> None:
    assert classifier.predict(comment).flags["toxicity"] == flagged


def test_swapped_letters_of_rude_words_are_read(classifier: Classifier) -> None:
    misspelt, meant = classifier.predict(["What a stuipd iidot you are", "What a stupid idiot you are"])
    assert misspelt.scores == meant.scores
    assert misspelt.flags["toxicity"]


def test_a_new_process_scores_a_line_without_torch_and_network() -> None:
    code = (
        "import socket, sys; socket.socket.connect = None; from gkiller.cli.main import main; "
        "status = main(['predict']); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    given = "you are a waste of space\nI am a proud gay man\n"
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=True)
    assert [json.loads(line)["flagged"] for line in done.stdout.splitlines()] == [True, False]


def test_it_scores_here_as_where_it_was_made() -> None:
    found = check_model("default")
    assert [check.status for check in found] == ["ok"] * len(found) != [], found


def test_a_training_of_the_default_settings_starts_from_it() -> None:
    assert settled(ModelSettings()).encoder == "default"


def test_its_card_tells_data_licences_tests_and_groups() -> None:
    card = (assets.default_model_path() / "README.md").read_text("utf-8")
    for heading in ("## Data and licences", "## Tests", "## Groups of people", "## Limits"):
        assert f"\n{heading}\n" in card


def test_the_readme_states_the_cards_bias() -> None:
    card = (assets.default_model_path() / "README.md").read_text("utf-8")
    groups = card.split("\n## Groups of people\n")[1]
    # The first table is madlibs'; another, with rows of the same names, follows it.
    shares = [re.search(rf"^\| {group}\b.*\| ([\d.]+) \([\d.-]+\) \|$", groups, re.M)[1] for group in ("all", "gay")]
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    told = re.search(
        r"calls (\d+) % of the harmless template sentences .*? toxic, and\s+"
        r"(\d+) % of those that say \"gay\"",
        readme,
    )
    assert told is not None
    assert [f"{100 * float(share):.0f}" for share in shares] == list(told.groups())
