"""Parts of results on disk: each under a key of the settings, data and weights that it depends on, and nothing else.

A part also holds what it was made with. Where that is another commit, or other versions of packages, it is used all
the same and one warning says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from pddm_utils.core.files import whole_file, write_text
from pddm_utils.core.provenance import made_with, warn_of_others
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
    files = weight_files(folder) + sorted(folder.rglob("*config.json"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


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
