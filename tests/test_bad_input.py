"""Bad scans, as real files: one InputError that names the file and the remedy, and nothing left behind."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow, read_manifest
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_all
from pddm_utils.data.volume import load_volume, save_nifti

GRID = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[ManifestRow], str]:
    """Prepare a row that must be refused; return the message, after checking that the cache stayed empty."""

    def attempt(row: ManifestRow) -> str:
        cache = ScanCache(tmp_path / "cache")
        with pytest.raises(InputError) as caught:
            load_scan(row, cache)
        assert list(cache.folder.iterdir()) == []
        assert ";" in str(caught.value), "what is wrong; what to do"
        return str(caught.value)

    return attempt


def tells(message: str, path: Path, *parts: str) -> None:
    assert message.startswith(f"{path}: "), message
    for part in parts:
        assert part in message, message


def test_missing_file(tmp_path, row_of, refused) -> None:
    tells(refused(row_of(tmp_path / "none.nii.gz")), tmp_path / "none.nii.gz", "check the path")


@pytest.mark.parametrize("name", ["photo.nii.gz", "photo.nii", "photo.png"])
def test_not_a_nifti(tmp_path, row_of, refused, name) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x89PNG\r\n" + bytes(range(256)) * 8)
    tells(refused(row_of(path)), path, "not a readable NIfTI file", "convert")


def test_other_image_format(tmp_path, stripped_head, row_of, refused) -> None:
    path = tmp_path / "scan.mgz"
    nib.save(nib.MGHImage(stripped_head, GRID), path)
    tells(refused(row_of(path)), path, "an MGH image of FreeSurfer, not a NIfTI file", "convert it")


@pytest.mark.parametrize("name", ["cut.nii.gz", "cut.nii"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(write_nifti, stripped_head, row_of, refused, name, share) -> None:
    path = write_nifti(name, stripped_head)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    tells(refused(row_of(path)), path, "truncated or damaged", "copy or download it again")


def test_damaged_gzip(write_nifti, stripped_head, row_of, refused) -> None:
    path = write_nifti("damaged.nii.gz", stripped_head)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    tells(refused(row_of(path)), path, "again")


def test_truncated_within_the_header(write_nifti, stripped_head, row_of, refused) -> None:
    path = write_nifti("header.nii.gz", stripped_head)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:200]))
    tells(refused(row_of(path)), path, "not a readable NIfTI file")


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((20, 20, 20, 3), "4-D image of shape (20, 20, 20, 3)"),
        ((20, 20), "2-D image"),
        ((20, 1, 1), "3-D image of shape (20, 1, 1)"),
    ],
)
def test_wrong_dimensions(write_nifti, row_of, refused, shape, told) -> None:
    path = write_nifti("shape.nii.gz", np.random.default_rng(0).random(shape).astype(np.float32))
    tells(refused(row_of(path)), path, told, "pass one 3-D volume")


def test_fourth_axis_of_length_one_is_dropped(write_nifti, stripped_head) -> None:
    volume = load_volume(write_nifti("squeezed.nii.gz", stripped_head[..., np.newaxis]))
    np.testing.assert_array_equal(volume.data, stripped_head)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(write_nifti, stripped_head, row_of, refused, value) -> None:
    stripped_head[40, 45, 30:33] = value
    path = write_nifti("values.nii.gz", stripped_head)
    tells(refused(row_of(path)), path, "3 NaN or infinite value(s)", "export the scan again")


def test_complex_values(write_nifti, stripped_head, row_of, refused) -> None:
    path = write_nifti("complex.nii.gz", stripped_head.astype(np.complex64))
    tells(refused(row_of(path)), path, "complex64", "export a magnitude image")


@pytest.mark.parametrize("value", [0, 7])
def test_constant_image(write_nifti, row_of, refused, value) -> None:
    path = write_nifti("constant.nii.gz", np.full((40, 40, 40), value, np.float32))
    tells(refused(row_of(path)), path, "constant image", "check that the right file was exported")


def test_constant_brain(write_nifti, stripped_head, row_of, refused) -> None:
    path = write_nifti("binary.nii.gz", (stripped_head > 0).astype(np.float32))
    tells(refused(row_of(path)), path, "do not vary", "check the brain mask")


def test_singular_affine(write_nifti, stripped_head, row_of, refused) -> None:
    path = write_nifti("flat.nii.gz", stripped_head)
    image = nib.load(path)
    image.header["srow_z"] = 0
    image.header["qform_code"] = 0
    path.unlink()
    nib.save(nib.Nifti1Image(stripped_head, None, image.header), path)
    tells(refused(row_of(path)), path, "singular affine", "repair the header")


def test_header_without_orientation_warns(tmp_path, stripped_head) -> None:
    path = tmp_path / "bare.nii.gz"
    nib.save(nib.Nifti1Image(stripped_head, None), path)
    with pytest.warns(UserWarning, match=r"bare.nii.gz: the header does not say how the scan is oriented"):
        load_volume(path)


def test_head_with_skull_needs_a_mask(write_nifti, row_of, refused) -> None:
    noise = np.random.default_rng(0).rayleigh(20, (90, 100, 90)).astype(np.float32)
    noise[20:70, 20:80, :70] += 400
    path = write_nifti("head.nii.gz", noise)
    tells(refused(row_of(path)), path, "does not look skull-stripped", "give a brain mask", "extract")


def test_extraction_is_for_t1_and_says_when_it_fails(write_nifti, row_of, refused) -> None:
    noise = np.random.default_rng(0).rayleigh(20, (60, 60, 60)).astype(np.float32)
    path = write_nifti("noise.nii.gz", noise)
    tells(refused(row_of(path, "extract")), path, "could not be told", "give a brain mask")
    tells(refused(row_of(path, "extract", contrast="T2")), path, "for T1 scans, not T2", "give a brain mask")


def test_empty_brain_mask(write_nifti, stripped_head, row_of, refused) -> None:
    image = write_nifti("t1.nii.gz", stripped_head)
    empty = write_nifti("empty.nii.gz", np.zeros(stripped_head.shape, np.uint8))
    tells(refused(row_of(image, empty)), empty, "empty brain mask", "give the mask of", str(image))
    full = write_nifti("full.nii.gz", np.ones(stripped_head.shape, np.uint8))
    tells(refused(row_of(image, full)), full, "every voxel is above 0", "mark the background")


@pytest.mark.parametrize("column", ["brain_mask", "lesion_mask"])
def test_misaligned_masks(write_nifti, stripped_head, row_of, refused, column) -> None:
    image = write_nifti("t1.nii.gz", stripped_head)
    other_shape = write_nifti("shape.nii.gz", stripped_head[:-1] > 0)
    tells(
        refused(row_of(image, **{column: other_shape})),
        other_shape,
        "(79, 90, 60)",
        "(80, 90, 60)",
        "resample",
    )
    shifted = GRID.copy()
    shifted[0, 3] = 2.0
    other_place = write_nifti("place.nii.gz", stripped_head > 0, shifted)
    tells(refused(row_of(image, **{column: other_place})), other_place, "2.0 mm away", "resample")
    flipped = write_nifti("flipped.nii.gz", stripped_head > 0, GRID @ np.diag([-1, 1, 1, 1]))
    tells(refused(row_of(image, **{column: flipped})), flipped, "mm away", "resample")


def test_header_rounding_is_no_misalignment(write_nifti, stripped_head, row_of, tmp_path) -> None:
    image = write_nifti("t1.nii.gz", stripped_head)
    mask = write_nifti("mask.nii.gz", stripped_head > 0, GRID + 1e-4 * np.eye(4, k=1))
    assert load_scan(row_of(image, mask), ScanCache(tmp_path / "cache")).brain_mask.any()


def test_wrong_lesion_labels(write_nifti, stripped_head, row_of, refused) -> None:
    image = write_nifti("t1.nii.gz", stripped_head)
    inside = stripped_head > 0
    labels = np.zeros(inside.shape, np.float32)
    labels[35:45, 40:50, 25:35] = 1
    wrong = {
        "probabilities": labels * np.linspace(0.1, 0.9, 60, dtype=np.float32),
        "half": labels * 0.5,
        "two": labels + (labels * (np.arange(60) > 30)),
        "negative": -labels,
    }
    for name, values in wrong.items():
        path = write_nifti(f"{name}.nii.gz", values.astype(np.float32))
        tells(refused(row_of(image, lesion_mask=path)), path, "not binary", "write 1 in lesions")
    empty = write_nifti("empty.nii.gz", 0 * labels)
    tells(refused(row_of(image, lesion_mask=empty)), empty, "empty lesion mask", "leave lesion_mask empty")
    not_a_number = write_nifti("nan.nii.gz", np.where(labels > 0, np.nan, 0).astype(np.float32))
    tells(refused(row_of(image, lesion_mask=not_a_number)), not_a_number, "NaN", "write 0 for background")


def test_lesion_outside_the_brain(write_nifti, stripped_head, row_of, refused) -> None:
    image = write_nifti("t1.nii.gz", stripped_head)
    corner = np.zeros(stripped_head.shape, np.uint8)
    corner[:5, :5, :5] = 1
    path = write_nifti("corner.nii.gz", corner)
    tells(refused(row_of(image, lesion_mask=path)), image, "0 % of its lesion mask", "belong to this scan")


def test_brain_larger_than_the_frame(write_nifti, stripped_head, row_of, refused) -> None:
    mask = stripped_head > 0
    path = write_nifti("large.nii.gz", stripped_head, np.diag([3.0, 3.0, 3.0, 1.0]))
    brain_mask = write_nifti("mask.nii.gz", mask, np.diag([3.0, 3.0, 3.0, 1.0]))
    message = refused(row_of(path, brain_mask))
    tells(message, path, "228 mm in-plane and the frame 192 mm", "% of it would be lost", "check the brain mask")


def test_manifest_on_disk(tmp_path, write_nifti, stripped_head) -> None:
    write_nifti("t1.nii.gz", stripped_head)
    head = "subject,image,brain_mask,lesion_mask,split,dataset,contrast\n"
    table = tmp_path / "scans.csv"
    table.write_text(head + "a,t1.nii.gz,,,train,mine,T1\na,t1.nii.gz,,,test,more,T1\n")
    with pytest.raises(InputError, match=r"scans.csv: subject a is in the splits test and train; keep"):
        read_manifest(table)
    table.write_text(head + "a,t1.nii.gz,mask.nii.gz,,train,mine,T1\n")
    with pytest.raises(
        InputError, match=r"scans.csv: mine/a: brain_mask file .*mask.nii.gz does not exist; correct it"
    ):
        read_manifest(table)


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_bad_scan_does_not_cost_the_others(jobs: int, tmp_path, write_nifti, stripped_head, row_of) -> None:
    good = row_of(write_nifti("good.nii.gz", stripped_head), subject="good")
    bad = row_of(write_nifti("bad.nii.gz", np.zeros((30, 30, 30), np.float32)), subject="bad")
    worse = row_of(tmp_path / "none.nii.gz", subject="worse")
    cache = ScanCache(tmp_path / "cache")
    with pytest.raises(InputError) as caught:
        prepare_all([bad, worse, good], cache, progress=False, jobs=jobs)
    assert "2 of 3 scans" in str(caught.value)
    assert "bad.nii.gz" in str(caught.value)
    assert "none.nii.gz" in str(caught.value)
    assert len(list(cache.folder.iterdir())) == 1
    (tmp_path / "good.nii.gz").touch()
    assert cache.slice_count(good) == 48


def test_results_are_written_whole_or_not_at_all(tmp_path, stripped_head) -> None:
    image = nib.Nifti1Image(stripped_head, GRID)
    with pytest.raises(InputError, match=r"map.png: results are written as NIfTI; end the name in"):
        save_nifti(image, tmp_path / "map.png")
    save_nifti(image, tmp_path / "new" / "map.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "new" / "map.nii.gz").get_fdata(), stripped_head)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["map.nii.gz"]
