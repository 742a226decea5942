"""What stands beside every table: the code, the packages and the machine it was made with."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pddm_utils.files import whole_file

_REPORTED_PACKAGES = ("torch", "diffusers", "accelerate", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn")
_FLOATS = "%.6g"


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table in one step, six digits a number (`InputError` as `whole_file`)."""
    with whole_file(path) as partial:
        table.to_csv(partial, index=False, float_format=_FLOATS)


def environment() -> dict[str, Any]:
    """Commit, Python, packages and hardware, JSON-ready, in words that name no machine."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False,
                            cwd=Path(__file__).parent).stdout.strip()
    return {"git_commit": commit, "python": platform.python_version(),
            "packages": {name: version(name) for name in _REPORTED_PACKAGES}, "hardware": _hardware()}


def code_digest(*scripts: Path) -> str:
    """Of the code that scores depend on, so that a change of it is not hidden behind old parts.

    Args:
        scripts: files besides the rooms `data`, `diffusion`, `evaluation` and `methods`.
    """
    package = Path(__file__).parents[1]
    files = [p for room in ("data", "diffusion", "evaluation", "methods") for p in (package / room).rglob("*.py")]
    return hashlib.sha256(b"".join(p.read_bytes() for p in [*sorted(files), *scripts])).hexdigest()


def weights_digest(folder: Path) -> str:
    """Of a model's weights and the configurations of its parts."""
    # `model_index.json` is no part of it: publishing sets the noise level there, and scores name theirs.
    files = [path for pattern in ("*.safetensors", "*config.json") for path in sorted(folder.rglob(pattern))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _hardware() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
