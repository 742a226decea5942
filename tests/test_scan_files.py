"""What lies in a scan's place, slightly sheared and small scans, and what a report says of all this."""

from __future__ import annotations

import gzip
import os
import warnings
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pddm_utils import detect
from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.data.manifest import read_manifest
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.preprocess.images import to_nifti
from pddm_utils.data.preprocess.plan import Plan
from pddm_utils.data.preprocess.subject import preprocess_scan
from pddm_utils.data.simulation.anatomy import simulate_anatomy
from pddm_utils.data.simulation.lesions import insert_lesion
from pddm_utils.data.volume import load_volume, save_nifti

NIFTI_NAME = "sub-01_T2w.nii.gz"
INSTEAD = {
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "git-annex, unlocked": (b"/annex/objects/MD5E-s100--abc.nii.gz\n", "datalad get"),
    "git-annex link as text": (b"../.git/annex/objects/xx/yy/MD5E-s1--a.nii.gz", "datalad get"),
    "login page": (b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>", "a web page"),
    "web page": (b"<HTML><body>404</body></HTML>", "a web page"),
    "error of a bucket": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "error of an API": (b'{"error": "not found"}', "JSON"),
    "zip": (b"PK\x03\x04" + bytes(200), "a zip archive"),
    "DICOM": (bytes(128) + b"DICM" + bytes(300), "a DICOM file"),
    "NRRD": (b"NRRD0004\ntype: short\n", "an NRRD image"),
    "nothing": (b"", "empty"),
    "zeros": (bytes(5000), "filled with zeros"),
    "packed web page": (gzip.compress(b"<!doctype html>"), "a web page"),
    "packed nothing": (gzip.compress(b""), "empty"),
    "cut within the packing": (gzip.compress(bytes(range(250)))[:15], "truncated or damaged"),
    "another format": (b"\x89PNG\r\n" + bytes(range(256)), "not a readable NIfTI file"),
}


@lru_cache
def subject() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A simulated T2 subject with a tumour: image and lesion `(X, Y, Z)`, affine."""
    anatomy = simulate_anatomy(210003, "T2")
    rng = np.random.default_rng(210003)
    image, lesion = insert_lesion(anatomy.image, anatomy.brain_mask, anatomy.tissues, "T2", "tumour", rng)
    return image.T.astype(np.float32), lesion.T, anatomy.affine


def refusal(path: Path | str) -> str:
    with pytest.raises(InputError) as refused:
        detect(path, contrast="T2")
    assert "\n" not in str(refused.value) and "; " in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("kind", INSTEAD)
def test_what_lies_in_a_scans_place_is_told(tmp_path, kind: str) -> None:
    content, text = INSTEAD[kind]
    path = tmp_path / NIFTI_NAME
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{path}: ") and text in message


@pytest.mark.parametrize("target", [".git/annex/objects/xx/MD5E-s1--a.nii.gz", "../../blobs/0a1b2c"])
def test_a_link_without_content_is_named_as_it_was_given(tmp_path, row_of, target: str) -> None:
    path = tmp_path / NIFTI_NAME
    path.symlink_to(target)
    told = f"{path}: a link whose content is not on this machine ({target}); fetch it"
    assert refusal(path).startswith(told)
    with pytest.raises(InputError, match="a link whose content is not on this machine"):
        load_scan(row_of(path), ScanCache(tmp_path / "cache"))
    table = tmp_path / "scans.csv"
    table.write_text(f"subject,image,brain_mask,lesion_mask,split,dataset,contrast\na,{NIFTI_NAME},,,test,mine,T2\n")
    with pytest.raises(InputError, match="image file .*: a link whose content is not on this machine"):
        read_manifest(table)


def test_a_link_to_a_name_without_an_ending_is_read(tmp_path) -> None:
    """As the cache of a hub keeps files."""
    image, _, affine = subject()
    nib.save(nib.Nifti1Image(image, affine), tmp_path / NIFTI_NAME)
    (tmp_path / NIFTI_NAME).rename(tmp_path / "0a1b2c")
    (tmp_path / NIFTI_NAME).symlink_to("0a1b2c")
    np.testing.assert_array_equal(load_volume(tmp_path / NIFTI_NAME).data, image)


def test_folders_and_closed_files_are_told(tmp_path) -> None:
    (tmp_path / "series").mkdir()
    assert "a folder, not a file" in refusal(tmp_path / "series") and "dcm2niix" in refusal(tmp_path / "series")
    assert "no such file" in refusal(tmp_path / "none.nii")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300 + ".nii"))
    assert "cannot be read" in refusal("a\0b.nii")
    if os.geteuid():
        (tmp_path / NIFTI_NAME).write_bytes(b"1")
        (tmp_path / NIFTI_NAME).chmod(0)
        assert "cannot be read (Permission denied)" in refusal(tmp_path / NIFTI_NAME)


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    image, _, affine = subject()
    save_nifti(nib.Nifti1Image(image, affine), f"~/{NIFTI_NAME}")
    assert (tmp_path / NIFTI_NAME).is_file()
    np.testing.assert_array_equal(load_volume(f"~/{NIFTI_NAME}").data, image)
    assert "no such file" in refusal("~/none_T2.nii.gz")


@pytest.mark.parametrize("degrees", [0.5, 1.0, 2.5])
def test_preprocessing_moves_no_voxel_of_a_slightly_sheared_scan(tmp_path, row_of, degrees: float) -> None:
    image, lesion, affine = subject()
    sheared = affine.copy()
    sheared[0, 1] = 2 * np.tan(np.radians(degrees))
    sheared[0, 3] -= sheared[0, 1] * 48
    back = np.linalg.inv(affine) @ sheared
    image, lesion = (ndimage.affine_transform(one.astype(np.float32), back, order=1) for one in (image, lesion))
    nib.save(nib.Nifti1Image(image, sheared), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image((lesion > 0.5).astype(np.uint8), sheared), tmp_path / "lesion.nii.gz")
    row = row_of(tmp_path / "scan.nii.gz", lesion_mask=tmp_path / "lesion.nii.gz", contrast="T2")
    _, done = preprocess_scan(row, Plan(("resample", "strip", "crop")))
    after = to_nifti(done.lesion)
    centres = [
        nib.affines.apply_affine(grid, np.argwhere(mask).mean(axis=0))
        for grid, mask in ((sheared, lesion > 0.5), (after.affine, np.asarray(after.dataobj) > 0))
    ]
    assert np.linalg.norm(centres[1] - centres[0]) < 0.3  # mm


def test_a_report_says_what_is_doubtful_without_the_folders_names(tmp_path) -> None:
    image, _, affine = subject()
    mirrored = affine @ np.diag([-1.0, 1, 1, 1])
    scan = nib.Nifti1Image(image, affine)
    scan.set_sform(affine, 1)
    scan.set_qform(mirrored, 1)
    strayed = (image > 0).astype(np.uint8)
    strayed[2, 2, 2] = 1
    nib.save(scan, tmp_path / "scan_T2.nii.gz")
    nib.save(nib.Nifti1Image(strayed, affine), tmp_path / "mask.nii.gz")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = detect(tmp_path / "scan_T2.nii.gz", brain_mask=tmp_path / "mask.nii.gz")
    stated = found.report()["warnings"]
    assert stated[0].startswith("scan_T2.nii.gz: its sform and its qform contradict each other")
    assert stated[1].startswith("mask.nii.gz: 1 voxel(s) in specks")
    shown = [str(one.message) for one in told if one.category is ScanWarning]
    assert len(shown) == len(stated) and all(text in line for text, line in zip(stated, shown, strict=True))
    for result in (found.reconstruction, found.anomaly_map, found.anomaly_mask):
        np.testing.assert_allclose(result.header.get_sform(), affine)
        assert result.header["qform_code"] == 0


def test_a_brain_as_small_as_an_infants_is_told(tmp_path) -> None:
    image, _, affine = subject()
    nib.save(nib.Nifti1Image(image, affine @ np.diag([0.7, 0.7, 0.7, 1])), tmp_path / "infant_T2.nii.gz")
    with pytest.warns(ScanWarning, match="The brain volume"):
        detect(tmp_path / "infant_T2.nii.gz")
