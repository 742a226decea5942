"""Results on disk: parts, each under a key of the settings, data and weights that it depends on, and tables of studies.

A part also holds what it was made with. Where that is another commit, or other versions of packages, it is used all
the same and one warning says so. Beside the tables of studies, `run.json` says by name what each depends on, what made
it and what it took.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file, write_text
from pddm_utils.core.provenance import environment, made_with, warn_of_others
from pddm_utils.core.shipped import weight_files
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import data_digest


def key_of(settings: Any, data: Sequence[ManifestRow] = (), weights: Path | None = None) -> str:
    """Sixteen hexadecimal digits that differ where anything differs that a result depends on.

    Args:
        settings: JSON-ready: all choices that it depends on.
        data: the scans it looks at.
        weights: folder of a trained model; None for what needs none.
    """
    content = [settings, data_digest(data), weights_digest(weights)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(folder: Path | None) -> str:
    """Hash of a model's weights and the configurations of its parts; empty for no model."""
    if folder is None:
        return ""
    # `model_index.json` is no part of it: publishing sets the noise level there, and scores name theirs.
    return files_digest(weight_files(folder) + sorted(folder.rglob("*config.json")))


def files_digest(paths: Iterable[Path]) -> str:
    """Hash of what files hold, in their order."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@dataclass(frozen=True)
class Part:
    """A piece of a result that is kept on disk.

    Attributes:
        path: `.csv` for a table, `.safetensors` for a volume, which is kept in half precision, `.json` for any other
            value; its name holds `key_of` all that it depends on.
        compute: makes it; picklable, as it may run in another process.
    """

    path: Path
    compute: Callable[[], Any]

    def write(self) -> None:
        """Compute it and put it there in one step."""
        value = self.compute()
        if self.path.suffix == ".safetensors":
            with whole_file(self.path) as partial:
                save_file({"volume": value.astype(np.float16)}, partial, {"made_with": json.dumps(made_with())})
            return
        if self.path.suffix == ".json":
            write_text(self.path, json.dumps({"made_with": made_with(), "value": value}) + "\n")
            return
        with whole_file(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            file.write(f"# {json.dumps(made_with())}\n")
            _write_table(value, file)

    def kept(self) -> Any:
        """The value from disk, computed and put there first where it is missing."""
        if self.path.is_file():
            value, made = self.read()
            warn_of_others([made])
            return value
        self.write()
        return self.read()[0]

    def read(self) -> tuple[Any, dict[str, Any]]:
        """The value, and what it was made with."""
        if self.path.suffix == ".safetensors":
            with safe_open(self.path, framework="np") as file:
                return file.get_tensor("volume").astype(np.float32), json.loads(file.metadata()["made_with"])
        with self.path.open(encoding="utf-8", newline="") as file:
            if self.path.suffix == ".json":
                record = json.load(file)
                return record["value"], record["made_with"]
            made = json.loads(file.readline().removeprefix("#"))
            return pd.read_csv(file), made


def kept_parts(parts: Sequence[Part], what: str, jobs: int = 1, threads: int | None = None) -> list[Any]:
    """The values of all parts in their order; those that are missing are computed, `jobs` at a time.

    Args:
        parts: independent of each other.
        what: is done, for the progress bar.
        jobs: processes side by side.
        threads: of each process, where there are several.
    """
    there = {part.path: part.read() for part in parts if part.path.is_file()}
    warn_of_others(made for _, made in there.values())
    missing = {part.path: part for part in parts if part.path not in there}
    in_parallel([part.write for part in missing.values()], what, jobs, threads)
    there |= {path: part.read() for path, part in missing.items()}
    return [there[part.path][0] for part in parts]


def in_parallel(calls: Sequence[Callable[[], Any]], what: str, jobs: int = 1, threads: int | None = None) -> None:
    """Make independent calls, `jobs` at a time, with a progress bar."""
    if not calls:
        return
    backend = "loky" if jobs > 1 else "sequential"
    with parallel_config(backend=backend, inner_max_num_threads=threads if jobs > 1 else None):
        done = Parallel(n_jobs=jobs, return_as="generator")(delayed(call)() for call in calls)
        list(tqdm(done, total=len(calls), desc=what, unit="part"))


def write_csv(table: pd.DataFrame, path: Path, floats: str = "%.6g") -> None:
    """Write a table in one step, its numbers in a given format (`InputError` as `whole_file`)."""
    with whole_file(path) as partial:
        _write_table(table, partial, floats)


def _write_table(table: pd.DataFrame, file: Any, floats: str = "%.6g") -> None:
    table.to_csv(file, index=False, float_format=floats, lineterminator="\n")


def is_recorded(results: Path, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a table is there and was made with these settings.

    Args:
        results: folder of the tables.
        name: of the table.
        settings: what it depends on, JSON-ready; a record that says more is taken too.
    """
    made = _tables_of(_read_record(results)).get(name, {}).get("settings", {})
    return (results / f"{name}.csv").is_file() and made == {**made, **settings} and bool(made)


def write_study(results: Path, name: str, table: pd.DataFrame, settings: Mapping[str, Any], seconds: float) -> Path:
    """Write a table, then its record: a table without one is made again, from its parts.

    Args:
        results: folder of the tables.
        name: of the table.
        table: the rows.
        settings: what it depends on, JSON-ready.
        seconds: that it took, wall time.

    Returns:
        The table's file.
    """
    path, record = results / f"{name}.csv", _read_record(results)
    write_csv(table, path)
    made = {"settings": dict(settings), "seconds_of_this_call": round(seconds, 1), **environment()}
    _tables_of(record)[name] = made
    write_text(results / "run.json", json.dumps(record, indent=1) + "\n")
    return path


def read_study(results: str | Path, name: str, command: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and how it was made.

    Args:
        results: folder of the tables.
        name: of the table.
        command: that makes it, for the error.

    Raises:
        InputError: it is not there.
    """
    results = Path(results)
    made = _tables_of(_read_record(results)).get(name)
    if made is None or not (results / f"{name}.csv").is_file():
        raise InputError(f"{results}/{name}.csv does not exist; make it with: python -m pddm_utils {command}")
    return pd.read_csv(results / f"{name}.csv"), made


def _read_record(results: Path) -> dict[str, Any]:
    path = results / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"questions": {}}


def _tables_of(record: dict[str, Any]) -> dict[str, Any]:
    """Records by name; the validation search has them at the top."""
    return record.get("questions", record)
