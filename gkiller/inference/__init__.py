"""Score comments with an exported model: numpy, onnxruntime and tokenizers, never torch.

from gkiller import load

clf = load("runs/train-1")
clf.predict("you are kind").scores
"""

from __future__ import annotations

from gkiller.inference.classifier import Classifier
from gkiller.inference.loading import load
from gkiller.inference.results import Contribution, Prediction

__all__ = ["Classifier", "Contribution", "Prediction", "load"]
