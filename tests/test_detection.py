"""`detect` from a NIfTI file to results in the scan's own space, with a shipped model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pddm_utils.__main__ import main
from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.core.shipped import HEALTHY_PLACES, weights_folder
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.data.volume import to_scan_space
from pddm_utils.detection.choices import DEFAULT_MODELS
from pddm_utils.detection.detect import Detection, contrast_of_name, detect
from pddm_utils.detection.model import load_model
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.evaluation.postprocess import drop_small_components, erode_in_plane

ROW = ManifestRow("s", "simulated:210003", "", "insert:tumour:210003", "test", "simulated-t2-tumour", "T2")


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    """A simulated T2 scan with a tumour as a NIfTI of 1.5 x 2 x 2.5 mm in LPS order, values 0-1000."""
    scan = prepare_scan(ROW)
    affine = np.array([[-1.5, 0, 0, 70], [0, -2, 0, 90], [0, 0, 2.5, -70], [0, 0, 0, 1.0]])
    reference = nib.Nifti1Image(np.zeros((96, 96, 60), np.float32), affine)
    image = to_scan_space(scan.image, scan.affine, reference)
    path = tmp_path_factory.mktemp("scan") / "patient one_T2w.nii.gz"
    nib.save(nib.Nifti1Image((image.get_fdata() * 1000).astype(np.int16), affine), path)
    nib.save(to_scan_space(scan.lesion_mask, scan.affine, reference), path.with_name("lesion.nii.gz"))
    return path


@pytest.fixture(scope="module")
def detection(scan_file, tmp_path_factory) -> Detection:
    return detect(scan_file, out=tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def z_score(scan_file, tmp_path_factory) -> tuple[Detection, Path]:
    """The same scan with the z-score map, and the folder of its files."""
    folder = tmp_path_factory.mktemp("z-score")
    return detect(scan_file, out=folder, map_kind="z-score"), folder


def test_results_lie_on_the_scans_own_grid(scan_file, detection) -> None:
    reference = nib.load(scan_file)
    for image in (detection.reconstruction, detection.anomaly_map, detection.anomaly_mask):
        assert image.shape == reference.shape
        np.testing.assert_allclose(image.affine, reference.affine)


def test_unassessed_voxels_are_marked_and_never_called_healthy(detection) -> None:
    values, mask = detection.anomaly_map.get_fdata(), np.asarray(detection.anomaly_mask.dataobj)
    assert np.array_equal(np.isnan(values), mask == 255)
    assert (mask == 255).sum() > (mask != 255).sum() * 0.5 and set(np.unique(mask)) <= {0, 1, 255}
    assessed = erode_in_plane(detection.scan.brain_mask)
    assert not detection.prepared_map[~assessed].any()


def test_mask_is_the_map_above_the_shipped_threshold(detection) -> None:
    expected = drop_small_components(detection.prepared_map > detection.threshold)
    assert np.array_equal(detection.prepared_mask, expected) and detection.anomalous_ml > 0
    assert detection.model == DEFAULT_MODELS["T2"]


def test_same_scan_same_result(scan_file, detection) -> None:
    again = detect(scan_file)
    assert np.array_equal(again.prepared_map, detection.prepared_map)


def test_z_score_finds_more_of_a_tumour_than_the_residual(scan_file, detection, z_score) -> None:
    lesion = np.asarray(nib.load(scan_file.with_name("lesion.nii.gz")).dataobj) > 0
    maps = (detection.anomaly_map.get_fdata(), nib.load(z_score[1] / "anomaly_map.nii.gz").get_fdata())
    assert np.array_equal(*map(np.isnan, maps)), "the same voxels are assessed"
    residual, unusual = (average_precision(np.nan_to_num(values), lesion) for values in maps)
    assert unusual > residual + 0.1


def test_z_score_has_a_threshold_of_its_own_and_files_name_map_and_unit(detection, z_score) -> None:
    found, folder = z_score
    assert found.threshold != detection.threshold and found.anomalous_ml > 0
    assert np.array_equal(found.prepared_mask, drop_small_components(found.prepared_map > found.threshold))
    assert found.prepared_map.max() > 1.5, "in standard deviations, not in intensity"
    report = json.loads((folder / "report.json").read_text())
    assert (report["map"], report["map_unit"]) == ("z-score", "healthy standard deviations")
    assert report["threshold"] == found.threshold
    page = (folder / "report.html").read_text()
    assert "z-score (healthy standard deviations)" in page and page.count("healthy standard deviations") > 1
    labels = [axes.get_ylabel() for axes in found.figure().axes]
    assert "anomaly map (healthy standard deviations)" in labels
    assert detection.report()["map"] == "residual"


def test_a_model_without_healthy_places_says_how_to_make_them(scan_file, tmp_path, capsys) -> None:
    model = tmp_path / "own"
    shutil.copytree(weights_folder("simulated-t2-pddpm"), model)
    (model / HEALTHY_PLACES).unlink()
    words = ["detect", str(scan_file), "--out", str(tmp_path / "out"), "--model", str(model), "--map", "z-score"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert (
        str(model / HEALTHY_PLACES) in said and "python -m pddm_utils.publish models" in said and said.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()


def test_files_are_written_whole(scan_file, detection, tmp_path) -> None:
    paths = detection.save(tmp_path / "deep" / "er")
    assert sorted(p.name for p in (tmp_path / "deep" / "er").iterdir()) == sorted(p.name for p in paths)
    loaded = nib.load(tmp_path / "deep" / "er" / "anomaly_map.nii.gz")
    np.testing.assert_allclose(loaded.get_fdata(), detection.anomaly_map.get_fdata(), equal_nan=True)
    report = json.loads((tmp_path / "deep" / "er" / "report.json").read_text())
    assert report["threshold"] == detection.threshold and "not for diagnosis" in report["notice"]
    assert report == json.loads(json.dumps(detection.report()))
    assert report["warnings"] == list(detection.quality.warnings)


def test_coarse_voxels_are_warned_of_and_those_of_the_training_are_not(scan_file, detection, tmp_path) -> None:
    """Resampled to voxels of up to 2.5 mm and back, a scan leaves more than the healthy ones behind the threshold."""
    [warning] = detection.quality.warnings
    assert "The median residual in the brain is" in warning
    path = tmp_path / "sub-1_T2w.nii.gz"
    scan = prepare_scan(ROW)
    nib.save(to_scan_space(scan.image, scan.affine, nib.Nifti1Image(scan.image.T, scan.affine)), path)
    assert detect(path).quality.warnings == ()


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-01_T2w.nii.gz", "T2"),
        ("IXI012-HH-1211_T1.nii.gz", "T1"),
        ("sub-T1_T2w.nii.gz", "T2"),
        ("sub-01_FLAIR.nii.gz", "FLAIR"),
        ("12_t2_tirm_tra_dark-fluid.nii.gz", "FLAIR"),  # Siemens
        ("t2_space_darkfluid_sag_p2.nii", "FLAIR"),
        ("t2_tse_da-fl_tra.nii.gz", "FLAIR"),
        ("3D_T2-FLAIR.nii.gz", "FLAIR"),
        ("T2FLAIR.nii.gz", "FLAIR"),
    ],
)
def test_contrast_comes_from_the_name(name: str, contrast: str) -> None:
    assert contrast_of_name(Path(name)) == contrast


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scan.nii.gz", "does not say one contrast"),
        ("T1_to_T2.nii.gz", "does not say one contrast"),
        ("sub-01_T2starw.nii.gz", "does not say one contrast"),
        ("T1_FLAIR.nii.gz", "speaks of T1 and of FLAIR"),  # GE's T1 with inversion recovery
        ("t2_fl2d_tra_hemo.nii.gz", "speaks of T2 and of HEMO"),  # T2*
        ("sub-01_ce-gadolinium_T1w.nii.gz", "speaks of T1 and of CE"),
        ("T2_map.nii.gz", "speaks of T2 and of MAP"),
        ("t2_stir_cor.nii.gz", "speaks of T2 and of STIR"),
    ],
)
def test_names_of_none_or_of_another_kind_are_left_to_the_caller(name: str, words: str) -> None:
    with pytest.raises(InputError, match=f"{words}; pass contrast="):
        contrast_of_name(Path(name))


def test_a_flair_scan_is_not_assessed_as_t2() -> None:
    contrast = contrast_of_name(Path("12_t2_tirm_tra_dark-fluid.nii.gz"))
    assert load_model(DEFAULT_MODELS[contrast]).contrast == contrast == "FLAIR"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"map_kind": "zscore"}, "map 'zscore' does not exist; choose residual or z-score"),
        ({"contrast": "PD"}, "no model for contrast 'PD'"),
        ({"model": "simulated-t2-vae"}, "choose one of .*ixi-t1-ddpm, ixi-t1-pddpm, simulated-t2-"),
        ({"model": "ixi-t1-pddpm"}, "is for T1, the scan is T2"),
        ({"brain_mask": "nowhere.nii.gz"}, "nowhere.nii.gz: no such file"),
    ],
)
def test_bad_arguments_are_refused(scan_file, arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        detect(scan_file, **arguments)


def test_output_folder_that_cannot_be_made_is_refused_and_nothing_is_written(scan_file, detection, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write there"):
        detection.save(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_no_widget_library_is_needed(scan_file, tmp_path) -> None:
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('anywidget', 'ipywidgets', 'traitlets'))  # importing them fails\n"
        "from pddm_utils.detection.detect import detect\n"
        f"detect({str(scan_file)!r}, out={str(tmp_path / 'out')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert 'class="pddm-figure" id="volume"' in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "given", "doubts"),
    [("a_T2w.nii", "T2", 0), ("scan.nii", "T1", 0), ("a_FLAIR.nii", "T2", 1), ("T1.nii", "T2", 1)],
)
def test_a_contrast_that_contradicts_the_name_is_said(
    monkeypatch, scan_file, detection, tmp_path, name: str, given: str, doubts: int
) -> None:
    scan = shutil.copy(scan_file, tmp_path / f"{name}.gz")
    pipeline = load_model(DEFAULT_MODELS[given]).pipeline
    monkeypatch.setattr(pipeline, "reconstruct_volume", lambda image, *_: image)  # the network plays no part
    with pytest.warns(ScanWarning) as told:
        found = detect(scan, contrast=given)
    assert sum(text.startswith("The file's name speaks of") for text in found.quality.warnings) == doubts
    assert sum("name speaks of" in str(one.message) for one in told) == doubts
