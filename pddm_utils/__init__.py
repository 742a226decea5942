"""Patched diffusion models for unsupervised anomaly detection in brain MRI."""

from __future__ import annotations

import importlib
from typing import Any

from pddm_utils.core.forks import keep_forks_usable

__version__ = "0.1.0"
__all__ = [
    "Detection",
    "InputError",
    "PatchedReconstructionPipeline",
    "ScanWarning",
    "detect",
    "example_scan",
    "example_slices",
    "healthy_twin",
    "load_model",
]

_HOMES = {
    "Detection": "pddm_utils.detection.detect",
    "InputError": "pddm_utils.core.errors",
    "PatchedReconstructionPipeline": "pddm_utils.diffusion.pipeline",
    "ScanWarning": "pddm_utils.core.errors",
    "detect": "pddm_utils.detection.detect",
    "example_scan": "pddm_utils.data.examples",
    "example_slices": "pddm_utils.data.examples",
    "healthy_twin": "pddm_utils.data.examples",
    "load_model": "pddm_utils.detection.model",
}

keep_forks_usable()


def __getattr__(name: str) -> Any:
    """Import on first use: torch and diffusers take seconds, and `--help` should not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
