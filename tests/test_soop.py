"""SOOP: its splits, its slices as NIfTI files, and a scan of one slice on its way through the package."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from loopback import serve
from pddm_utils.benchmark.evaluate import every_nth_slice, score_noise_level
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.brain import stripped_brain
from pddm_utils.data.manifest import read_manifest, write_manifest
from pddm_utils.data.prepare import ScanCache, data_digest, load_scan
from pddm_utils.data.preprocess.plan import Plan
from pddm_utils.data.preprocess.subject import preprocess_scan
from pddm_utils.data.scan import scale_to_unit_range
from pddm_utils.data.sources import data_root, soop_table
from pddm_utils.data.sources.registry import SOURCES, fetch, make_manifest
from pddm_utils.data.sources.soop import FOLDER, soop_rows
from pddm_utils.data.sources.soop_archive import read_mosaic
from pddm_utils.data.sources.soop_scaling import compare_scalings
from pddm_utils.data.sources.soop_table import AFFINE, SPLIT_TABLE, slice_image
from pddm_utils.data.volume import load_volume, to_scan_space
from pddm_utils.evaluation.postprocess import anomaly_map, erode_in_plane, median_filter
from pddm_utils.methods.registry import open_method

soop_slices = pytest.mark.skipif(
    data_root() is None or not (data_root() / FOLDER).is_dir(), reason="PDDM_DATA holds no soop-flair"
)


def table() -> list[dict[str, str]]:
    with SPLIT_TABLE.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def brain_slice(seed: int = 0) -> np.ndarray:
    """`(189, 157)` uint8: an ellipse of even grey values with a dark hole, as the slices of the data set."""
    row, column = np.mgrid[-94:95, -78:79]
    values = 2 * np.random.default_rng(seed).integers(40, 60, row.shape)
    brain = (row / 88) ** 2 + (column / 70) ** 2 < 1
    return np.where(brain & (np.hypot(row, column) > 8), values, 0).astype(np.uint8)


def lesion_slice(half: int = 6) -> np.ndarray:
    lesion = np.zeros((189, 157), dtype=bool)
    lesion[60 - half : 60 + half, 100 - half : 100 + half] = True
    return lesion


@pytest.fixture
def soop_layout(tmp_path: Path) -> Path:
    """A folder as `PDDM_DATA` with three slices for every split and data set of the committed table."""
    taken: Counter = Counter()
    chosen = []
    for record in table():
        role = (record["split"], record["dataset"])
        taken[role] += 1
        if taken[role] <= 3:
            chosen.append(record)
    flair = np.array([brain_slice(number) for number in range(len(chosen))])
    lesion = np.array([lesion_slice() & (record["lesion_mm2"] != "0") for record in chosen])
    flair[lesion] = 200
    (tmp_path / FOLDER).mkdir()
    subjects = [record["subject"].removeprefix("sub-") for record in chosen]
    np.savez(tmp_path / FOLDER / "axial.npz", subject=subjects, flair=flair, lesion=lesion)
    return tmp_path


def three_each(root: Path):
    return soop_rows(root, root / "derived", train=3, val=3, val_lesion=3, test=3)


def test_splits_follow_the_hash_of_the_name() -> None:
    records = table()
    assert len(records) == len({record["subject"] for record in records}) == 1205
    for has_lesion, blocks in ((False, ("train", 320, "val", 40)), (True, ("val", 100))):
        group = [record for record in records if (record["lesion_mm2"] != "0") == has_lesion]
        group.sort(key=lambda record: hashlib.sha256(record["subject"].encode()).hexdigest())
        splits = [name for name, count in zip(blocks[::2], blocks[1::2], strict=True) for _ in range(count)]
        assert [record["split"] for record in group[: len(splits)]] == splits
        assert {record["split"] for record in group[len(splits) :]} == {"test"}
    assert Counter((record["split"], record["dataset"]) for record in records) == {
        ("train", "soop-flair-free"): 320,
        ("val", "soop-flair-free"): 40,
        ("val", "soop-flair"): 76,
        ("val", "soop-flair-small"): 24,
        ("test", "soop-flair-free"): 80,
        ("test", "soop-flair"): 543,
        ("test", "soop-flair-small"): 113,
        ("test", "unusable"): 9,
    }


def test_rows_of_a_folder(soop_layout, tmp_path) -> None:
    rows = three_each(soop_layout)
    assert Counter((row.split, row.dataset) for row in rows) == dict.fromkeys(
        [("test", name) for name in ("soop-flair", "soop-flair-small", "soop-flair-free")]
        + [("val", name) for name in ("soop-flair", "soop-flair-small", "soop-flair-free")]
        + [("train", "soop-flair-free")],
        3,
    )
    assert all(row.scaling == "quartiles" and row.contrast == "FLAIR" for row in rows)
    assert all(bool(row.lesion_mask) == (row.dataset != "soop-flair-free") for row in rows)
    assert three_each(soop_layout) == rows  # nothing is written again, nothing changes
    write_manifest(rows, tmp_path / "scans.csv")
    assert read_manifest(tmp_path / "scans.csv") == rows
    with pytest.raises(InputError, match="sub-.*does not exist"):  # fewer subjects than the table
        soop_rows(soop_layout, soop_layout / "derived")


def test_what_is_wrong_with_the_folder_is_said(tmp_path) -> None:
    with pytest.raises(InputError, match="axial.npz: cannot be read.*point PDDM_DATA"):
        soop_rows(tmp_path, tmp_path)
    (tmp_path / FOLDER).mkdir()
    path = tmp_path / FOLDER / "axial.npz"
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="axial.npz: no table of slices"):
        soop_rows(tmp_path, tmp_path)
    np.savez(path, subject=["1"], flair=np.zeros((1, 5, 6)), lesion=np.zeros((1, 5, 6)))
    with pytest.raises(InputError, match=r"slices of shape \(5, 6\)"):
        soop_rows(tmp_path, tmp_path)


def test_a_scan_of_one_slice_is_prepared_in_its_plane(soop_layout, tmp_path) -> None:
    cache = ScanCache(tmp_path / "cache")
    rows = {(row.split, row.dataset): row for row in three_each(soop_layout)}
    scan = load_scan(rows["val", "soop-flair"], cache)
    assert scan.image.shape == scan.brain_mask.shape == scan.lesion_mask.shape == (1, 96, 96)
    assert cache.slice_count(rows["train", "soop-flair-free"]) == 1
    assert scan.brain_mask[0, 48, 48]  # the dark hole in the middle is filled
    assert abs(int(scan.brain_mask.sum()) * 4 - np.pi * 88 * 70) < 200
    assert scan.lesion_mask.sum() == 36 and (scan.image[scan.lesion_mask] > 0.9).all()
    assert 0 <= scan.image.min() and scan.image.max() <= 1 and not scan.image[~scan.brain_mask].any()
    # The lesion stands in the upper right of the picture: anterior, and on the patient's right, as columns ascend.
    place = scan.affine @ [*np.argwhere(scan.lesion_mask).mean(0)[::-1], 1]
    np.testing.assert_allclose(place[:3], [99.5 - 78, 188 - 59.5 - 112, 18], atol=0.6)
    back = to_scan_space(scan.lesion_mask, scan.affine, load_volume(rows["val", "soop-flair"].image).image)
    drawn = np.asarray(back.dataobj)[:, ::-1, 0].T > 0
    assert back.shape == (157, 189, 1) and (drawn & lesion_slice()).sum() > 0.8 * 144


def test_a_scan_of_one_slice_is_scored(soop_layout, tmp_path) -> None:
    cache = ScanCache(tmp_path / "cache")
    rows = [row for row in three_each(soop_layout) if row.dataset == "soop-flair" and row.split == "val"]
    method = open_method("intensity", load_settings("soop"))
    for step in (1, 3):  # a slice is never left out where there is no other
        table = score_noise_level(method, rows, cache, None, step)
        assert len(table) == 3 and (table.auprc > 0.7).all()
    scan = load_scan(rows[0], cache)
    assert every_nth_slice(scan, 7).image.shape == (1, 96, 96)


def test_the_median_of_one_slice_is_taken_in_the_plane() -> None:
    rng = np.random.default_rng(0)
    image, rebuilt = rng.random((2, 1, 40, 50), dtype=np.float32)
    brain = np.ones((1, 40, 50), dtype=bool)
    brain[:, :5] = False
    inside = erode_in_plane(brain)
    expected = ndimage.median_filter((np.abs(image - rebuilt) * inside)[0], size=3) * inside[0]
    np.testing.assert_array_equal(anomaly_map(image, rebuilt, brain)[0], expected)
    for size in (1, 5):
        expected = ndimage.median_filter(image[0], size=size)
        np.testing.assert_array_equal(median_filter(image, np.ones_like(brain), size)[0], expected)


def test_only_axial_slices_without_a_skull_are_taken(tmp_path, write_nifti, row_of) -> None:
    cache = ScanCache(tmp_path / "cache")
    image = brain_slice().astype(np.float32)
    for axis, place in ((0, "sagittal"), (1, "coronal")):
        path = write_nifti(f"{place}.nii.gz", np.expand_dims(image, axis), np.diag([1.0, 1, -1, 1]))
        with pytest.raises(InputError, match=f"{place}.nii.gz: one slice that is not axial"):
            load_scan(row_of(path), cache)
    skull = write_nifti("skull.nii.gz", np.where(image > 0, image, 7)[..., None])
    with pytest.raises(InputError, match="skull.nii.gz: does not look skull-stripped"):
        load_scan(row_of(skull), cache)
    with pytest.raises(InputError, match="skull.nii.gz: one slice, and brain extraction needs a volume"):
        load_scan(row_of(skull, brain_mask="extract"), cache)
    with pytest.raises(InputError, match="shape .1, 1, 5.; pass one 3-D volume or one slice"):
        load_scan(row_of(write_nifti("line.nii.gz", np.arange(5.0).reshape(1, 1, 5))), cache)


def test_quartiles_are_not_moved_by_a_large_lesion() -> None:
    values = np.random.default_rng(0).normal(100, 10, (1, 40, 40))
    brain = np.ones(values.shape, dtype=bool)
    bright = values.copy()
    bright[0, :5, :20] = 200  # a sixteenth of the brain
    healthy = np.ones(values.shape, dtype=bool)
    healthy[0, :5, :20] = False

    def moved(scaling: str) -> float:
        before, after = (scale_to_unit_range(image, brain, scaling) for image in (values, bright))
        return float(np.abs(after - before)[healthy].mean())

    assert moved("quartiles") < 0.05 < 0.2 < moved("percentiles")
    scaled = scale_to_unit_range(values, brain, "quartiles")
    first, median, third = np.percentile(scaled, (25, 50, 75))
    assert median == pytest.approx(0.5, abs=1e-6) and third - first == pytest.approx(1 / 6, abs=1e-6)
    with pytest.raises(ValueError, match="do not vary"):
        scale_to_unit_range(np.ones((1, 4, 4)), np.ones((1, 4, 4), dtype=bool), "quartiles")


def test_scaling_is_part_of_the_data_and_of_the_manifest(tmp_path, row_of, write_nifti) -> None:
    cache = ScanCache(tmp_path / "cache")
    path = write_nifti("a.nii.gz", brain_slice()[..., None], AFFINE)
    usual, robust = row_of(path), row_of(path, scaling="quartiles")
    assert data_digest([usual]) != data_digest([robust])
    assert not np.array_equal(load_scan(usual, cache).image, load_scan(robust, cache).image)
    write_manifest([usual], tmp_path / "usual.csv")
    assert "scaling" not in (tmp_path / "usual.csv").read_text()
    with pytest.raises(InputError, match="unknown scaling 'log'; use one of percentiles, quartiles"):
        write_manifest([row_of(path, scaling="log")], tmp_path / "other.csv")


def write_mosaic(folder: Path, name: str, flair: np.ndarray, lesion: np.ndarray, opacity: float = 0.5) -> None:
    """A mosaic and its 3-D mask in the layout of the public archive, whose axial slice is this one."""
    shown = np.where(lesion, opacity, 0)[..., None] * (255, 0, 0) + (1 - np.where(lesion, opacity, 0)[..., None]) * (
        flair[..., None] + 0.0
    )
    picture = np.zeros((189, 692, 3), dtype=np.uint8)
    picture[:, :157] = np.rint(shown)
    mask = np.zeros((157, 189, 136), dtype=np.uint8)
    mask[:, :, 68] = lesion.T[::-1, ::-1]
    affine = np.array([[-1.0, 0, 0, 78], [0, 1, 0, -112], [0, 0, 1, -50], [0, 0, 0, 1]])
    for part in ("PNG", "NIfTI"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(folder / "PNG" / f"r{name}_lesion.nii.png"))
    nib.save(nib.Nifti1Image(mask, affine), folder / "NIfTI" / f"bwsr{name}_lesion.nii.gz")


def mosaic_files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "PNG" / f"r{name}_lesion.nii.png", folder / "NIfTI" / f"bwsr{name}_lesion.nii.gz"


@pytest.mark.parametrize("opacity", [0.5, 0.25])
def test_the_red_comes_off_a_mosaic(tmp_path, opacity) -> None:
    flair, lesion = brain_slice(), lesion_slice()
    write_mosaic(tmp_path, "sub-1", flair | 1, lesion, opacity)  # odd grey values, as in the archive
    grey, found = read_mosaic(*mosaic_files(tmp_path, "sub-1"))
    assert np.array_equal(found, lesion) and grey.dtype == np.uint8 and not (grey % 2).any()
    assert np.array_equal(grey[~lesion], flair[~lesion])
    assert np.abs(grey[lesion].astype(int) - (flair[lesion] | 1)).max() <= 3  # half of the values are lost in the red


def test_mosaics_that_are_not_of_their_mask_are_refused(tmp_path) -> None:
    write_mosaic(tmp_path, "sub-1", brain_slice(), lesion_slice())
    write_mosaic(tmp_path, "sub-2", brain_slice(), np.roll(lesion_slice(), 1, axis=1))
    picture, mask = mosaic_files(tmp_path, "sub-1")
    with pytest.raises(InputError, match="sub-1_lesion.nii.png: 144 red pixels, but the mask bwsrsub-2.*elsewhere"):
        read_mosaic(picture, mosaic_files(tmp_path, "sub-2")[1])
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6), dtype=np.uint8)), str(tmp_path / "small.png"))
    with pytest.raises(InputError, match=r"small.png: a picture of shape \(5, 6\)"):
        read_mosaic(tmp_path / "small.png", mask)
    picture.write_bytes(picture.read_bytes()[:500])
    with pytest.raises(InputError, match="sub-1_lesion.nii.png: no readable PNG"):
        read_mosaic(picture, mask)


def test_the_archive_gives_the_same_files_as_the_slices(soop_layout, tmp_path, monkeypatch) -> None:
    chosen = soop_rows(soop_layout, tmp_path / "one", train=2, val=1, val_lesion=1, test=1)
    names = {row.subject.removeprefix("soop-") for row in chosen}
    short = tmp_path / "table.csv"
    lines = SPLIT_TABLE.read_text().splitlines()
    short.write_text("\n".join([lines[0], *(line for line in lines if line.split(",")[0] in names)]))
    monkeypatch.setattr(soop_table, "SPLIT_TABLE", short)
    with np.load(soop_layout / FOLDER / "axial.npz") as arrays:
        for name, flair, lesion in zip(arrays["subject"], arrays["flair"], arrays["lesion"], strict=True):
            if f"sub-{name}" in names:
                write_mosaic(tmp_path / "data" / "soop" / "Demo-1", f"sub-{name}", flair, lesion)
    rows = make_manifest("soop", tmp_path / "data" / "soop", tmp_path / "scans.csv", "FLAIR")
    assert [row.subject for row in rows] == [row.subject for row in chosen]
    for one, other in zip(rows, chosen, strict=True):
        assert Path(one.image).read_bytes() == Path(other.image).read_bytes()
        assert (one.split, one.dataset, one.scaling) == (other.split, other.dataset, other.scaling)
    below = soop_rows(tmp_path / "data", tmp_path / "three")  # the archive where `fetch` leaves it
    assert [row.subject for row in below] == [row.subject for row in chosen]
    with pytest.raises(InputError, match="contrast 'T2': the SOOP scans at hand are FLAIR"):
        make_manifest("soop", tmp_path / "data" / "soop", tmp_path / "scans.csv")
    mosaic_files(tmp_path / "data" / "soop" / "Demo-1", min(names))[0].unlink()
    with pytest.raises(InputError, match="1 of 16 files are missing, such as PNG/rsub-"):
        make_manifest("soop", tmp_path / "data" / "soop", tmp_path / "scans.csv", "FLAIR")


def test_the_archive_is_fetched_without_a_published_checksum(tmp_path, monkeypatch, capsys) -> None:
    write_mosaic(tmp_path / "made" / "Demo-ae553f8", "sub-1", brain_slice(), lesion_slice())
    archive = shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "made")
    with serve() as server:
        server.files["/ae553f8.zip"] = Path(archive).read_bytes()
        file = replace(SOURCES["soop"].files[0], url=f"{server.url}/ae553f8.zip")
        monkeypatch.setitem(SOURCES, "soop", replace(SOURCES["soop"], files=(file,)))
        fetch("soop", tmp_path / "data")
    assert "CC0" in capsys.readouterr().out
    assert mosaic_files(tmp_path / "data" / "soop" / "Demo-ae553f8", "sub-1")[1].is_file()
    with pytest.raises(InputError, match="2408 of 2410 files are missing, such as PNG/rsub-"):
        make_manifest("soop", tmp_path / "data" / "soop", tmp_path / "scans.csv", "FLAIR")


def test_one_slice_is_not_preprocessed(write_nifti, row_of) -> None:
    with pytest.raises(InputError, match="one.nii.gz: one slice, and preprocessing needs a volume"):
        preprocess_scan(row_of(write_nifti("one.nii.gz", brain_slice()[..., None], AFFINE)), Plan())


def test_whole_volumes_train_on_their_lesion_free_part(tmp_path) -> None:
    records = {record["dataset"]: record["subject"] for record in reversed(table()) if record["split"] != "test"}
    free, lesioned = records["soop-flair-free"], records["soop-flair"]
    x, y, z = np.mgrid[-39.0:40, -47.0:48, -35.0:36] * 2
    brain = (x / 66) ** 2 + (y / 82) ** 2 + (z / 60) ** 2 < 1
    values = np.where(brain, np.random.default_rng(0).uniform(100, 200, brain.shape), 0).astype(np.float32)
    affine = np.array([[-2.0, 0, 0, 78], [0, 2, 0, -112], [0, 0, 2, -52], [0, 0, 0, 1]])
    mask = np.zeros((157, 189, 136), dtype=np.uint8)
    mask[60:70, 90:100, 30:40] = 1  # z from -20 to -11 mm
    for name in (free, lesioned):
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"w{name}_FLAIR.nii.gz")
        nib.save(nib.Nifti1Image(mask, affine @ np.diag([0.5, 0.5, 0.5, 1])), tmp_path / f"bwsr{name}_lesion.nii.gz")
    rows = {row.dataset: row for row in make_manifest("soop-volumes", tmp_path, tmp_path / "scans.csv", "FLAIR")}
    assert set(rows) == {"soop-flair-volume", "soop-flair-volume-free"}
    assert all(row.scaling == "quartiles" for row in rows.values())
    cache = ScanCache(tmp_path / "cache")
    whole, part = (load_scan(rows[name], cache) for name in ("soop-flair-volume", "soop-flair-volume-free"))
    assert whole.lesion_mask.sum() == pytest.approx(10**3 / 8, abs=30) and not part.lesion_mask.any()
    lesion_top = (whole.affine @ [0, 0, np.flatnonzero(whole.lesion_mask.any(axis=(1, 2))).max(), 1])[2]
    bottom, top = ((part.affine @ [0, 0, index, 1])[2] for index in (0, len(part.image) - 1))
    assert bottom - lesion_top >= 4 and top == pytest.approx((whole.affine @ [0, 0, len(whole.image) - 1, 1])[2])
    (tmp_path / f"bwsr{free}_lesion.nii.gz").unlink()
    with pytest.raises(InputError, match=f"no bwsr{free}_lesion.nii.gz for its volume"):
        make_manifest("soop-volumes", tmp_path, tmp_path / "scans.csv", "FLAIR")


@soop_slices
def test_mosaics_of_the_archive_give_the_published_slices_to_the_grey_value() -> None:
    folder = data_root() / FOLDER
    with np.load(folder / "axial.npz") as arrays:
        expected = {f"sub-{name}": number for number, name in enumerate(arrays["subject"])}
        flair, lesion = arrays["flair"], arrays["lesion"]
    pictures = sorted((folder / "original" / "PNG").glob("*.png"))
    assert len(pictures) == 60
    for picture in pictures:
        name = picture.name.split("_")[0].removeprefix("r")
        grey, found = read_mosaic(picture, folder / "NIfTI" / f"bwsr{name}_lesion.nii.gz")
        assert np.array_equal(grey, flair[expected[name]]) and np.array_equal(found, lesion[expected[name]]), name


@pytest.mark.slow
@soop_slices
def test_the_scaling_is_the_better_one_on_validation_slices(tmp_path) -> None:
    table = compare_scalings(soop_rows(data_root()), ScanCache(tmp_path)).set_index("scaling")
    assert table.loc["quartiles", "z_score"] > table.loc["percentiles", "z_score"] + 0.05
    assert table.loc["quartiles", "brightness"] > table.loc["percentiles", "brightness"]
    assert (table.slices == 76).all()


@soop_slices
def test_slices_lie_where_their_lesion_masks_do(tmp_path) -> None:
    folder = data_root() / FOLDER
    with np.load(folder / "axial.npz") as arrays:
        subjects, lesion = arrays["subject"], arrays["lesion"]
    for number in range(0, len(subjects), 100):
        whole = nib.load(folder / "NIfTI" / f"bwsrsub-{subjects[number]}_lesion.nii.gz")
        image = slice_image(lesion[number])
        nib.save(image, tmp_path / "slice.nii.gz")
        assert np.array_equal(nib.load(tmp_path / "slice.nii.gz").affine, AFFINE)
        voxels = np.argwhere(np.asarray(image.dataobj))
        there = nib.affines.apply_affine(np.linalg.inv(whole.affine) @ AFFINE, voxels).astype(int)
        assert np.asarray(whole.dataobj)[tuple(there.T)].all()
        assert len(voxels) == np.count_nonzero(np.asarray(whole.dataobj)[:, :, 68])


@soop_slices
def test_the_table_agrees_with_the_slices(tmp_path) -> None:
    records = {record["subject"]: record for record in table()}
    with (data_root() / FOLDER / "subjects.csv").open(encoding="utf-8") as stream:
        areas = {record["subject"]: record["lesion_mm2_axial"] for record in csv.DictReader(stream)}
    assert {name: record["lesion_mm2"] for name, record in records.items()} == areas
    rows, cache = soop_rows(data_root()), ScanCache(tmp_path)
    assert len(rows) == 1196
    for row in rows[::25]:
        pixels = int(load_scan(row, cache).lesion_mask.sum())
        expected = {"soop-flair": pixels >= 20, "soop-flair-small": 0 < pixels < 20, "soop-flair-free": pixels == 0}
        assert expected[row.dataset], (row.scan_id, pixels)
    assert stripped_brain(load_volume(rows[0].image)).shape == (157, 189, 1)
