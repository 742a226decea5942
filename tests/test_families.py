"""The comparison of lesion families: scored where it says, ranked and compared on numbers with a known answer."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pddm_utils.__main__ import main
from pddm_utils.benchmark.studies.families import Families, run_families
from pddm_utils.benchmark.studies.family_tables import (
    family_means,
    family_of,
    read_families,
    restoration_markdown,
    scores_markdown,
    tau_interval,
    taus,
)
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources.lesion_donors import COLUMNS, DONOR_TABLE
from pddm_utils.data.text_tables import read_table
from pddm_utils.publish.family_page import families_block, family_figure

METHODS = ("dae", "pddpm", "ddpm", "intensity")


def made_up(families: dict[str, tuple[float, ...]], people: int = 6) -> pd.DataFrame:
    """Scores of `METHODS` on each family, with a person's own part that changes no order."""
    rows = []
    for (family, values), person in itertools.product(families.items(), range(people)):
        for method, value in zip(METHODS, values, strict=True):
            scores = {"auprc": value + person / 1000, "restoration_l1": 1 - value, "lesion_l1": 0.25}
            rows.append({"method": method, "dataset": f"ixi-t1-{family}", "subject": f"p{person}", **scores})
    table = pd.DataFrame(rows)
    return table.assign(family=table.dataset.map(family_of), timestep=-1)


def test_the_longest_name_is_the_family():
    assert [family_of(f"ixi-t1-{name}") for name in ("ms", "real-ms", "real-shape")] == ["ms", "real-ms", "real-shape"]


def test_families_with_one_order_agree_and_with_the_opposite_disagree():
    table = made_up({"tumour": (0.7, 0.4, 0.2, 0.1), "real-shape": (0.4, 0.3, 0.2, 0.1), "ms": (0.1, 0.2, 0.3, 0.4)})
    square = taus(family_means(table))
    assert list(square.columns) == ["tumour", "ms", "real-shape"], "in the order of the kinds"
    assert square.loc["tumour", "real-shape"] == 1 and square.loc["tumour", "ms"] == -1
    # One of six pairs of methods the other way round: (5 - 1) / 6.
    swapped = taus(family_means(made_up({"tumour": (0.7, 0.4, 0.2, 0.1), "ms": (0.4, 0.7, 0.2, 0.1)})))
    assert swapped.loc["tumour", "ms"] == pytest.approx(4 / 6)
    assert tau_interval(table, "tumour", "real-shape") == (1.0, 1.0), "no person has another order"


def test_the_interval_of_tau_holds_its_value_where_people_differ():
    table = made_up({"tumour": (0.7, 0.4, 0.2, 0.1), "real-shape": (0.25, 0.24, 0.2, 0.1)}, people=8)
    table.auprc += np.random.default_rng(0).normal(0, 0.08, len(table))
    low, high = tau_interval(table, "tumour", "real-shape")
    assert -1 <= low < high <= 1
    assert low <= taus(family_means(table)).loc["tumour", "real-shape"] <= high


def test_tables_rank_within_a_family_and_name_what_is_not_restored():
    table = made_up({"tumour": (0.7, 0.4, 0.2, 0.1), "real-shape": (0.1, 0.3, 0.2, 0.4)})
    lines = scores_markdown(table).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]][0].startswith("DAE")
    assert "(1)" in lines[2].split("|")[2] and "(4)" in lines[2].split("|")[3]
    restored = restoration_markdown(table)
    assert "Intensity" not in restored and restored.splitlines()[-1].endswith("| 0.250 | 0.250 |")


def test_a_run_on_simulated_scans_with_real_shapes(tmp_path: Path, monkeypatch):
    """Masks made here: a ball for every lender."""
    ball = np.zeros((182, 218, 182), np.uint8)
    x, y, z = np.ogrid[:182, :218, :182]
    ball[(x - 118) ** 2 + (y - 106) ** 2 + (z - 97) ** 2 < 14**2] = 1
    image = nib.Nifti1Image(ball, np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]]))
    folder = tmp_path / "data" / "soop-flair" / "NIfTI"
    folder.mkdir(parents=True)
    nib.save(image, folder / "one.nii.gz")
    for record in read_table(DONOR_TABLE, COLUMNS):
        (folder / f"bwsr{record['subject']}_lesion.nii.gz").symlink_to(folder / "one.nii.gz")
    monkeypatch.setenv("PDDM_DATA", str(tmp_path / "data"))
    overrides = {"lesion_kinds": ["tumour", "real-shape"], "methods": ["intensity", "pca"], "level_choice": "family"}
    settings = load_settings("smoke", overrides)
    run = Families(settings, tmp_path / "runs", tmp_path / "results", slice_step=4)
    first = run_families(run).read_text(encoding="utf-8")
    table, made = read_families(tmp_path / "results")
    assert made["settings"]["slice_step"] == 4
    assert sorted(zip(table.method, table.family, strict=True)) == sorted(
        itertools.product(settings.methods, settings.lesion_kinds)
    )
    assert table.auprc.between(0, 1).all() and (table.lesion_l1 > 0).all() and (table.lesion_ml > 0).all()
    assert run_families(run).read_text(encoding="utf-8") == first
    run_families(replace(run, settings=load_settings("smoke", overrides | {"score": "place"})))
    placed, _ = read_families(tmp_path / "results")
    changed = set(table.method[table.auprc != placed.auprc])
    assert changed == {"pca"}, "another map of a network; a floor keeps its own"
    with pytest.raises(InputError, match="slice_step=0"):
        Families(settings, tmp_path, tmp_path, slice_step=0)


def test_without_a_run_the_block_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(InputError, match="make it with: python -m pddm_utils families --profile families"):
        families_block(tmp_path)


def test_the_command_refuses_without_scans(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.delenv("PDDM_DATA", raising=False)
    words = ["families", "--profile", "families", "--runs", str(tmp_path), "--results", str(tmp_path)]
    assert main(words) == 2
    assert "PDDM_DATA: not set" in capsys.readouterr().err


def test_the_picture_shows_each_family_in_the_slice_where_it_is_largest():
    lesion = np.zeros((3, 96, 96), dtype=bool)
    lesion[1, 40:50, 40:50], lesion[2, 40, 40] = True, True
    image = np.zeros((3, 96, 96), np.float32)
    image[1] = 0.5
    scans = {
        kind: Scan("s", "d", "T1", image, image > 0, lesion, np.eye(4))
        for kind in ("tumour", "ms", "real-shape", "real-ms", "foreign-patch", "mass-effect")
    }
    figure = family_figure(scans)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels][2] == "real stroke shape" and len(panels) == 6
    assert all(axes.images[0].get_array().max() == 0.5 for axes in panels)
