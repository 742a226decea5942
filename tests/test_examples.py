"""Example scans and shipped models: what a notebook starts from."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import pddm_utils
from pddm_utils import InputError, example_scan, example_slices, healthy_twin, load_model
from pddm_utils.core.settings import load_settings
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_scan


def test_everything_at_the_packages_root_can_be_imported() -> None:
    assert all(callable(getattr(pddm_utils, name)) for name in pddm_utils.__all__)


@pytest.mark.parametrize(("kind", "split"), [("tumour", "test"), ("ms", "val"), ("healthy", "train")])
def test_example_scans_are_those_of_the_benchmark(kind: str, split: str) -> None:
    rows = [row for row in cohort_rows(load_settings("demo")) if row.split == split]
    row = [row for row in rows if row.dataset == f"simulated-t2-{kind}"][1]
    scan, expected = example_scan(kind, split=split, subject=1), prepare_scan(row)
    assert (scan.subject, scan.dataset) == (expected.subject, expected.dataset)
    assert np.array_equal(scan.image, expected.image) and np.array_equal(scan.lesion_mask, expected.lesion_mask)


def test_example_scan_is_kept_in_the_folder_of_runs(tmp_path) -> None:
    first = example_scan("healthy", contrast="T1", runs=tmp_path)
    entries = [path for path in (tmp_path / "cache").iterdir()]
    again = example_scan("healthy", contrast="T1", runs=tmp_path)
    assert len(entries) == 1 and [path for path in (tmp_path / "cache").iterdir()] == entries
    assert first.contrast == "T1" and np.array_equal(first.image, again.image)


def test_healthy_twin_is_the_same_brain_without_the_lesion() -> None:
    scan = example_scan("tumour", split="val")
    twin = healthy_twin(scan)
    assert twin.subject == scan.subject and scan.lesion_mask.any() and not twin.lesion_mask.any()
    assert np.array_equal(twin.brain_mask, scan.brain_mask)
    changed = np.abs(scan.image - twin.image)
    assert changed[scan.lesion_mask].mean() > 4 * changed[scan.brain_mask & ~scan.lesion_mask].mean()


def test_a_patient_has_no_healthy_twin(row_of, write_nifti, stripped_head) -> None:
    scan = prepare_scan(row_of(write_nifti("s.nii.gz", stripped_head), subject="IXI-12"))
    with pytest.raises(InputError, match="IXI-12: only simulated scans"):
        healthy_twin(scan)


def test_example_slices_are_those_of_their_subjects(tmp_path) -> None:
    slices = example_slices(tmp_path, "val", subjects=2)
    rows = [row for row in cohort_rows(load_settings("demo")) if row.split == "val" and not row.lesion_mask][:2]
    first, second = (load_scan(row, ScanCache(tmp_path / "cache")).image for row in rows)
    assert len(slices) == len(first) + len(second)
    assert np.array_equal(slices[len(first)], second[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "stroke"}, "no simulated 'stroke' scans in split 'test'"),
        ({"kind": "tumour", "split": "train"}, "no simulated 'tumour' scans in split 'train'"),
        ({"contrast": "PD"}, "contrast 'PD'"),
        ({"subject": -1}, "0 subjects"),
        ({"subject": 10_000}, "10001 subjects"),
    ],
)
def test_no_such_example(arguments, message: str) -> None:
    with pytest.raises(InputError, match=message):
        example_scan(**arguments)


def test_test_subjects_give_no_training_slices(tmp_path) -> None:
    with pytest.raises(InputError, match="nothing is trained on test subjects"):
        example_slices(tmp_path, "test")


@pytest.mark.parametrize("name", ["simulated-t2-ddpm", "ixi-t1-pddpm"])
def test_shipped_model_comes_with_its_numbers(name: str) -> None:
    model = load_model(name)
    facts = json.loads((weights_folder(name) / "detection.json").read_text())
    assert (model.name, model.contrast, model.timestep) == (name, facts["contrast"], facts["timestep"])
    assert model.threshold == model.thresholds["healthy-quantile-0.99"]
    assert model.alpha_bar == pytest.approx(float(model.pipeline.scheduler.alphas_cumprod[facts["timestep"]]))
    assert model.places().mean.ndim == 3


def test_model_in_a_folder(tmp_path) -> None:
    folder = shutil.copytree(weights_folder("simulated-t2-pddpm"), tmp_path / "mine")
    assert load_model(str(folder)).name == "mine"
    other = shutil.copytree(folder, tmp_path / "bare")
    (other / "detection.json").unlink()
    with pytest.raises(InputError, match="no detection.json"):
        load_model(str(other))


def test_unknown_model() -> None:
    with pytest.raises(InputError, match="no shipped model 'pddmp'; choose one of .*simulated-t2-pddpm"):
        load_model("pddmp")
