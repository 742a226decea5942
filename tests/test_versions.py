"""Models and scores are keyed by settings and data; what another commit made is used, and a warning says so."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pddm_utils.__main__ import main
from pddm_utils.benchmark import store
from pddm_utils.benchmark.models import train_method
from pddm_utils.benchmark.run import Benchmark, run_benchmark
from pddm_utils.benchmark.store import Part, kept_parts, key_of
from pddm_utils.benchmark.units import models_needed, units_to_score
from pddm_utils.core import provenance
from pddm_utils.core.settings import load_settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import data_digest
from pddm_utils.training import loop

TINY = {
    "train_subjects": 2,
    "val_subjects": 1,
    "train_steps": 2,
    "extra_seed_steps": 2,
    "checkpoint_every": 1,
    "methods": ["pca"],
    "seeds": [0],
    "lesion_kinds": ["tumour"],
    "threads": 1,
}


def test_digest_of_data_is_of_what_files_hold_and_not_of_where_they_lie(tmp_path: Path) -> None:
    rows = []
    for folder, content in (("one", b"scan"), ("two", b"scan"), ("three", b"SCAN")):
        path = tmp_path / folder / "s1.nii"
        path.parent.mkdir()
        path.write_bytes(content)
        rows.append(ManifestRow("s1", str(path), "", "", "train", "mine", "T2"))
    one, two, three = ([row] for row in rows)
    assert data_digest(one) == data_digest(two) != data_digest(three)
    assert data_digest(one) != data_digest([dataclasses.replace(rows[0], contrast="T1")]) != data_digest(one + two)


def test_a_key_is_of_settings_data_and_weights(tmp_path: Path) -> None:
    row = ManifestRow("s1", "simulated:1", "", "", "train", "mine", "T2")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    keys = [
        key_of({"steps": 1, "levels": [1, 2]}),
        key_of({"steps": 2, "levels": [1, 2]}),
        key_of({"steps": 1, "levels": [1, 2]}, [row]),
        key_of({"steps": 1, "levels": [1, 2]}, [dataclasses.replace(row, image="simulated:2")]),
        key_of({"steps": 1, "levels": [1, 2]}, [row], tmp_path / "a"),
        key_of({"steps": 1, "levels": [1, 2]}, [row], tmp_path / "b"),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of({"levels": (1, 2), "steps": 1}) == keys[0]


@pytest.fixture
def at_commit(monkeypatch: pytest.MonkeyPatch):
    """Makes the package one of another commit, or with another torch."""

    def change(commit: str, torch: str = "2.0") -> None:
        monkeypatch.setattr(provenance, "_said", set())
        made = {"git_commit": commit, "python": "3.11.1", "packages": {"torch": torch}}
        for module in (provenance, store, loop):
            monkeypatch.setattr(module, "made_with", lambda: made)

    return change


A, B = "a" * 40, "b" * 40


def messages(call) -> list[str]:
    """What is said about results that were made with something else."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if "are used, made with" in str(one.message)]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".safetensors"])
def test_a_part_of_another_commit_is_used_with_a_warning(tmp_path: Path, at_commit, suffix: str) -> None:
    values = {".csv": pd.DataFrame({"x": [0.5]}), ".json": {"x": 0.1}, ".safetensors": np.full((1, 2, 2), 0.5)}
    at_commit(A)
    Part(tmp_path / f"part{suffix}", lambda: values[suffix]).kept()
    part, found = Part(tmp_path / f"part{suffix}", lambda: pytest.fail("computed again")), []
    assert messages(lambda: found.append(part.kept())) == []
    assert str(found[0]) == str(values[suffix])
    at_commit(B, torch="2.1")
    (message,) = messages(lambda: found.append(*kept_parts([part], "nothing")))
    assert "commit aaaaaaa (now bbbbbbb); torch 2.0 (now 2.1)" in message and "Python" not in message
    assert str(found[1]) == str(found[0])


def test_what_was_made_with_uncommitted_changes_is_never_the_same(tmp_path: Path, at_commit) -> None:
    at_commit(f"{A}-dirty")
    part = Part(tmp_path / "part.json", lambda: 1)
    part.kept()
    (message,) = messages(part.kept)
    assert "commit aaaaaaa-dirty, whose uncommitted changes may have been others" in message


def test_a_benchmark_of_another_commit_is_used_with_one_warning(tmp_path: Path, at_commit) -> None:
    made = Benchmark(load_settings("smoke", TINY), False, tmp_path / "runs", tmp_path / "results")
    at_commit(A)
    assert messages(lambda: run_benchmark(made)) == []
    written = {path: path.stat().st_mtime_ns for path in made.runs.rglob("*") if path.is_file()}
    scores = (made.results / "scores.csv").read_bytes()
    at_commit(B)
    assert len(messages(lambda: run_benchmark(made))) == 1
    assert (made.results / "scores.csv").read_bytes() == scores
    assert {path: path.stat().st_mtime_ns for path in made.runs.rglob("*") if path.is_file()} == written
    model = json.loads((made.results / "run.json").read_text())["models"]["pca-seed0"]
    assert [one["git_commit"] for one in model["made_with"]] == [A] and (
        made.runs / "models" / model["folder"]
    ).is_dir()

    more = dataclasses.replace(made, settings=load_settings("smoke", TINY | {"train_steps": 3, "batch_size": 3}))
    run_benchmark(more)  # other settings: another model, beside the old
    assert len([path for path in (made.runs / "models").iterdir() if path.is_dir()]) == 2


def test_a_training_that_another_commit_goes_on_with_names_both(tmp_path: Path, at_commit, monkeypatch) -> None:
    settings = load_settings("smoke", TINY | {"methods": ["ae"]})
    at_commit(A)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_save", lambda self: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            train_method(settings, "ae", 0, tmp_path, tmp_path / "cache")
    at_commit(B)
    assert len(messages(lambda: train_method(settings, "ae", 0, tmp_path, tmp_path / "cache"))) == 1
    record = loop.read_training(train_method(settings, "ae", 0, tmp_path, tmp_path / "cache"))
    assert [one["git_commit"] for one in record["made_with"]] == [A, B]


def test_units_of_a_few_seeds() -> None:
    both = {"noise_levels": ["validation", "authors"]}
    settings = load_settings("smoke", both)  # three floors, ddpm, pddpm; seeds 0 and 1
    assert models_needed(settings, [1]) == [("atlas", 0), ("ddpm", 1), ("pddpm", 1)]
    assert units_to_score(settings, [1]) == [
        ("pddpm", 1, "validation"),
        ("ddpm", 1, "validation"),
        ("blur", 0, "none"),
        ("atlas", 0, "none"),
        ("intensity", 0, "none"),
    ]
    assert ("pddpm", 0, "authors") in units_to_score(settings, [0, 1])


def test_data_sets_and_seeds_of_the_command_line(tmp_path: Path, capsys) -> None:
    made = Benchmark(load_settings("smoke"), False, tmp_path, tmp_path, datasets=("simulated-t2-tumour",))
    assert {row.dataset for row in made.rows if row.split == "test"} == {"simulated-t2-tumour"}
    assert {row.split for row in made.rows} == {"train", "val", "test"}
    words = ["benchmark", "--profile", "smoke", "--runs", str(tmp_path / "runs")]
    for wrong, message in [
        (["--datasets", "brats"], "no test set of profile smoke; choose among simulated-t2"),
        (["--seeds", "7"], "profile smoke has [0, 1]"),
        (["--methods", "ddpn"], "choose among intensity"),
    ]:
        assert main([*words, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
