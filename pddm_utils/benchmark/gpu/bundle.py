"""The bundle: one folder with all that a machine with a GPU and without a network needs, see `book/gpu.md`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from pddm_utils.benchmark.evaluate import every_nth_slice
from pddm_utils.benchmark.gpu.wheels import own_wheel, pure_requirements, repack
from pddm_utils.benchmark.store import files_digest, key_of
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file, write_text
from pddm_utils.core.provenance import made_with
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.packed import PackedScans, pack_scans
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_all
from pddm_utils.data.scan import Scan

PROFILES = ("gpu-soop", "gpu-ixi", "gpu-simulated")
TRAINING_SLICE_STEP = 4  # of a training volume every so many slices travel: neighbours look alike
LARGEST_MIB = 50


def make_bundle(out: Path, runs: Path, profiles: Sequence[str] = (), jobs: int = 1) -> list[str]:
    """Write wheels, packed cohorts and the script into a folder; what is there and unchanged stays.

    Args:
        out: the folder.
        runs: prepared scans are kept in its `cache`.
        profiles: whose cohorts travel; those of `PROFILES` whose scans are at hand when empty.
        jobs: scans that are prepared side by side.

    Returns:
        What was written, and what was left out and why: a line each.

    Raises:
        InputError: the scans of a profile that was asked for are missing, or the folder cannot be written.
    """
    told, cohorts = [], []
    for name in profiles or PROFILES:
        try:
            settings = load_settings(name)
            rows = cohort_rows(settings)
        except InputError as error:
            if profiles:
                raise
            told.append(f"left out: {name} ({error})")
            continue
        path = out / "cohorts" / f"{settings.profile}.safetensors"
        _pack_cohort(path, settings, rows, ScanCache(runs / "cache"), jobs)
        cohorts.append(path)
    if not cohorts:
        raise InputError("no scans for any cohort; set PDDM_DATA, or name profiles of your own")
    for old in set((out / "cohorts").glob("*")) - set(cohorts):
        old.unlink()
    wheels = _write_wheels(out / "wheels")
    with whole_file(out / "run.py") as partial:
        shutil.copyfile(Path(__file__).with_name("launch.py"), partial)
    package = files_digest((out / "wheels").glob("pddm_utils-*.whl"))
    content = {"wheels": wheels, "cohorts": [path.name for path in cohorts], "package": package}
    content |= {"made_with": made_with()}
    write_text(out / "bundle.json", json.dumps(content, indent=1) + "\n")
    told += [f"{size_mib(path):5.1f} MiB {path.relative_to(out)}" for path in (*cohorts, out / "wheels", out)]
    if size_mib(out) > LARGEST_MIB:
        raise InputError(f"{out}: {size_mib(out):.1f} MiB, more than {LARGEST_MIB}; take fewer profiles or subjects")
    return told


def size_mib(path: Path) -> float:
    """Size of a file, or of all that travels of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if "site" not in file.parts]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def _write_wheels(folder: Path) -> dict[str, tuple[str, str]]:
    """Wheels of this package and of what it needs: file, name of the distribution and versions that will do."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheels = {own_wheel(folder).name: ("pddm-utils", "")}
    return wheels | {repack(name, folder).name: (name, versions) for name, versions in pure_requirements().items()}


def _holds(path: Path, key: str) -> bool:
    """Whether a file of packed scans is there, whole, of this version and with this key."""
    try:
        return PackedScans(path).facts["key"] == key
    except InputError:
        return False


def _pack_cohort(path: Path, settings: Settings, rows: list[ManifestRow], cache: ScanCache, jobs: int) -> None:
    """The scans of a profile in one file; one that holds them already is left as it is."""
    key = key_of([settings.to_dict(), TRAINING_SLICE_STEP], rows)
    if _holds(path, key):
        return
    prepare_all(rows, cache, jobs=jobs)

    def scans() -> Iterator[tuple[ManifestRow, Scan]]:
        for row in tqdm(rows, desc=f"packing {settings.profile}", unit="scan", mininterval=2.0):
            yield row, every_nth_slice(load_scan(row, cache), TRAINING_SLICE_STEP if row.split == "train" else 1)

    pack_scans(path, scans(), {"key": key, "settings": settings.to_dict()})
