"""The record of the ablations' tables: `run.json` says by question what its table depends on and what it took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_utils.benchmark.store import write_csv
from pddm_utils.core.files import write_text
from pddm_utils.core.provenance import environment


def is_recorded(results: Path, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether the table of a question is there and was made with these settings.

    Args:
        results: folder of the tables.
        name: of the question.
        settings: what its table depends on, JSON-ready.
    """
    made = _read(results)["questions"].get(name)
    return (results / f"{name}.csv").is_file() and made is not None and made["settings"] == settings


def write_question(results: Path, name: str, table: pd.DataFrame, settings: Mapping[str, Any], seconds: float) -> Path:
    """Write a table, then its record: a table without one is made again, from its parts.

    Args:
        results: folder of the tables.
        name: of the question.
        table: its answer.
        settings: what it depends on.
        seconds: that it took, wall time.

    Returns:
        The table's file.
    """
    path, record = results / f"{name}.csv", _read(results)
    write_csv(table, path)
    record["questions"][name] = {"settings": dict(settings), "seconds_of_this_call": round(seconds, 1), **environment()}
    write_text(results / "run.json", json.dumps(record, indent=1) + "\n")
    return path


def _read(results: Path) -> dict[str, Any]:
    path = results / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"questions": {}}
