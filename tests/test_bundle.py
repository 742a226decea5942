"""Packed scans, and the bundle for machines without a network: what is in it, and that it is whole."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pddm_utils.benchmark.gpu.bundle import LARGEST_MIB, make_bundle, size_mib
from pddm_utils.benchmark.gpu.wheels import NEEDED, pure_requirements
from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.packed import PackedScans, pack_scans
from pddm_utils.data.prepare import ScanCache, data_digest, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices

ONE_OF_EACH = "extends: smoke\ntrain_subjects: 1\nnoise: simplex\ntimesteps: [333, 818]\n"


def made(subject: str, slices: int, lesioned: bool, split: str) -> tuple[ManifestRow, Scan]:
    """A row and its scan of random values in a random brain."""
    rng = np.random.default_rng(len(subject))
    brain = rng.random((slices, 96, 96)) < 0.4
    image = np.where(brain, rng.random(brain.shape), 0).astype(np.float32)
    lesion = brain & (rng.random(brain.shape) < 0.1) & lesioned
    row = ManifestRow(subject, "/somewhere/scan.nii.gz", "", "lesion" if lesioned else "", split, "mine", "T2")
    return row, Scan(subject, "mine", "T2", image, brain, lesion, np.diag([2.0, 2.0, 2.0, 1.0]))


def test_scans_come_back_as_they_were_packed(tmp_path: Path) -> None:
    scans = [made("a", 3, False, "train"), made("bb", 1, True, "test"), made("ccc", 2, False, "train")]
    row, scan = scans[2]
    scans.append((replace(row, dataset="again"), replace(scan, dataset="again", image=scan.image[:, ::-1].copy())))
    scans[3][1].image[~scan.brain_mask] = 0  # a twin: the same subject and brain, so its differences are written
    path = tmp_path / "cohort.safetensors"
    pack_scans(path, scans, {"key": "k"})
    packed, cache = PackedScans(path), ScanCache(tmp_path / "cache")
    assert packed.facts == {"key": "k"} and b"somewhere" not in path.read_bytes()
    for row, (before, scan) in zip(packed.rows, scans, strict=True):
        found = load_scan(row, cache)
        assert (row.subject, row.split, bool(row.lesion_mask)) == (
            before.subject,
            before.split,
            bool(before.lesion_mask),
        )
        assert np.abs(found.image - scan.image).max() <= 0.5 / 255 + 1e-6
        assert np.array_equal(found.brain_mask, scan.brain_mask) and np.array_equal(found.lesion_mask, scan.lesion_mask)
        assert np.array_equal(found.affine, scan.affine)
        assert (found.dataset, found.subject) == (row.dataset, row.subject) == (scan.dataset, scan.subject)
    healthy = [packed.rows[0], packed.rows[2]]
    levels, slices = packed.slices_of(healthy), HealthySlices(healthy, cache)
    assert len(levels) == len(slices) == 5
    assert all(np.allclose(levels[number] / 255, slices[number], atol=1e-6) for number in range(5))


def test_keys_of_packed_scans_depend_on_what_the_file_holds(tmp_path: Path) -> None:
    paths = [tmp_path / name / "cohort.safetensors" for name in ("one", "same", "other")]
    for path, slices in zip(paths, (2, 2, 3), strict=True):
        path.parent.mkdir()
        pack_scans(path, [made("a", slices, False, "train"), made("b", 1, True, "test")], {})
    one, same, other = (data_digest(PackedScans(path).rows) for path in paths)
    assert one == same != other
    with pytest.raises(InputError, match="no such file"):
        data_digest([replace(PackedScans(paths[0]).rows[0], image=f"packed:{tmp_path / 'none'}:0")])


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: b"", lambda content: b"x" * 300])
def test_a_damaged_file_of_scans_is_one_clear_error(tmp_path: Path, damage) -> None:
    path = tmp_path / "cohort.safetensors"
    pack_scans(path, [made("a", 1, False, "train")], {})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="copy it again"):
        PackedScans(path)
    with pytest.raises(InputError, match="no such file"):
        PackedScans(tmp_path / "none.safetensors")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few simulated scans."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "mine.yaml").write_text(ONE_OF_EACH)
    make_bundle(folder / "bundle", folder / "runs", [str(folder / "mine.yaml")])
    return folder / "bundle"


def test_a_bundle_is_small_whole_and_names_no_place(bundle: Path) -> None:
    assert size_mib(bundle) < LARGEST_MIB
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    wheels = json.loads((bundle / "bundle.json").read_text())["wheels"]
    assert names == {"run.py", "bundle.json", "cohorts/mine.safetensors", *(f"wheels/{name}" for name in wheels)}
    packed = PackedScans(bundle / "cohorts" / "mine.safetensors")
    assert {row.split for row in packed.rows} == {"train", "val", "test"}
    assert packed.facts["settings"]["timesteps"] == [333, 818]


def test_wheels_hold_what_their_lists_say(bundle: Path) -> None:
    wheels = json.loads((bundle / "bundle.json").read_text())["wheels"]
    assert {name for name, _ in wheels.values()} == {"pddm-utils", *pure_requirements()} > set(NEEDED)
    for wheel in wheels:
        with zipfile.ZipFile(bundle / "wheels" / wheel) as archive:
            (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
            listed = dict(line.rsplit(",", 2)[:2] for line in archive.read(record).decode().splitlines())
            assert set(listed) == set(archive.namelist())
            for name, digest in listed.items():
                found = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
                assert name == record or digest == f"sha256={found}"


def test_pip_takes_the_wheels(bundle: Path, tmp_path: Path) -> None:
    words = ["-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--find-links", str(bundle / "wheels")]
    subprocess.run([sys.executable, *words, "--target", str(tmp_path), "pddm-utils", "nibabel"], check=True)
    assert (tmp_path / "pddm_utils" / "core" / "profiles" / "gpu-soop.yaml").is_file()
    assert (tmp_path / "nibabel" / "__init__.py").is_file()


def test_a_profile_without_scans_is_left_out_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PDDM_DATA", raising=False)
    with pytest.raises(InputError, match="PDDM_DATA"):
        make_bundle(tmp_path / "bundle", tmp_path, ["gpu-soop"])
