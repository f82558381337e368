"""The model card and the plots show names from outside as they are, and obey none of them."""

from __future__ import annotations

import pytest

from gkiller.data.inspect import _shown
from gkiller.training.report import CardFacts, model_card, threshold_list

NAME = "a`b<script>|x\x1b[2J\u202e"


def test_a_card_holds_no_control_character_and_no_html() -> None:
    manifest = {"data": {"rows": {"train": 1}, "synthetic": False, "source": NAME}, "seed": 0}
    manifest["distill"] = {"teachers": [{"name": NAME}]}
    thresholds = {NAME: {"value": 0.5, "target": NAME}}
    card = model_card(CardFacts((NAME,), 1, {}, 8, manifest, thresholds, f"{NAME}\n```\n# forged", 0.95))
    before, block, after = card.partition("```text\n")
    assert block
    for part in (before, after.partition("\n```\n")[2]):
        assert "<script>" not in part
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert "# forged" in after.partition("\n```\n")[0]


@pytest.mark.parametrize("label", ["severe_toxicity", "a b"])
def test_a_plain_label_is_code_as_before(label: str) -> None:
    assert threshold_list({label: {"value": 0.5}}).startswith(f"- `{label}`: 0.5000")


def test_a_plot_draws_names_as_they_are() -> None:
    assert _shown("$x$\n\x1b") == r"\$x\$\n\x1b"
