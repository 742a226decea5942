"""BIDS data sets: masks under the names in use, patients who must not become healthy scans, runs, and many subjects."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources import bids_files
from pddm_utils.data.sources.bids import bids_rows

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tmp_path / "study"


@pytest.fixture
def put(study: Path) -> Callable[..., Path]:
    """Write a small NIfTI file below the data set; its voxels do not matter here."""

    def write(name: str, affine: np.ndarray = AFFINE) -> Path:
        path = study / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), affine), path)
        return path

    return write


@pytest.fixture
def people(study: Path) -> Callable[[str], None]:
    """Write `participants.tsv`, rows parted by spaces, cells by commas."""
    return lambda text: (
        (study / "participants.tsv").write_text(text.replace(",", "\t").replace(" ", "\n") + "\n") and None
    )


def test_sessions_and_masks(study: Path, put, people) -> None:
    put("sub-01/anat/sub-01_T2w.nii.gz")
    put("sub-01/anat/sub-01_T1w.nii.gz")
    put("sub-02/ses-a/anat/sub-02_ses-a_T2w.nii")
    put("sub-02/ses-b/anat/sub-02_ses-b_acq-tse_T2w.nii.gz")
    put("derivatives/masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    put("derivatives/rater/sub-02/ses-a/anat/sub-02_ses-a_label-lesion_mask.nii.gz")
    with pytest.warns(UserWarning, match=r"2 scan\(s\) for testing have no lesion mask"):
        rows = bids_rows(study, "T2")
    assert [(row.subject, row.dataset, bool(row.brain_mask), bool(row.lesion_mask)) for row in rows] == [
        ("sub-01", "study-t2", True, False),
        ("sub-02", "study-t2-ses-a", False, True),
        ("sub-02", "study-t2-ses-b", False, False),
    ]
    people("participant_id,split sub-01,train")
    with pytest.raises(InputError, match="participants.tsv: no split for sub-02; write train, val or test, or n/a"):
        bids_rows(study, "T2")


@pytest.mark.parametrize(
    "mask",
    [
        "derivatives/lesion_masks/sub-01/anat/sub-01_desc-lesion_mask.nii.gz",  # OpenNeuro
        "derivatives/ATLAS/sub-01/anat/sub-01_label-L_desc-T1lesion_mask.nii.gz",  # ATLAS
        "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz",  # fMRIPrep
        "sub-01/anat/sub-01_T1w_roi.nii.gz",  # OpenNeuro, focal cortical dysplasia
        "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",  # the specification
        "derivatives/manual/sub-01/anat/sub-01_space-orig_label-lesion_mask.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_space-orig_label-tumor_dseg.nii",
        "masks/sub-01_seg.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_lesion.nii.gz",
    ],
)
def test_lesion_masks_under_the_names_in_use(study: Path, put, mask: str) -> None:
    put("sub-01/anat/sub-01_T1w.nii.gz")
    path = put(mask)
    put("derivatives/fmriprep/sub-01/anat/sub-01_dseg.nii.gz")  # tissue
    put("derivatives/fmriprep/sub-01/anat/sub-01_desc-lesionfilled_T1w.nii.gz")
    put("sub-01/anat/._sub-01_T1w.nii.gz")  # of another system
    (row,) = bids_rows(study, "T1")
    assert row.lesion_mask == str(path)


def test_a_mask_of_another_contrast_is_used_on_the_same_grid_and_else_named(study: Path, put) -> None:
    put("sub-01/anat/sub-01_T2w.nii.gz")
    mask = put("sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz")
    assert bids_rows(study, "T2")[0].lesion_mask == str(mask)
    put("sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz", np.diag([1.0, 1, 1, 1]))
    with pytest.raises(InputError) as caught:
        bids_rows(study, "T2")
    assert f"{mask}" in str(caught.value) and "none of them on its grid" in str(caught.value)
    assert "sub-01_label-lesion_mask.nii.gz, or write n/a" in str(caught.value)


def test_two_raters_are_refused(study: Path, put) -> None:
    put("sub-01/anat/sub-01_T1w.nii.gz")
    for rater in "ab":
        put(f"derivatives/{rater}/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
    with pytest.raises(InputError, match=r"derivatives/b/.*: a second mask of sub-01_T1w.nii.gz beside .*; keep one"):
        bids_rows(study, "T1")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("participant_id,split,group sub-01,train,patient sub-02,train,control", "its group is 'patient'"),
        ("participant_id,split,Diagnosis sub-01,val,epilepsy sub-02,train,hc", "its group is 'epilepsy'"),
        ("participant_id,split,group 01,train, 02,train,control", "its group is ''"),
    ],
)
def test_patients_without_a_mask_do_not_become_healthy_training_scans(study: Path, put, people, table, told) -> None:
    for label in ("01", "02"):
        put(f"sub-{label}/anat/sub-{label}_T2w.nii.gz")
    people(table)
    with pytest.raises(InputError) as caught:
        bids_rows(study, "T2")
    assert "sub-01_T2w.nii.gz: would count as healthy for the split" in str(caught.value) and told in str(caught.value)
    assert "sub-02" not in str(caught.value)
    people("participant_id,split,group sub-01,n/a,patient sub-02,train,control")
    assert [row.subject for row in bids_rows(study, "T2")] == ["sub-02"]


def test_who_has_no_mask_beside_people_who_have_may_be_a_patient(study: Path, put, people) -> None:
    for label in ("01", "02"):
        put(f"sub-{label}/anat/sub-{label}_T2w.nii.gz")
    people("participant_id,split sub-01,train sub-02,train")
    assert len(bids_rows(study, "T2")) == 2, "a data set of healthy people needs no column"
    put("sub-01/anat/sub-01_label-lesion_mask.nii.gz")
    with pytest.raises(InputError, match=r"sub-02_T2w.nii.gz: would count as healthy .* others of the data set have"):
        bids_rows(study, "T2")
    people("participant_id,split,group sub-01,test,patient sub-02,train,control")
    assert [row.split for row in bids_rows(study, "T2")] == ["train", "test"]


def test_a_patients_other_session_is_not_healthy(study: Path, put, people) -> None:
    for session in "ab":
        put(f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T2w.nii.gz")
    put("sub-01/ses-a/anat/sub-01_ses-a_label-lesion_mask.nii.gz")
    people("participant_id,split,group sub-01,val,control")
    with pytest.raises(InputError, match="ses-b_T2w.nii.gz: .* it has a lesion mask in another session"):
        bids_rows(study, "T2")


def test_participants_who_stand_twice_must_agree(study: Path, put, people) -> None:
    put("sub-01/anat/sub-01_T2w.nii.gz")
    people("participant_id,session,split sub-01,a,train sub-01,b,train")
    assert [row.split for row in bids_rows(study, "T2")] == ["train"]
    people("participant_id,session,split sub-01,a,train sub-01,b,test")
    with pytest.raises(InputError, match="sub-01 stands there twice, each time with another split; keep one"):
        bids_rows(study, "T2")


def names_of(rows: list[ManifestRow]) -> list[str]:
    return [row.dataset for row in rows]


def test_runs_and_acquisitions_are_listed_apart_where_there_are_several(study: Path, put) -> None:
    put("sub-01/anat/sub-01_run-1_T2w.nii.gz")
    put("sub-02/anat/sub-02_acq-tse_run-1_T2w.nii.gz")
    assert names_of(bids_rows(study, "T2")) == ["study-t2"] * 2
    put("sub-01/anat/sub-01_run-2_T2w.nii.gz")
    assert names_of(bids_rows(study, "T2")) == ["study-t2-run-1", "study-t2-run-1", "study-t2-run-2"]
    mask = put("sub-01/anat/sub-01_run-2_label-lesion_mask.nii.gz")
    with (
        pytest.warns(UserWarning, match="sub-02"),
        pytest.raises(InputError, match="run-1_T2w.nii.gz: has lesion masks, none of them on its grid"),
    ):
        bids_rows(study, "T2")
    mask.rename(mask.with_name("sub-01_label-lesion_mask.nii.gz"))  # of both runs, which lie on one grid
    with pytest.warns(UserWarning, match="sub-02"):
        assert [bool(row.lesion_mask) for row in bids_rows(study, "T2")] == [True, False, True]


def test_files_that_are_no_scans_of_the_contrast_are_passed_over(study: Path, put) -> None:
    put("sub-01/anat/sub-01_T1w.nii.gz")
    for name in ("ce-gadolinium_T1w", "part-phase_T1w", "T1map", "desc-brain_T1w.nii.gz.part/sub-01_x"):
        put(f"sub-01/anat/sub-01_{name}.nii.gz")
    put("derivatives/x/sub-01/anat/sub-01_T1w.nii.gz")
    put("sourcedata/sub-09/anat/sub-09_T1w.nii.gz")
    assert [row.subject for row in bids_rows(study, "T1")] == ["sub-01"]
    put("sub-01/anat/sub-01_T1w.nii")
    with pytest.raises(InputError, match=r"study-t1/sub-01: listed 2 times \(.*sub-01_T1w.nii, .*sub-01_T1w.nii.gz\)"):
        bids_rows(study, "T1")


def test_a_mask_without_a_meaning_is_told(study: Path, put) -> None:
    put("sub-01/anat/sub-01_T1w.nii.gz")
    put("sub-01/anat/sub-01_mask.nii.gz")
    with pytest.warns(UserWarning, match=r"sub-01_mask.nii.gz: a mask whose name does not say of what"):
        bids_rows(study, "T1")


def test_a_folder_of_sites_says_so(study: Path, put) -> None:
    put("site-A/sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(InputError, match="no scan found; .*site-A hold subjects: list each one"):
        bids_rows(study, "T1")


def test_each_folder_is_read_once(study: Path, put, monkeypatch) -> None:
    """Time grows with the number of files, also with derivatives and with a link that leads back."""
    for number in range(6):
        put(f"sub-{number}/anat/sub-{number}_T2w.nii.gz")
        put(f"derivatives/masks/sub-{number}/anat/sub-{number}_desc-brain_mask.nii.gz")
    (study / "derivatives" / "again").symlink_to(study)
    read = []
    walk = os.walk
    monkeypatch.setattr(bids_files.os, "walk", lambda *a, **k: (read.append(x[0]) or x for x in walk(*a, **k)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(row.brain_mask for row in bids_rows(study, "T2"))
    assert len(read) == len(set(read)) == 1 + 2 + 6 * 4 + 1
