"""The usual names of columns, tried in this order and in any case where none is named."""

from __future__ import annotations

TEXT_NAMES = ("text", "comment_text", "comment", "content", "tweet", "body", "message", "sentence", "post")
LABEL_NAMES = ("label", "toxicity", "toxic", "target", "is_toxic", "class", "labels")
ID_NAMES = ("id", "comment_id")
