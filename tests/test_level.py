"""`detect` with a model that knows one level of the brain: it registers, assesses a few slices, and says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

from pddm_utils.__main__ import main
from pddm_utils.benchmark.models import train_method
from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.core.settings import load_settings
from pddm_utils.core.shipped import HEALTHY_PLACES
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources import data_root
from pddm_utils.detection.detect import Detection, _scores, detect
from pddm_utils.detection.level import Level, scan_at_level, slices_of
from pddm_utils.detection.model import load_model
from pddm_utils.detection.quality import healthy_reference
from pddm_utils.evaluation.places import HealthyPlaces
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.evaluation.thresholds import HEALTHY_QUANTILES

Z_MM = 18.0


def moved() -> np.ndarray:
    """From MNI mm to the mm of a smaller, tilted and shifted head."""
    angle = np.radians(9)
    matrix = np.eye(4)
    matrix[:3, :3] = 0.92 * np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix[:3, 3] = (4, -12, 20)
    return matrix


def flair_like(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The template's T1 with dark fluid and little contrast, 0 outside the brain."""
    scaled = image / image[brain].max()
    noise = np.random.default_rng(0).normal(0, 0.02, image.shape)
    return np.where(brain, 300 * np.clip(0.2 + 0.8 * np.sqrt(scaled) + noise, 0.02, 1), 0).astype(np.float32)


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """The MNI152 template as a FLAIR-like scan of 2 mm, moved by `moved`; the truth about its level is known."""
    template, brain = load_mni152_template(2), load_mni152_brain_mask(2)
    values = flair_like(template.get_fdata(), brain.get_fdata() > 0)
    path = tmp_path_factory.mktemp("head") / "patient_FLAIR.nii.gz"
    nib.save(nib.Nifti1Image(values, moved() @ template.affine), path)
    return path


@pytest.fixture(scope="module")
def at_level(head) -> tuple[Scan, Level]:
    """The head's slices around the level."""
    return scan_at_level(ManifestRow("s", str(head), "", "", "test", "d", "FLAIR", "quartiles"), Z_MM)


@pytest.fixture(scope="module")
def model(tmp_path_factory, at_level) -> Path:
    """A model of a few steps, with the facts of one that was trained on single slices of one level."""
    folder = tmp_path_factory.mktemp("model")
    settings = load_settings("smoke", {"contrast": "FLAIR", "train_subjects": 1, "train_steps": 2})
    trained = shutil.copytree(train_method(settings, "pddpm", 0, folder / "runs", folder / "cache"), folder / "level")
    slices, places = slices_of(at_level[0]), HealthyPlaces()
    for one in slices:
        places.add(one.image - one.image.mean(), one.brain_mask)
    places.statistics().save(trained / HEALTHY_PLACES)
    facts = {
        "contrast": "FLAIR",
        "scaling": "quartiles",
        "level_mm": Z_MM,
        "timestep": 300,
        "thresholds": dict.fromkeys(HEALTHY_QUANTILES, 0.2),
        "z_score_thresholds": dict.fromkeys(HEALTHY_QUANTILES, 2.0),
        "reference": healthy_reference((one, one.image) for one in slices) | {"called": "lesion-free"},
    }
    (trained / "detection.json").write_text(json.dumps(facts))
    return trained


@pytest.fixture(scope="module")
def found(head, model, tmp_path_factory) -> tuple[Detection, Path]:
    """What a detection finds, and the folder of its files."""
    folder = tmp_path_factory.mktemp("found")
    with pytest.warns(ScanWarning, match="knows one level.*within 4 mm of MNI z = 18 mm"):
        return detect(head, out=folder, model=str(model)), folder


def heights_of(image: nib.Nifti1Image, voxels: np.ndarray) -> np.ndarray:
    """MNI z in mm of voxels of the moved head."""
    return nib.affines.apply_affine(np.linalg.inv(moved()) @ image.affine, voxels)[:, 2]


def test_the_slices_around_the_level_are_found_in_a_moved_head(head, at_level) -> None:
    scan, level = at_level
    assert scan.image.shape == (4, 96, 96) and level.overlap > 0.95
    corners = np.array([(x, y, z, 1) for x in (20, 76) for y in (10, 86) for z in (-0.5, 3.5)]).T
    heights = (np.linalg.inv(moved()) @ scan.affine @ corners)[2]  # in the template's own space
    np.testing.assert_allclose(heights, np.tile([14, 22], 4), atol=1.5)
    brain = nib.load(head).get_fdata() > 0
    assert level.brain_ml == pytest.approx(brain.sum() * 8 * 0.92**3 / 1000, rel=0.02)
    for one in slices_of(scan):
        assert one.image.shape == (1, 96, 96) and 0.4 < np.median(one.image[one.brain_mask]) < 0.6


