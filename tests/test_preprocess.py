"""Preprocessing of raw scans: what was done to a scan is undone, runs resume, and one bad scan stops no other."""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pddm_utils.__main__ import main
from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import COLUMNS, read_manifest
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.data.preprocess.checks import outliers, robust_z
from pddm_utils.data.preprocess.images import affine_of, framed, spaced, to_nifti, to_sitk
from pddm_utils.data.preprocess.plan import STEPS, Plan, plan_of
from pddm_utils.data.preprocess.runner import preprocess_manifest, read_log
from pddm_utils.evaluation.metrics import dice
from pddm_utils.show.outlines import EXTRACTION_COLOURS, REFERENCE, draw_outlines, extraction_figure

SPACING = 4.0  # mm: everything small
SMALL = Plan(spacing_mm=SPACING, n4_iterations=(20, 20), frame_voxels=(48, 48, 40), frame_mm=4.0)


@lru_cache
def template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The MNI brain at 4 mm: values, mask, affine."""
    image, mask = load_mni152_template(4), load_mni152_brain_mask(4)
    inside = mask.get_fdata() > 0
    return (image.get_fdata() * inside * 100).astype(np.float32), inside, image.affine


def moved() -> np.ndarray:
    """`(4, 4)` RAS mm: turned by 12 degrees, shifted by up to 14 mm, a little smaller."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (12, -8, 10), degrees=True).as_matrix() * 0.95
    matrix[:3, 3] = (9, -14, 6)
    return matrix


def bias(shape: tuple[int, ...]) -> np.ndarray:
    """A smooth field between about 0.7 and 1.4."""
    x, y, z = (np.linspace(-1, 1, size) for size in shape)
    field = np.sin(1.5 * x[:, None, None] + 0.5) + 0.7 * y[None, :, None] - 0.4 * z[None, None, :] ** 2
    return np.exp(0.25 * (field - field.mean()))


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Path]:
    """The template brain, moved, on an LPS grid, with a bias field; its mask, and a lesion mask."""
    values, inside, affine = template()
    grid = affine @ np.diag([-1, -1, 1, 1])  # another orientation than the template's
    grid[:2, 3] += (affine[:3, :3] @ (np.array(values.shape) - 1))[:2]
    back = np.linalg.inv(affine) @ np.linalg.inv(moved()) @ grid
    image = ndimage.affine_transform(values, back, order=1) * bias(values.shape)
    mask = ndimage.affine_transform(inside.astype(np.uint8), back, order=0)
    lesion = np.zeros_like(mask)
    x, y, z = np.array(mask.shape) // 2
    lesion[x : x + 3, y : y + 4, z : z + 3] = 1
    files = {"image": image.astype(np.float32), "mask": mask, "lesion": lesion * mask}
    for name, data in files.items():
        nib.save(nib.Nifti1Image(data, grid), tmp_path / f"{name}.nii.gz")
    return {name: tmp_path / f"{name}.nii.gz" for name in files}


