"""What `run.json` says about a run: settings, code, packages, hardware, models."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pddm_utils.benchmark.models import scoring_code, training_code
from pddm_utils.benchmark.origins import read_origin
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import stored_parameters
from pddm_utils.data.cohort import missing_test_sets
from pddm_utils.training.loop import read_training

_REPORTED_PACKAGES = ("torch", "diffusers", "accelerate", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn")


def provenance(
    settings: Settings, seeds: Sequence[int], folders: Mapping[tuple[str, int], Path], shipped: bool
) -> dict[str, Any]:
    """Settings, code, packages, hardware and models of a run.

    Args:
        settings: the profile.
        seeds: those that were scored.
        folders: of the weights, by method and seed.
        shipped: whether they came with the project; else `code` says which code trained each model.
    """
    models = {}
    for (name, seed), folder in folders.items():
        record = read_training(folder)
        models[f"{name}-seed{seed}"] = {
            "parameters": stored_parameters(folder),
            "steps": record["step"],
            "seconds": round(record["seconds"], 1),
            "cpu_seconds": round(record["cpu_seconds"], 1),
            "validation_loss": record["history"][-1]["validation_loss"],
        }
        if not shipped:
            models[f"{name}-seed{seed}"] |= {
                "folder": folder.name,
                "code": list(read_origin(folder).code),
                "code_of_this_run": training_code(name),
            }
    return {
        "settings": settings.to_dict(),
        "seeds": list(seeds),
        "weights": "shipped" if shipped else "trained",
        **environment(),
        "left_out": missing_test_sets(settings),
        "models": models,
        "scoring_code": {name: scoring_code(name) for name in settings.methods},
    }


def environment() -> dict[str, Any]:
    """Commit, Python, packages and hardware, JSON-ready, in words that name no machine."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    ).stdout.strip()
    return {
        "git_commit": commit,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _REPORTED_PACKAGES},
        "hardware": _hardware(),
    }


def _hardware() -> dict[str, Any]:
    """Processor, cores and GPU in words that name no machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