def test_what_is_not_at_the_level_is_not_assessed_and_this_is_said_first(head, found) -> None:
    detection, folder = found
    reference = nib.load(head)
    mask, values = np.asarray(detection.anomaly_mask.dataobj), detection.anomaly_map.get_fdata()
    assert mask.shape == reference.shape and np.array_equal(np.isnan(values), mask == 255)
    assessed = np.argwhere(mask != 255)
    heights = heights_of(reference, assessed)
    assert len(assessed) > 1000 and 12.5 < heights.min() < 16 and 20 < heights.max() < 23.5
    report = json.loads((folder / "report.json").read_text())
    assert report["warnings"][0].startswith("This model knows one level of the brain.")
    assert report["level_mni_z_mm"] == 18 and report["registration_dice"] > 0.95
    assert report["assessed_ml"] < 0.12 * report["brain_ml"]
    page = (folder / "report.html").read_text()
    assert "of lesion-free validation scans" in page and "healthy validation scans" not in page
    assert page.index("knows one level") < page.index("Where it differs")


def test_a_map_does_not_fade_at_the_edge_of_the_level(head, found) -> None:
    values = found[0].anomaly_map.get_fdata()
    heights = heights_of(nib.load(head), np.argwhere(np.isfinite(values)))
    inside, edge = values[np.isfinite(values)], np.abs(heights - Z_MM) > 3
    assert inside[edge].mean() > 0.8 * inside[~edge].mean()


def test_slices_of_a_level_are_mapped_one_by_one(found, model) -> None:
    scan, values = found[0].scan, found[0].prepared_map
    for index, one in enumerate(slices_of(scan)):
        rebuilt = found[0].prepared_reconstruction[index : index + 1]
        np.testing.assert_array_equal(values[index], anomaly_map(one.image, rebuilt, one.brain_mask)[0])
    z_score, threshold = _scores(scan, found[0].prepared_reconstruction, load_model(model), load_model(model).places())
    assert z_score.shape == scan.image.shape and threshold == 2


def test_a_doubtful_registration_is_refused(head, model, tmp_path, capsys) -> None:
    image = nib.load(head)
    half = np.asarray(image.dataobj)[:, :, :45]
    nib.save(nib.Nifti1Image(half, image.affine), tmp_path / "half_FLAIR.nii.gz")
    with pytest.raises(InputError, match="half_FLAIR.nii.gz: cannot be registered to MNI152 with confidence"):
        detect(tmp_path / "half_FLAIR.nii.gz", model=str(model))
    turned = tmp_path / "turned_FLAIR.nii.gz"  # upside down, against what its header says
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, ::-1], image.affine), turned)
    assert main(["detect", str(turned), "--out", str(tmp_path), "--model", str(model)]) == 2
    assert "turned_FLAIR.nii.gz: cannot be registered" in capsys.readouterr().err
    one = np.asarray(image.dataobj)[:, :, 45:46]
    nib.save(nib.Nifti1Image(one, image.affine), tmp_path / "one_FLAIR.nii.gz")
    with pytest.raises(InputError, match="one_FLAIR.nii.gz: one slice cannot be registered"):
        detect(tmp_path / "one_FLAIR.nii.gz", model=str(model))
    with pytest.raises(InputError, match="one_FLAIR.nii.gz: one slice, and the thresholds of models hold for volumes"):
        detect(tmp_path / "one_FLAIR.nii.gz", contrast="T2")


def test_the_level_of_a_model_is_checked(model, tmp_path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    facts = json.loads((copy / "detection.json").read_text())
    for name, value in (("level_mm", "18"), ("scaling", "log")):
        (copy / "detection.json").write_text(json.dumps(facts | {name: value}))
        with pytest.raises(InputError, match="detection.json: damaged"):
            load_model(copy)


@pytest.mark.skipif(data_root() is None, reason="PDDM_DATA is not set: no real scans to run on")
def test_the_level_is_found_in_a_real_flair_scan(model) -> None:
    path = data_root() / "mslub-mni" / "patient07" / "FLAIR.nii.gz"  # lies in MNI space, but for its size
    with pytest.warns(ScanWarning, match="knows one level"):
        found = detect(path, model=str(model))
    assessed = np.argwhere(np.asarray(found.anomaly_mask.dataobj) != 255)
    heights = nib.affines.apply_affine(nib.load(path).affine, assessed)[:, 2]
    assert found.level.overlap > 0.93 and abs(np.median(heights) - Z_MM) < 3 and np.ptp(heights) < 20
