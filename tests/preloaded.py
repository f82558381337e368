"""What the server of `killing` imports once, before it forks."""

import importlib
import tempfile
from pathlib import Path

import transformers.models.bert.modeling_bert  # noqa: F401

import gkiller.training.train
from gkiller.model.dendrites.perforated import contained

gkiller.training.train.require_available()
with tempfile.TemporaryDirectory() as folder, contained(Path(folder), 0):
    importlib.import_module("perforatedai.utils_perforatedai")
