"""Sources of real scans. What needs the scans themselves runs where PDDM_DATA points at them."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.brain import extract_brain
from pddm_utils.data.cohort import cohort_rows, missing_test_sets
from pddm_utils.data.manifest import read_manifest, write_manifest
from pddm_utils.data.mask_files import load_brain_mask
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.preprocess.masks import extract_with_deepbet
from pddm_utils.data.sources import data_root, require_data_root
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.data.sources.mslub import mslub_rows
from pddm_utils.data.volume import load_volume, to_scan_space
from pddm_utils.evaluation.metrics import dice
from pddm_utils.publish.pictures import raw_rows, save_real_figures

real_scans = pytest.mark.skipif(data_root() is None, reason="PDDM_DATA is not set: no real scans to run on")


@pytest.fixture
def ixi_layout(tmp_path: Path) -> Path:
    """The folder layout of `ixi-t1-2mm` with empty files: 6 train, 4 val, 5 test, 1 unassigned subject."""
    root = tmp_path / "ixi-t1-2mm"
    (root / "T1").mkdir(parents=True)
    (root / "DLMUSE").mkdir()
    splits = ["train"] * 6 + ["val"] * 4 + ["test"] * 5 + ["unassigned"]
    lines = ["subject,split,age_years,sex"]
    for number, split in enumerate(splits):
        subject = f"IXI{97 * number % 1000:03d}-HH-{number}"
        lines.append(f"{subject},{split},40,F")
        (root / "T1" / f"{subject}_T1.nii.gz").touch()
        (root / "DLMUSE" / f"{subject}_T1_DLMUSE.nii.gz").touch()
    (root / "subjects.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_data_root_follows_the_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PDDM_DATA", str(tmp_path))
    assert data_root() == require_data_root() == tmp_path
    monkeypatch.setenv("PDDM_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match="PDDM_DATA: .*none is no folder; set it"):
        require_data_root()
    for unset in ("", " "):
        monkeypatch.setenv("PDDM_DATA", unset)
        assert data_root() is None
    monkeypatch.delenv("PDDM_DATA")
    with pytest.raises(InputError, match="PDDM_DATA: not set; set it"):
        require_data_root()


def test_ixi_rows_cover_the_splits(ixi_layout, tmp_path) -> None:
    rows = ixi_rows(ixi_layout)
    assert Counter((row.split, row.dataset) for row in rows) == {
        ("train", "ixi-t1-healthy"): 6,
        ("val", "ixi-t1-healthy"): 4,
        ("val", "ixi-t1-tumour"): 4,
        ("val", "ixi-t1-ms"): 4,
        ("test", "ixi-t1-healthy"): 5,
        ("test", "ixi-t1-tumour"): 5,
        ("test", "ixi-t1-ms"): 5,
    }
    assert all(row.contrast == "T1" and Path(row.brain_mask).is_file() for row in rows)
    write_manifest(rows, tmp_path / "scans.csv")
    assert read_manifest(tmp_path / "scans.csv") == rows


def test_lesion_seeds_are_disjoint_and_do_not_depend_on_the_limits(ixi_layout) -> None:
    rows = ixi_rows(ixi_layout)
    seeds = [row.inserted_lesion[1] for row in rows if row.inserted_lesion]
    assert len(set(seeds)) == len(seeds) == 18
    limited = ixi_rows(ixi_layout, train=2, val=1, test=3, lesion_kinds=("tumour",))
    assert Counter(row.split for row in limited) == {"train": 2, "val": 2, "test": 6}
    assert set(limited) <= set(rows)
    assert all(not row.lesion_mask for row in ixi_rows(ixi_layout, train=0, lesion_kinds=()))


def test_sources_refuse_what_they_cannot_use(ixi_layout, tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown lesion kind 'stroke'"):
        ixi_rows(ixi_layout, lesion_kinds=("stroke",))
    with pytest.raises(ValueError, match="must not be negative"):
        ixi_rows(ixi_layout, val=-1)
    with pytest.raises(ValueError, match="unknown contrast 'PD'"):
        mslub_rows(tmp_path, "PD")
    with pytest.raises(InputError, match=r"patient07.*T1.nii.gz does not exist; correct it"):
        mslub_rows(tmp_path, "T1")
    (missing := ixi_layout / "ixi-t1-2mm" / "T1" / "IXI000-HH-0_T1.nii.gz").unlink()
    with pytest.raises(InputError, match=f"{missing.name} does not exist"):
        ixi_rows(ixi_layout)
    with pytest.raises(InputError, match=r"subjects.csv: cannot be read .*; point PDDM_DATA"):
        ixi_rows(tmp_path / "none")


@real_scans
def test_real_ixi_splits_are_the_published_ones() -> None:
    rows = ixi_rows(require_data_root())
    counts = Counter((row.split, row.dataset) for row in rows)
    assert [counts[split, "ixi-t1-healthy"] for split in ("train", "val", "test")] == [109, 15, 57]
    assert [counts[split, "ixi-t1-tumour"] for split in ("train", "val", "test")] == [0, 15, 57]


@real_scans
def test_real_ixi_scan_keeps_its_voxels_and_returns_to_its_space(tmp_path) -> None:
    row = ixi_rows(require_data_root(), train=1, val=0, test=0)[0]
    scan = load_scan(row, ScanCache(tmp_path))
    source = load_volume(row.image)
    inside = load_brain_mask(row.brain_mask, source)
    assert scan.brain_mask.sum() == inside.sum(), "already 2 mm: nothing is resampled"
    assert 0.8 < scan.brain_mask.sum() * 8e-6 < 2.2, "litres"
    back = to_scan_space(scan.brain_mask, scan.affine, source.image)
    np.testing.assert_array_equal(np.asarray(back.dataobj, bool), inside)
    returned = to_scan_space(scan.image, scan.affine, source.image).get_fdata()
    low, high = np.percentile(source.data[inside], (1, 99))
    np.testing.assert_allclose(returned[inside], np.clip((source.data[inside] - low) / (high - low), 0, 1), atol=1e-5)


@real_scans
def test_real_ixi_scan_takes_a_lesion(tmp_path) -> None:
    healthy, tumour = ixi_rows(require_data_root(), train=0, val=1, test=0, lesion_kinds=("tumour",))
    cache = ScanCache(tmp_path)
    before, after = load_scan(healthy, cache), load_scan(tumour, cache)
    lesion = after.lesion_mask
    assert lesion.any()
    assert not (lesion & ~after.brain_mask).any()
    assert after.image[lesion].mean() < before.image[lesion].mean(), "dark on T1"


@real_scans
def test_real_fallback_extraction_agrees_with_the_labels() -> None:
    row = ixi_rows(require_data_root(), train=0, val=0, test=1, lesion_kinds=())[0]
    source = load_volume(row.image)
    found, labels = extract_brain(source), load_brain_mask(row.brain_mask, source)
    assert dice(found, labels) > 0.9


@real_scans
@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_real_mslub_patients(tmp_path, contrast) -> None:
    millilitres = {"mslub-07": 1.3, "mslub-19": 49.769}
    for row in mslub_rows(require_data_root(), contrast):
        assert (row.dataset, row.split) == (f"mslub-{contrast.lower()}", "test")
        scan = load_scan(row, ScanCache(tmp_path))
        assert 1.0 < scan.brain_mask.sum() * 8e-6 < 1.2
        assert scan.lesion_mask.sum() * 8e-3 == pytest.approx(millilitres[row.subject], rel=0.05)
        assert (scan.lesion_mask & ~scan.brain_mask).sum() <= 0.01 * scan.lesion_mask.sum()
        source = load_volume(row.image)
        nonzero = source.data != 0
        back = np.asarray(to_scan_space(scan.brain_mask, scan.affine, source.image).dataobj, bool)
        assert dice(back, nonzero) > 0.97


@real_scans
def test_book_figures_show_whole_heads_and_both_patients() -> None:
    rows = raw_rows(data_root())
    assert [row.dataset for row in rows] == ["ixi-t1-healthy"] * 2 + ["mslub-t1"] * 2
    assert all(row.split == "test" and row.contrast == "T1" for row in rows)
    for row in rows[:2]:  # with the skull on: there is signal outside the brain
        head = load_volume(row.image)
        assert (head.data[~load_brain_mask(row.brain_mask, head)] > head.data.max() / 4).any()


def test_without_deepbet_its_picture_says_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("pddm_utils.data.preprocess.masks.version", _not_installed)
    nib.save(nib.Nifti1Image(np.arange(64, dtype=np.float32).reshape(4, 4, 4), np.eye(4)), tmp_path / "head.nii.gz")
    with pytest.raises(InputError, match=r"pddm-utils\[extraction\]"):
        extract_with_deepbet(load_volume(tmp_path / "head.nii.gz"))


def _not_installed(name: str) -> str:
    raise PackageNotFoundError(name)


def test_without_scans_there_are_no_figures_of_them(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("PDDM_DATA", raising=False)
    with pytest.raises(InputError, match="PDDM_DATA"):
        save_real_figures(tmp_path / "runs", tmp_path / "figures")
    assert not list(tmp_path.iterdir())


def test_a_test_set_that_the_data_folder_lacks_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with other archives alone, such as the one that the public site fetches, stops no simulated cohort."""
    settings = load_settings("laptop", {"test_subjects": 1, "train_subjects": 1})
    monkeypatch.setenv("PDDM_DATA", str(tmp_path))
    assert missing_test_sets(settings) == list(settings.extra_test_sets) == ["mslub-t2"]
    assert all(row.dataset.startswith("simulated") for row in cohort_rows(settings))
    (tmp_path / "mslub-mni").mkdir()
    assert missing_test_sets(settings) == []
    assert missing_test_sets(load_settings("ixi")) == [], "a cohort of real scans is never scored in part"