def write_table(path: Path, *rows: dict) -> Path:
    """A manifest with a column `t1`."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS, "t1"], restval="")
        writer.writeheader()
        defaults = {"split": "test", "dataset": "mine", "contrast": "T1"}
        writer.writerows([defaults | {key: str(value) for key, value in row.items()} for row in rows])
    return path


@pytest.fixture
def manifest(tmp_path: Path, raw: dict[str, Path]) -> Path:
    return write_table(
        tmp_path / "raw.csv",
        {"subject": "s1", "image": raw["image"], "brain_mask": raw["mask"], "lesion_mask": raw["lesion"]},
    )


def step(folder: Path, name: str) -> dict:
    return next(entry for entry in read_log(folder)["steps"] if entry["step"] == name)


def test_registration_and_n4_undo_what_was_done(manifest: Path, raw: dict, tmp_path: Path) -> None:
    plan = Plan(("strip", "register", "bias"), spacing_mm=SPACING, n4_iterations=(50, 50, 50))
    [outcome] = preprocess_manifest(manifest, tmp_path / "out", plan)
    assert outcome.error == ""
    values, inside, affine = template()
    points = np.c_[np.argwhere(inside), np.ones(inside.sum())] @ affine.T
    found = np.array(step(outcome.folder, "register")["found"]["scan_from_template_ras"])
    before = np.linalg.norm((points @ moved().T - points)[:, :3], axis=1).mean()
    after = np.linalg.norm((points @ moved().T - points @ found.T)[:, :3], axis=1).mean()
    assert before > 15
    assert after < 1.5  # mm, on a grid of 4 mm
    image = nib.load(outcome.folder / "image.nii.gz")
    assert np.allclose(image.affine, affine, atol=1e-3)
    corrected, truth = image.get_fdata()[inside], values[inside]
    raw_copy = Plan(("strip", "register"), spacing_mm=SPACING)
    [plain] = preprocess_manifest(manifest, tmp_path / "plain", raw_copy)
    uncorrected = nib.load(plain.folder / "image.nii.gz").get_fdata()[inside]
    spread = [np.std(np.log(np.maximum(one, 1) / truth)) for one in (uncorrected, corrected)]
    assert spread[1] < spread[0]  # what is left is what two interpolations do at the brain's rim
    removed = np.log(np.maximum(uncorrected, 1) / np.maximum(corrected, 1))
    place = np.linalg.inv(nib.load(raw["image"]).affine) @ moved() @ points.T  # voxels of the raw scan
    put_in = ndimage.map_coordinates(np.log(bias(values.shape)), place[:3], order=1, mode="nearest")
    assert np.corrcoef(removed, put_in)[0, 1] > 0.8


def test_all_steps_give_what_the_pipeline_reads(manifest: Path, tmp_path: Path) -> None:
    [outcome] = preprocess_manifest(manifest, tmp_path / "out", SMALL)
    assert outcome.error == ""
    log = read_log(outcome.folder)
    assert [entry["step"] for entry in log["steps"]] == ["read", *STEPS]
    assert all(entry["seconds"] >= 0 for entry in log["steps"])
    assert log["quality"]["dice"] > 0.93
    [row] = read_manifest(tmp_path / "out" / "manifest.csv")
    image, lesion = nib.load(row.image), nib.load(row.lesion_mask)
    assert image.shape == lesion.shape == (48, 48, 40)
    assert np.allclose(image.header.get_zooms(), 4)
    values = image.get_fdata()
    assert values.min() == 0
    assert 0.9 < values.max() <= 1
    assert set(np.unique(lesion.get_fdata())) == {0, 1}
    scan = prepare_scan(row)
    assert scan.image.shape[1:] == (96, 96)
    assert scan.lesion_mask.sum() > 100


def test_the_same_input_gives_the_same_files(manifest: Path, tmp_path: Path) -> None:
    first, second = (preprocess_manifest(manifest, tmp_path / name, SMALL)[0].folder for name in ("a", "b"))
    assert np.array_equal(nib.load(first / "image.nii.gz").get_fdata(), nib.load(second / "image.nii.gz").get_fdata())


def test_a_finished_scan_is_kept_and_a_changed_one_made_anew(manifest: Path, raw: dict, tmp_path: Path) -> None:
    plan = Plan(("strip", "scale"))
    run = lambda chosen: preprocess_manifest(manifest, tmp_path / "out", chosen)[0]  # noqa: E731
    assert not run(plan).was_done
    stamp = (run(plan).folder / "image.nii.gz").stat().st_mtime_ns
    assert run(plan).was_done
    assert (run(plan).folder / "image.nii.gz").stat().st_mtime_ns == stamp
    assert not run(Plan(("scale",))).was_done  # other steps
    assert not run(plan).was_done
    image = nib.load(raw["image"])
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) * 2, image.affine), raw["image"])
    assert not run(plan).was_done  # other content
    assert [path.name for path in (tmp_path / "out" / "mine").iterdir()] == ["s1"]


def test_one_bad_scan_stops_no_other(manifest: Path, raw: dict, tmp_path: Path, capsys) -> None:
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), flat)
    table = write_table(
        tmp_path / "three.csv",
        {"subject": "flat", "image": flat},
        {"subject": "t2", "image": raw["image"], "brain_mask": "extract", "contrast": "T2"},
        {"subject": "good", "image": raw["image"], "brain_mask": raw["mask"]},
    )
    words = ["preprocess", "--manifest", str(table), "--out", str(tmp_path / "out"), "--steps", "strip,crop,scale"]
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "1 of 3 scans done" in shown.out
    assert "mine/flat: " in shown.err and "constant image" in shown.err
    assert "mine/t2: " in shown.err and "column t1" in shown.err
    assert [row.subject for row in read_manifest(tmp_path / "out" / "manifest.csv")] == ["good"]
    page = (tmp_path / "out" / "qc.html").read_text()
    assert "constant image" in page and "mine/good" in page and "data:image/png" in page
    assert "http" not in page  # nothing from outside
    assert main([*words[:-2], "--steps", "strip", "--jobs", "2"]) == 2  # side by side, the same


def test_wrong_words_are_refused(manifest: Path, tmp_path: Path, capsys) -> None:
    assert main(["preprocess", "--manifest", str(manifest), "--out", str(tmp_path), "--steps", "strip,N4"]) == 2
    assert "resample, strip, register" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such file"):
        preprocess_manifest(manifest, tmp_path / "out", Plan(("register",), template=str(tmp_path / "none.nii")))
    with pytest.raises(InputError, match="t1 file .* does not exist"):
        row = {"subject": "a", "image": manifest.parent / "image.nii.gz", "t1": "gone.nii.gz"}
        preprocess_manifest(write_table(tmp_path / "gone.csv", row), tmp_path / "out")
    with pytest.raises(InputError, match="names become folders"):
        row = {"subject": "../a", "image": manifest.parent / "image.nii.gz"}
        preprocess_manifest(write_table(tmp_path / "up.csv", row), tmp_path / "out")


def test_steps_are_taken_in_their_order() -> None:
    assert plan_of(["frame", "strip"]).steps == ("strip", "frame")
    with pytest.raises(InputError, match="once"):
        plan_of(["strip", "strip"])


def test_images_keep_their_place() -> None:
    affine = np.array([[0, 0, 3.0, -10], [-2.0, 0, 0, 20], [0, 1.5, 0, -30], [0, 0, 0, 1]])
    data = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    image = to_sitk(data, affine)
    assert np.allclose(affine_of(image), affine)
    assert np.array_equal(to_nifti(image).get_fdata(dtype=np.float32), data)
    fine = spaced(image, 1.0)
    assert fine.GetSize() == (10, 9, 21)
    middles = [
        one.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in one.GetSize()]) for one in (image, fine)
    ]
    assert np.allclose(*middles)


def test_the_frame_takes_means_of_whole_voxels() -> None:
    data = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    image = to_sitk(data, np.eye(4))
    small = sitk.GetArrayFromImage(sitk.Resample(image, framed(image, (4, 4, 4), 2.0))).T
    expected = data[2:10, 2:10, 2:10].reshape(4, 2, 4, 2, 4, 2).mean(axis=(1, 3, 5))
    assert np.allclose(small, expected, atol=1e-5)


def test_outliers_are_named_with_their_reason() -> None:
    usual = np.linspace(-1, 1, 9)
    numbers = {
        f"s{i}": {
            "dice": 0.96,
            "brain_ml": 1400 + 50 * x,
            "mean": 0.5 + 0.01 * x,
            "std": 0.2 - 0.01 * x,
            "skewness": 0.1 * x,
        }
        for i, x in enumerate(usual)
    }
    assert not any(outliers(numbers).values())
    numbers["s3"]["dice"], numbers["s5"]["brain_ml"] = 0.7, 2500
    reasons = outliers(numbers)
    assert "overlap" in reasons["s3"][0]
    assert "brain_ml" in reasons["s5"][0]
    assert sum(map(bool, reasons.values())) == 2
    assert robust_z([1, 1, 1, 9]).tolist() == [0, 0, 0, 0]


def test_the_brain_of_a_t2_scan_is_found_on_its_sessions_t1(tmp_path: Path) -> None:
    values, inside, affine = template()
    affine = np.diag([0.93, 0.93, 0.93, 1]) @ affine  # the template's brain is larger than people's
    head = ndimage.binary_dilation(inside, iterations=5) & ~ndimage.binary_dilation(inside, iterations=3)
    t1 = values + 90 * head  # a bright scalp around a dark gap
    t2 = np.where(inside, 110 - values, 0) + 60 * head
    nib.save(nib.Nifti1Image(t1.astype(np.float32), affine), tmp_path / "t1.nii.gz")
    shifted = affine.copy()
    shifted[:3, 3] += (6, -4, 5)  # moved between the two scans
    nib.save(nib.Nifti1Image(t2.astype(np.float32), shifted), tmp_path / "t2.nii.gz")
    table = write_table(
        tmp_path / "raw.csv",
        {
            "subject": "a",
            "image": tmp_path / "t2.nii.gz",
            "contrast": "T2",
            "brain_mask": "extract",
            "t1": tmp_path / "t1.nii.gz",
        },
    )
    [outcome] = preprocess_manifest(table, tmp_path / "out", Plan(("strip",)))
    assert outcome.error == ""
    found = nib.load(outcome.folder / "brain_mask.nii.gz").get_fdata() > 0
    assert dice(found, inside) > 0.9
    assert "on the T1 scan" in json.dumps(read_log(outcome.folder)["steps"][0])


def test_outlines_lie_on_the_patients_side() -> None:
    image = np.zeros((6, 8))
    left = image > 0
    left[2:4, 1:3] = True  # columns from patient left to right
    figure, (axial, sagittal) = plt.subplots(1, 2)
    for axes, plane in ((axial, "axial"), (sagittal, "sagittal")):
        draw_outlines(axes, plane, image + left, {"#56B4E9": left, "#E69F00": left & ~left}, 1.0)
        assert len(axes.collections) == 1, "an empty mask has no outline"
    centres = [axes.collections[0].get_paths()[0].vertices.mean(axis=0)[0] for axes in (axial, sagittal)]
    assert centres[0] > 3.5 > centres[1]
    assert [[text.get_text() for text in axes.texts] for axes in (axial, sagittal)] == [["R", "L"], ["P", "A"]]
    plt.close(figure)


def test_every_extraction_is_drawn_on_one_scan() -> None:
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[2:6, 2:6, 2:6] = True
    scores = {"deepbet": [0.98, 0.97], "threshold": [0.9, 0.8]}
    figure = extraction_figure(scores, mask * 100.0, {REFERENCE: mask, "deepbet": mask, "threshold": mask})
    assert [len(axes.collections) for axes in figure.axes] == [2, 3, 3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(EXTRACTION_COLOURS)
    plt.close(figure)
