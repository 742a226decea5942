"""Results that are kept on disk, each under a key of all that it depends on: data, weights, settings and code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_utils.benchmark.models import scoring_code
from pddm_utils.core.files import whole_file, write_text
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import weight_files
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import data_digest
from pddm_utils.methods.registry import METHODS


def write_csv(table: pd.DataFrame, path: Path, floats: str = "%.6g") -> None:
    """Write a table in one step, its numbers in a given format (`InputError` as `whole_file`)."""
    with whole_file(path) as partial:
        table.to_csv(partial, index=False, float_format=floats)


def part_key(settings: Settings, unit: tuple, rows: Sequence[ManifestRow], weights: Path | None) -> str:
    """Name of a part: the unit in words, and a hash of data, weights, settings and code.

    Args:
        settings: the profile.
        unit: what it is a part of, such as `("score", "pddpm", 0, 749)`; a method is in second place.
        rows: the scans it looks at.
        weights: folder of the method's weights; None for a method that learns nothing.
    """
    method = unit[1]
    content = [
        unit,
        data_digest(rows),
        weights_digest(weights),
        scoring_code(method),
        settings.selection_slice_step,
        *(getattr(settings, name) for name in METHODS[method].scored_by),
    ]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return f"{'-'.join(map(str, unit))}-{key}"


def kept_table(path: Path, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table from a CSV, or computed and put there in one step."""
    if not path.is_file():
        write_csv(compute(), path)
    return pd.read_csv(path)


def kept_json(path: Path, compute: Callable[[], Any]) -> Any:
    """A value from a JSON file, or computed and put there in one step; numbers keep all their digits."""
    if not path.is_file():
        write_text(path, json.dumps(compute()) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))


def weights_digest(folder: Path | None) -> str:
    """Hash of a model's weights and the configurations of its parts; empty for no model."""
    if folder is None:
        return ""
    # `model_index.json` is no part of it: publishing sets the noise level there, and scores name theirs.
    files = weight_files(folder) + sorted(folder.rglob("*config.json"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
