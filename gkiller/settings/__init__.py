"""Settings: one definition, and the layers that fill it in."""

from __future__ import annotations

from gkiller.settings.definition import (
    AugmentSettings,
    BenchSettings,
    DataSettings,
    DendriteSettings,
    DeploymentSettings,
    EvaluationSettings,
    ModelSettings,
    Settings,
    SweepSettings,
    TrainSettings,
)
from gkiller.settings.layers import Resolved, preset_about, preset_names, resolve, settings_of, settings_values
from gkiller.settings.reference import (
    Reference,
    plain_text,
    section_titles,
    settings_by_key,
    settings_reference,
    settings_toml,
)
from gkiller.settings.values import key_advice, nearest_keys

__all__ = [
    "AugmentSettings",
    "BenchSettings",
    "DataSettings",
    "DendriteSettings",
    "DeploymentSettings",
    "EvaluationSettings",
    "ModelSettings",
    "Reference",
    "Resolved",
    "Settings",
    "SweepSettings",
    "TrainSettings",
    "key_advice",
    "nearest_keys",
    "plain_text",
    "preset_about",
    "preset_names",
    "resolve",
    "section_titles",
    "settings_by_key",
    "settings_of",
    "settings_reference",
    "settings_toml",
    "settings_values",
]
