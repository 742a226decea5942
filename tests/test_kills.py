"""Preparation, detection and benchmark killed at random moments: started again, they end as if undisturbed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from killing import kill_repeatedly, newest_change, visible_files
from pddm_utils.data.manifest import ManifestRow, write_manifest
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.data.volume import to_scan_space

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PDDM_DATA": ""}
BENCHMARK = {
    "train_subjects": 2,
    "val_subjects": 1,
    "train_steps": 4,
    "extra_seed_steps": 2,
    "checkpoint_every": 1,
    "timesteps": "[499]",
    "lesion_kinds": "[tumour]",
    "seeds": "[0]",
    "noise_levels": "[validation]",
}


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)


def prepare_command(manifest: Path, cache: Path) -> list[str]:
    code = (
        "import sys\nfrom pddm_utils.data.manifest import read_manifest\n"
        "from pddm_utils.data.prepare import ScanCache, prepare_all\n"
        "prepare_all(read_manifest(sys.argv[1]), ScanCache(sys.argv[2]), progress=False)"
    )
    return [sys.executable, "-c", code, str(manifest), str(cache)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A manifest of eight real files, four of them with a lesion to insert."""
    folder = tmp_path_factory.mktemp("scans")
    x, y, z = np.mgrid[-40:40, -45:45, -30:30] + 0.5
    inside = (x / 31) ** 2 + (y / 38) ** 2 + (z / 24) ** 2 < 1
    rows = []
    for number in range(8):
        values = np.random.default_rng(number).uniform(100, 200, inside.shape)
        path = folder / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(np.where(inside, values, 0).astype(np.float32), np.diag([2.0, 2, 2, 1])), path)
        rows.append(ManifestRow(f"s{number}", str(path), "", "", "test", "mine", "T2"))
    write_manifest(rows, folder / "scans.csv")
    return folder / "scans.csv"


@pytest.fixture(scope="module")
def prepared(scans: Path, tmp_path_factory) -> dict[str, bytes]:
    cache = tmp_path_factory.mktemp("prepared") / "cache"
    run(prepare_command(scans, cache))
    return visible_files(cache)


def kill_preparation(scans: Path, cache: Path, kills: int, seed: int) -> None:
    command = prepare_command(scans, cache)
    for number in range(kills):
        kill_repeatedly(command, ENVIRONMENT, lambda: newest_change(cache), 1, seed * 100 + number, longest=0.3)
        for entry in cache.iterdir():  # whatever has its name is whole
            assert entry.name.startswith(".partial-") or len(visible_files(entry)) == 4
    run(command)


def test_killed_preparation(scans: Path, prepared: dict[str, bytes], tmp_path: Path) -> None:
    kill_preparation(scans, tmp_path / "cache", kills=2, seed=0)
    assert len(prepared) == 8 * 4 and visible_files(tmp_path / "cache") == prepared


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_preparation_often(scans: Path, prepared: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    kill_preparation(scans, tmp_path / "cache", kills=4, seed=seed)
    assert visible_files(tmp_path / "cache") == prepared


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A simulated T2 scan with a tumour, as a file."""
    prepared = prepare_scan(ManifestRow("s", "simulated:210003", "", "insert:tumour:210003", "test", "simulated", "T2"))
    affine = np.array([[-2, 0, 0, 95], [0, -2, 0, 95], [0, 0, 2.0, -70], [0, 0, 0, 1]])
    reference = nib.Nifti1Image(np.zeros((96, 96, 70), np.float32), affine)
    path = tmp_path_factory.mktemp("scan") / "patient_T2w.nii.gz"
    nib.save(to_scan_space(prepared.image, prepared.affine, reference), path)
    return path


def detect_command(scan: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "pddm_utils", "detect", str(scan), "--out", str(out)]


@pytest.fixture(scope="module")
def detected(scan: Path, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("detected") / "out"
    run(detect_command(scan, out))
    return visible_files(out)


def kill_detection(scan: Path, detected: dict[str, bytes], out: Path, kills: int, seed: int) -> None:
    """Kill while the results are written; those of an earlier run stay whole."""
    for number in range(kills):
        kill_repeatedly(
            detect_command(scan, out),
            ENVIRONMENT,
            lambda: newest_change(out / ".partial"),
            1,
            seed * 100 + number,
            longest=random.Random(seed + number).choice([0.05, 1.0]),
        )
        assert set(visible_files(out).items()) <= set(detected.items())
    run(detect_command(scan, out))
    assert visible_files(out) == detected and not (out / ".partial").exists()


def test_killed_detection(scan: Path, detected: dict[str, bytes], tmp_path: Path) -> None:
    assert len(detected) == 6
    kill_detection(scan, detected, tmp_path / "out", kills=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_detection_often(scan: Path, detected: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    kill_detection(scan, detected, tmp_path / "out", kills=4, seed=seed)


def benchmark_command(folder: Path) -> list[str]:
    words = [
        "-m",
        "pddm_utils",
        "benchmark",
        "--profile",
        "smoke",
        "--jobs",
        "1",
        "--runs",
        str(folder / "runs"),
        "--results",
        str(folder / "results"),
    ]
    return [sys.executable, *words, *(word for item in BENCHMARK.items() for word in ("--set", "{}={}".format(*item)))]


def tables(folder: Path) -> dict[str, bytes]:
    """The tables of a benchmark; `run.json` holds times and is left out."""
    return {name: (folder / "results" / name).read_bytes() for name in ("scores.csv", "selection.csv")}


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("scored")
    run(benchmark_command(folder))
    return tables(folder)


def kill_benchmark(folder: Path, kills: int, seed: int) -> None:
    command = benchmark_command(folder)
    kill_repeatedly(command, ENVIRONMENT, lambda: newest_change(folder), kills, seed, longest=6.0)
    run(command)


def test_killed_benchmark(scored: dict[str, bytes], tmp_path: Path) -> None:
    kill_benchmark(tmp_path, kills=2, seed=0)
    assert tables(tmp_path) == scored


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_benchmark_often(scored: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    kill_benchmark(tmp_path, kills=4, seed=seed)
    assert tables(tmp_path) == scored
