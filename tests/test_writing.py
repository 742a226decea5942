"""Output that cannot be written: one clear refusal, what was there stays, nothing partial is left."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pddm_utils.__main__ import main
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file, whole_files
from pddm_utils.data.manifest import ManifestRow, write_manifest
from pddm_utils.data.prepare import ScanCache, prepare_scan
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources.simulated import simulated_rows
from pddm_utils.data.volume import save_nifti
from pddm_utils.detection.detect import Detection
from pddm_utils.detection.quality import Quality
from pddm_utils.training.checkpoint import load_checkpoint, save_checkpoint

GRID = np.diag([2.0, 2, 2, 1])
SCAN_ROW = ManifestRow("s", "simulated:1", "", "", "test", "simulated-t2-healthy", "T2")


@contextmanager
def full_disk(room: int = 20_000) -> Iterator[None]:
    """No file can grow beyond `room` bytes, as on a disk with that much left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")
    }


def noise(shape: tuple[int, ...] = (60, 60, 40)) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def test_image_on_a_full_disk(tmp_path: Path) -> None:
    small = nib.Nifti1Image(np.zeros((5, 5, 5), np.float32), GRID)
    save_nifti(small, tmp_path / "map.nii.gz")
    before = everything(tmp_path)
    for name in ("map.nii.gz", "other.nii"):
        with full_disk(), pytest.raises(InputError, match=f"{name}: cannot write there .*; make room"):
            save_nifti(nib.Nifti1Image(noise(), GRID), tmp_path / name)
    assert everything(tmp_path) == before


def test_manifest_on_a_full_disk(tmp_path: Path) -> None:
    rows = simulated_rows("T2", 2, 1, 1, 1)
    write_manifest(rows, tmp_path / "scans.csv")
    before = everything(tmp_path)
    with full_disk(), pytest.raises(InputError, match="scans.csv: cannot write there"):
        write_manifest(simulated_rows("T2", 2000, 1, 1, 1), tmp_path / "scans.csv")
    assert everything(tmp_path) == before


def test_cache_on_a_full_disk(tmp_path: Path) -> None:
    cache = ScanCache(tmp_path / "cache")
    with full_disk(), pytest.raises(InputError, match="cache: cannot write there"):
        cache.load(SCAN_ROW)
    assert everything(tmp_path) == {"cache": b""}
    assert np.array_equal(cache.load(SCAN_ROW).image, prepare_scan(SCAN_ROW).image), "with room it goes on"


def test_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    def made(width: int) -> tuple:
        network = torch.nn.Linear(width, width)
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.ones(1, width)).sum().backward()
        optimizer.step()
        return network, {name: p.detach().clone() for name, p in network.named_parameters()}, optimizer

    path, small = tmp_path / "model.safetensors", made(4)
    save_checkpoint(path, *small, {"step": 1})
    before = everything(tmp_path)
    with full_disk(), pytest.raises(InputError, match="model.safetensors: cannot write there"):
        save_checkpoint(path, *made(200), {"step": 2})
    assert everything(tmp_path) == before and load_checkpoint(path, *small) == {"step": 1}


def detection(values: np.ndarray) -> Detection:
    image = nib.Nifti1Image(values, GRID)
    brain = np.zeros((6, 96, 96), bool)
    brain[:, 20:70, 20:70] = True
    volume = np.where(brain, noise(brain.shape), 0).astype(np.float32)
    scan = Scan("s", "detect", "T2", volume, brain, np.zeros_like(brain), GRID)
    return Detection(image, image, image, scan, volume, volume, brain, "model", 499, 0.1, Quality(0.0, {}, {}, ()))


@pytest.mark.parametrize("values", [noise(), np.zeros((60, 60, 40), np.float32)], ids=["first image", "picture"])
def test_detection_on_a_full_disk_keeps_the_results_before(tmp_path: Path, values: np.ndarray) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("of before")
    with full_disk(), pytest.raises(InputError, match="out: cannot write there"):
        detection(values).save(tmp_path / "out")
    assert everything(tmp_path) == {"out": b"", "out/report.json": b"of before"}
    with full_disk(), pytest.raises(InputError, match="new: cannot write there"):
        detection(values).save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    below = tmp_path / "file" / "deeper"
    for write in (
        lambda: save_nifti(nib.Nifti1Image(noise(), GRID), below / "a.nii"),
        lambda: write_manifest(simulated_rows("T2", 1, 1, 1, 1), below / "a.csv"),
        lambda: ScanCache(below),
        lambda: detection(noise()).save(below),
    ):
        with pytest.raises(InputError, match="deeper.*: cannot write there"):
            write()
    assert everything(tmp_path) == {"file": b"in the way"}


def test_command_with_unwritable_output_ends_with_one_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    nib.save(nib.Nifti1Image(noise(), GRID), tmp_path / "a.nii")
    (tmp_path / "scans.csv").write_text("image\na.nii\n")
    assert main(["manifest", "folder", str(tmp_path), "--out", str(tmp_path / "file" / "m.csv")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "cannot write there" in error and error.count("\n") == 1


def test_a_failure_inside_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), whole_files(tmp_path) as scratch:
        (scratch / "a.txt").write_text("half")
        raise ZeroDivisionError
    assert everything(tmp_path) == {"a.txt": b"before"}
